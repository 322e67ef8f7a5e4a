"""The principal of a request, its scopes, and the further rules of administration.

It verifies tokens through a callable, so it imports no package above `http/`.
"""
