"""The gate as a plain ASGI application: `/verify/...` and nothing else.

No framework: a check costs less than a router's work. Health and metrics are on the
operators' port, so that no request of a client can reach them (R6).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from verifier.check.answers import NOT_FOUND, Answer
from verifier.check.forward_auth import PREFIX, PlainCheckRequest
from verifier.wire.hosting import Life, Lifespan, Receive, Send

AsgiScope = dict[str, Any]


class VerifierApp:
    """The ASGI application of one worker.

    Args:
        lifespan: opens what runs beside the gate and gives the edge.
    """

    def __init__(self, lifespan: Lifespan) -> None:
        self._life = Life(lifespan)

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "lifespan":
            await self._life(scope, receive, send)
        elif scope["type"] == "http":
            answer = self._answer(scope)
            headers, body = answer.headers, answer.body
            await send(
                {
                    "type": "http.response.start",
                    "status": answer.status,
                    "headers": headers,
                }
            )
            await send({"type": "http.response.body", "body": body})

    def _answer(self, scope: AsgiScope) -> Answer:
        target: bytes = scope["raw_path"]
        edge = self._life.edge
        if edge is None or not target.startswith(PREFIX):
            return NOT_FOUND
        if scope["query_string"]:
            target = target + b"?" + scope["query_string"]
        return edge.gate.answer(
            PlainCheckRequest(
                method=scope["method"].encode("ascii", "replace"),
                target=target,
                headers=scope["headers"],
                peer_is_trusted=_is_trusted(scope, edge.is_trusted),
            )
        )


def _is_trusted(scope: AsgiScope, is_trusted: Callable[[str], bool]) -> bool:
    """A unix socket is one by the server's address, not by the lack of a peer's (R43)."""
    if scope.get("client"):
        return is_trusted(scope["client"][0])
    server = scope.get("server")
    return server is not None and server[1] is None
