"""The HTTP edge: bodies, rows, callers, errors, preconditions, health; `authorization/` says who may.

It knows no route and no table.
"""
