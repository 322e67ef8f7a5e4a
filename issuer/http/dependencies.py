"""Gives routes the parts they need, through the application of the request.

Routes are functions of a module without state, so several issuers can serve in one
process.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any, Generic, TypeVar

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.requests import Request

from issuer.foundation import Package

_Part = TypeVar("_Part")


class PartOf(Generic[_Part]):
    """A dependency: the application's one part of a class.

    Args:
        kind: the class.

    Attributes:
        kind: the class.
    """

    def __init__(self, kind: type[_Part]) -> None:
        self.kind = kind

    async def __call__(self, request: Request) -> _Part:
        """Return the part; async, because FastAPI runs other functions in threads."""
        return self.find(request)

    def find(self, request: Request) -> _Part:
        """Return the part, for a `PlainRoute`, which has no dependencies."""
        part: _Part = request.app.state.parts[self.kind]
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

    Args:
        app: has all routes that ask for a part.
        parts: one of each class.

    Raises:
        ValueError: when two are of one class: a route could get the wrong one. When a
            route asks for one that is not there: it would fail at the first request.
    """
    found: dict[type, object] = {}
    for part in parts:
        if found.setdefault(type(part), part) is not part:
            raise ValueError(f"two parts of the class {type(part).__name__}")
    for route in app.router.routes:
        if isinstance(route, APIRoute):
            for kind in find_asked(route) - found.keys():
                raise ValueError(
                    f"{route.path} asks for the part {kind.__name__}: no package "
                    "provides it"
                )
    app.state.parts = found


def find_asked(route: APIRoute) -> set[type]:
    """Return the classes of the parts that a route may ask for.

    These are its dependencies, and every `PartOf` beside a function that it may call:
    a `PlainRoute` has no dependencies and asks by `find`.
    """
    return set().union(*map(_find_asked_by, _find_calls(route.dependant)))


@cache
def _find_asked_by(call: Callable[..., Any]) -> frozenset[type]:
    """Return the classes that a dependency may ask for, itself and by `PartOf.find`.

    Found once, before the workers are forked: the walk writes to much of the memory
    that they share.
    """
    asked = {call.kind} if isinstance(call, PartOf) else set()
    seen: set[int] = set()
    modules = [names] if (names := _find_globals(call)) is not None else []
    while modules:
        names = modules.pop()
        if id(names) in seen:
            continue
        seen.add(id(names))
        asked |= {each.kind for each in names.values() if isinstance(each, PartOf)}
        functions = filter(inspect.isfunction, names.values())
        modules += [each for each in map(_find_globals, functions) if each is not None]
    return frozenset(asked)


def _find_calls(dependant: Dependant) -> Iterator[Callable[..., Any]]:
    if dependant.call is not None:
        yield dependant.call
    for each in dependant.dependencies:
        yield from _find_calls(each)


def _find_globals(call: Callable[..., Any]) -> dict[str, Any] | None:
    """Return the names of the module that a function of the issuer stands in."""
    function = call if inspect.isfunction(call) else type(call).__call__
    names: dict[str, Any] = getattr(function, "__globals__", {})
    is_ours = str(names.get("__name__", "")).startswith("issuer.")
    return names if is_ours else None
