"""The gate as a plain ASGI application: `/verify/...` and nothing else.

No framework: a check costs less than a router's work. Health and metrics are on the
operators' port, so that no request of a client can reach them (R6).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

from verifier.answers import Answer
from verifier.forward_auth import PREFIX, CheckRequest
from verifier.gate import Gate

AsgiScope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Lifespan = Callable[[], AbstractAsyncContextManager[Gate]]

_NOT_FOUND = Answer(
    404,
    ((b"Content-Type", b"application/problem+json"), (b"Content-Length", b"55")),
    b'{"type":"about:blank","title":"Not Found","status":404}',
)


def trust_peers(networks: Iterable[str]) -> Callable[[str | None], bool]:
    """Return a function that tells whether a peer's address is a gateway of ours (R1).

    A peer without an address came through a unix socket, whose file's permissions are
    its check.
    """
    trusted = [ip_network(network) for network in networks]

    @lru_cache(maxsize=4_096)
    def is_trusted(host: str | None) -> bool:
        if host is None:
            return True
        address = ip_address(host)
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return any(address in network for network in trusted)

    return is_trusted


class VerifierApp:
    """The ASGI application of one worker.

    Args:
        lifespan: opens what runs beside the gate and gives the gate.
        is_trusted: tells whether a peer is a gateway of ours.
    """

    def __init__(
        self, lifespan: Lifespan, is_trusted: Callable[[str | None], bool]
    ) -> None:
        self._lifespan = lifespan
        self._is_trusted = is_trusted
        self._gate: Gate | None = None

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await _send_answer(send, self._answer(scope))

    def _answer(self, scope: AsgiScope) -> Answer:
        target: bytes = scope["raw_path"]
        if self._gate is None or not target.startswith(PREFIX):
            return _NOT_FOUND
        if scope["query_string"]:
            target = target + b"?" + scope["query_string"]
        client = scope.get("client")
        return self._gate.answer(
            CheckRequest(
                method=scope["method"].encode("ascii", "replace"),
                target=target,
                headers=scope["headers"],
                peer_is_trusted=self._is_trusted(client[0] if client else None),
            )
        )

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        async with self._lifespan() as gate:
            self._gate = gate
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})


async def _send_answer(send: Send, answer: Answer) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": answer.status,
            "headers": answer.headers,
        }
    )
    await send({"type": "http.response.body", "body": answer.body})
