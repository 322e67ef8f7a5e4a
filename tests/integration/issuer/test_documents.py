"""Documents that are the same for all callers are in memory once (R44)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from starlette.types import ASGIApp, Message

from issuer.http.documents import PIECE
from tests.support.issuer_harness import IssuerHarness, make_settings, running_issuer


@pytest.fixture
async def issuer(sqlite_url: str) -> AsyncIterator[IssuerHarness]:
    async with running_issuer(make_settings(sqlite_url)) as harness:
        yield harness


@pytest.mark.parametrize(
    "path", ["/openapi.json", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css"]
)
async def test_answers_share_the_bytes_of_a_document(
    issuer: IssuerHarness, path: str
) -> None:
    """Made anew for each, 200 clients that did not read it added 31 MB."""
    app = issuer.client._transport.app  # type: ignore[attr-defined]
    first, second = await send_pieces(app, path), await send_pieces(app, path)
    assert [id(piece) for piece in first] == [id(piece) for piece in second]
    # Few bytes wait for a slow reader.
    assert max(map(len, first)) <= PIECE
    answer = await issuer.client.get(path)
    assert b"".join(first) == answer.content
    assert answer.headers["Content-Length"] == str(len(answer.content))


async def send_pieces(app: ASGIApp, path: str) -> list[bytes]:
    """Return the very objects that the application sends as an answer's body."""
    sent: list[Message] = []
    is_asked = asyncio.Event()

    async def receive() -> Message:
        # The body is empty and the client stays.
        if is_asked.is_set():
            await asyncio.Event().wait()
        is_asked.set()
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"issuer.test")],
        "client": ("192.0.2.1", 1),
        "server": ("issuer.test", 80),
        "state": {},
    }
    await app(scope, receive, send)
    return [each["body"] for each in sent[1:] if each["body"]]
