"""The HTTP edge: bodies, rows, callers, errors, preconditions, health.

`authorization/` has principals and scopes.

It knows no route and no table.
"""
