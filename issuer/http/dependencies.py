"""Gives routes the parts they need, through the application of the request.

Routes are functions of a module without state, so several issuers can serve in one
process.
"""

from collections.abc import Iterable
from typing import Generic, TypeVar

from fastapi import FastAPI
from starlette.requests import Request

from issuer.foundation import Package

_Part = TypeVar("_Part")


class PartOf(Generic[_Part]):
    """A dependency: the application's one part of a class.

    Args:
        kind: the class.
    """

    def __init__(self, kind: type[_Part]) -> None:
        self._kind = kind

    async def __call__(self, request: Request) -> _Part:
        """Return the part; async, because FastAPI runs other functions in threads."""
        return self.find(request)

    def find(self, request: Request) -> _Part:
        """Return the part, for a `PlainRoute`, which has no dependencies."""
        part: _Part = request.app.state.parts[self._kind]
        return part


def include(app: FastAPI, package: Package) -> None:
    """Add a package's routes as they are, the hot ones before all others.

    `include_router` would build each route's parameters and models a second time, which
    is half the cost of an application, and ask router by router for each request.

    Raises:
        ValueError: as `provide`.
    """
    for router in (*package.hot_routers, *package.routers):
        app.router.routes.extend(router.routes)
    provide(app, package.provides)


def provide(app: FastAPI, parts: Iterable[object]) -> None:
    """Give the application the parts that its routes ask for.

    Raises:
        ValueError: when two are of one class: a route could get the wrong one.
    """
    found: dict[type, object] = {}
    for part in parts:
        if found.setdefault(type(part), part) is not part:
            raise ValueError(f"two parts of the class {type(part).__name__}")
    app.state.parts = found
