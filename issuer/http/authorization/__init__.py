"""Who a request speaks for, its scopes, and what administration asks beyond them.

It verifies tokens through a callable, so it imports no package above `http/`.
"""
