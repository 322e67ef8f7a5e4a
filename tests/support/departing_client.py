"""A client that goes away before its body has arrived."""

from __future__ import annotations

from typing import Any

import httpx


async def post_and_go(client: httpx.AsyncClient, path: str) -> list[dict[str, Any]]:
    """Post to the client's application and leave; return its answer."""
    transport = client._transport
    assert isinstance(transport, httpx.ASGITransport)
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")],
        "query_string": b"",
    }
    await transport.app(scope, receive, send)
    return sent
