"""Turns logins away that nobody can hash for, before anything is done for them (R33).

A flood costs what its excess costs. Routing, body and validation would be nine tenths of
it, and refreshes would wait behind them on the same event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from issuer.errors import OverloadedError
from issuer.hashing.hashing_pool import HashingPool


class _Route(NamedTuple):
    """What the metrics ask of a route; the router was not asked."""

    path: str


class LoginAdmission:
    """Answers 503 at once for requests that need a hash while no place is free.

    Args:
        app: what it guards.
        pool: where the hash would run.
        paths: which requests need one.
        build_answer: makes the answer to an error on a path.
        on_refused: called once per request turned away.
    """

    def __init__(
        self,
        app: ASGIApp,
        pool: HashingPool,
        paths: Collection[str],
        build_answer: Callable[[str, OverloadedError], Response],
        on_refused: Callable[[], None],
    ) -> None:
        self._app = app
        self._pool = pool
        self._paths = frozenset(paths)
        self._build_answer = build_answer
        self._on_refused = on_refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if (
            scope["type"] != "http"
            or not self._pool.is_full
            or scope["path"] not in self._paths
            or scope["method"] != "POST"
        ):
            await self._app(scope, receive, send)
            return
        self._on_refused()
        scope["route"] = _Route(scope["path"])
        answer = self._build_answer(scope["path"], OverloadedError())
        await answer(scope, receive, send)
