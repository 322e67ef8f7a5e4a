"""Repeats a request whose transaction PostgreSQL rolled back in favour of another.

It is the innermost middleware: several attempts are counted, limited and logged as one
request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from issuer.errors import DatabaseConflictError, IssuerError
from issuer.storage.database_attempts import retry_conflicts

#: Bytes of a body that are kept for a second attempt.
_MOST_KEPT: Final = 1_048_576


class ConflictRetry:
    """Repeats a request that has committed nothing and has not begun its answer.

    Args:
        app: the guarded application; `DatabaseConflictError` passes through it.
        build_answer: returns the answer for a path and an error.
    """

    def __init__(
        self, app: ASGIApp, build_answer: Callable[[str, IssuerError], Response]
    ) -> None:
        self._app = app
        self._build_answer = build_answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        replay = _Replay(receive, send)

        async def serve() -> None:
            replay.begin()
            await self._app(scope, replay.receive, replay.send)

        try:
            await retry_conflicts(serve, lambda: replay.is_possible)
        except DatabaseConflictError as error:
            if replay.has_started:
                raise
            await self._build_answer(scope["path"], error)(scope, receive, send)


class _Replay:
    """The received messages of a request, kept so that they can be received again.

    Attributes:
        is_possible: whether every message was kept and nothing was sent.
        has_started: whether the answer has begun.
    """

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._kept: list[Message] = []
        self._next = 0
        self._bytes = 0
        self.has_started = False

    @property
    def is_possible(self) -> bool:
        return not self.has_started and self._bytes <= _MOST_KEPT

    def begin(self) -> None:
        """Return to the first message."""
        self._next = 0

    async def receive(self) -> Message:
        if self._next < len(self._kept):
            message = self._kept[self._next]
        else:
            message = await self._receive()
            self._bytes += len(message.get("body", b""))
            if self._bytes <= _MOST_KEPT:
                self._kept.append(message)
            else:
                self._kept.clear()
        self._next += 1
        return message

    async def send(self, message: Message) -> None:
        self.has_started = True
        await self._send(message)
