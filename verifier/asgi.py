"""The gate as a plain ASGI application: `/verify/...` and nothing else.

No framework: a check costs less than a router's work. Health and metrics are on the
operators' port, so that no request of a client can reach them (R6).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from verifier.answers import Answer, Headers
from verifier.edge import Edge
from verifier.forward_auth import PREFIX, CheckRequest

AsgiScope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Lifespan = Callable[[], AbstractAsyncContextManager[Edge]]

_NOT_FOUND_BODY = b'{"type":"about:blank","title":"Not Found","status":404}'
_NOT_FOUND_HEADERS = (
    (b"Content-Type", b"application/problem+json"),
    (b"Content-Length", b"%d" % len(_NOT_FOUND_BODY)),
)


class VerifierApp:
    """The ASGI application of one worker.

    Args:
        lifespan: opens what runs beside the gate and gives the edge.
    """

    def __init__(self, lifespan: Lifespan) -> None:
        self._lifespan = lifespan
        self._edge: Edge | None = None

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif scope["type"] == "http":
            answer = self._answer(scope)
            if answer is None:
                await _send(send, 404, _NOT_FOUND_HEADERS, _NOT_FOUND_BODY)
            else:
                await _send(send, answer.status, answer.headers, answer.body)

    def _answer(self, scope: AsgiScope) -> Answer | None:
        target: bytes = scope["raw_path"]
        edge = self._edge
        if edge is None or not target.startswith(PREFIX):
            return None
        if scope["query_string"]:
            target = target + b"?" + scope["query_string"]
        client = scope.get("client")
        return edge.gate.answer(
            CheckRequest(
                method=scope["method"].encode("ascii", "replace"),
                target=target,
                headers=scope["headers"],
                peer_is_trusted=edge.is_trusted(client[0] if client else None),
            )
        )

    async def _live(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        await receive()
        async with self._lifespan() as edge:
            self._edge = edge
            # The server hands this state to every connection it makes.
            scope["state"]["edge"] = edge
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})


async def _send(send: Send, status: int, headers: Headers, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
