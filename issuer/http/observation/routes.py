"""A request in a few words that a client cannot choose."""

from __future__ import annotations

from starlette.types import Scope

from issuer.metrics import METHODS


def method_of(scope: Scope) -> str:
    """Return the method, or `other` for one that no route has."""
    method: str = scope["method"]
    return method if method in METHODS else "other"


def route_of(scope: Scope) -> str:
    """Return the route's template once it is found, such as `/users/{user_id}`."""
    template: str = getattr(scope.get("route"), "path", "unmatched")
    return template
