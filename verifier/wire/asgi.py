"""The gate as a plain ASGI application: `/verify/...` and nothing else.

There is no framework: a router would cost more than a check. Health and metrics are on
the operators' port, so no client's request can reach them (R6).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from verifier.check.answers import NOT_FOUND, READ_METHODS, Answer
from verifier.check.forward_auth import PREFIX, PlainCheckRequest
from verifier.wire.hosting import Lifespan, LifespanApp, Receive, Send

AsgiScope = dict[str, Any]


class VerifierApp:
    """The ASGI application of one worker.

    Args:
        lifespan: starts the worker's parts and yields the public port.
    """

    def __init__(self, lifespan: Lifespan) -> None:
        self._lifespan_app = LifespanApp(lifespan)

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "lifespan":
            await self._lifespan_app(scope, receive, send)
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
        port = self._lifespan_app.port
        if port is None:
            return NOT_FOUND
        if not target.startswith(PREFIX):
            is_reading = scope["method"].encode() in READ_METHODS
            is_plain = is_reading and not scope["query_string"]
            documents = port.gate.paths.documents if is_plain else {}
            return documents.get(target, NOT_FOUND)
        if scope["query_string"]:
            target = target + b"?" + scope["query_string"]
        return port.gate.answer(
            PlainCheckRequest(
                method=scope["method"].encode("ascii", "replace"),
                target=target,
                headers=scope["headers"],
                peer_is_trusted=_is_trusted(scope, port.is_trusted),
            )
        )


def _is_trusted(scope: AsgiScope, is_trusted: Callable[[str], bool]) -> bool:
    """Trust a unix socket by the server's address, not by a missing peer (R43)."""
    if scope.get("client"):
        return is_trusted(scope["client"][0])
    server = scope.get("server")
    return server is not None and server[1] is None
