"""An application with long streams and large bodies, to stand behind a gateway.

Run: `python -m uvicorn --factory tests.support.stream_app:StreamApp --ws wsproto`. What
it does not know by path, it answers as the demo application does.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

from deploy.demo import app as demo

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

_PIECE = bytes(range(256)) * 256


def made_bytes(length: int) -> bytes:
    """Return the body of a download of that length."""
    return (_PIECE * (length // len(_PIECE) + 1))[:length]


class StreamApp:
    """The application; its state is what uploads have sent, and whether quiet may
    end.
    """

    def __init__(self) -> None:
        self._received = 0
        self._is_released = asyncio.Event()
        self._routes: dict[str, Callable[[Any, Receive, Send], Awaitable[None]]] = {
            "/upload": self._upload,
            "/received": self._tell_received,
            "/download": self._download,
            "/events": self._events,
            "/release": self._release,
            "/early": self._refuse_early,
            "/long-head": self._answer_long_head,
        }

    async def __call__(self, asgi_scope: Any, receive: Receive, send: Send) -> None:
        """Answer one request or one WebSocket."""
        if asgi_scope["type"] == "websocket":
            await self._websocket(asgi_scope, receive, send)
            return
        route = self._routes.get(asgi_scope["path"], demo.app)
        await route(asgi_scope, receive, send)

    async def _upload(self, _: Any, receive: Receive, send: Send) -> None:
        """Count and digest the bytes as they arrive."""
        self._received = 0
        digest = hashlib.sha256()
        has_more = True
        while has_more:
            message = await receive()
            digest.update(message.get("body", b""))
            self._received += len(message.get("body", b""))
            has_more = message.get("more_body", False)
        content = {"bytes": self._received, "sha256": digest.hexdigest()}
        await _answer_json(send, content)

    async def _tell_received(self, _: Any, __: Receive, send: Send) -> None:
        await _answer_json(send, {"bytes": self._received})

    async def _download(self, asgi_scope: Any, _: Receive, send: Send) -> None:
        """Send so many bytes in pieces: with a length, or in chunks without."""
        query = parse_qs(asgi_scope["query_string"].decode())
        body = made_bytes(int(query["bytes"][0]))
        length = [] if "chunked" in query else [(b"content-length", b"%d" % len(body))]
        await _begin(send, 200, length)
        for start in range(0, len(body), len(_PIECE)):
            piece = body[start : start + len(_PIECE)]
            await _go_on(send, piece)
        await _go_on(send, b"", is_last=True)

    async def _events(self, _: Any, receive: Receive, send: Send) -> None:
        """Server-sent events: one at once, one after `/release`, and no end."""
        self._is_released.clear()
        await _begin(send, 200, [(b"content-type", b"text/event-stream")])
        await _go_on(send, b"data: first\n\n")
        await self._is_released.wait()
        await _go_on(send, b"data: second\n\n")
        while (await receive())["type"] != "http.disconnect":
            pass

    async def _release(self, _: Any, __: Receive, send: Send) -> None:
        self._is_released.set()
        await _answer_json(send, {})

    async def _refuse_early(self, _: Any, __: Receive, send: Send) -> None:
        """Refuse a body after having read none of it, and close."""
        await _begin(send, 413, [(b"content-length", b"0"), (b"connection", b"close")])
        await _go_on(send, b"", is_last=True)

    async def _answer_long_head(self, _: Any, __: Receive, send: Send) -> None:
        """The headers of an answer with a content security policy and some cookies."""
        cookies = [
            (b"set-cookie", b"c%d=" % number + b"x" * 3_000) for number in range(8)
        ]
        await _begin(send, 200, [*cookies, (b"content-length", b"0")])
        await _go_on(send, b"", is_last=True)

    async def _websocket(self, asgi_scope: Any, receive: Receive, send: Send) -> None:
        """Send the headers of the handshake, then echo; `/closed` is refused."""
        await receive()
        if asgi_scope["path"] == "/closed":
            await send({"type": "websocket.close"})
            return
        await send({"type": "websocket.accept"})
        headers = {
            name.decode(): value.decode() for name, value in asgi_scope["headers"]
        }
        await send({"type": "websocket.send", "text": json.dumps(headers)})
        while (message := await receive())["type"] == "websocket.receive":
            echo = {key: message[key] for key in ("text", "bytes") if message.get(key)}
            await send({"type": "websocket.send", **echo})


async def _begin(send: Send, status: int, headers: Headers) -> None:
    await send(
        {"type": "http.response.start", "status": status, "headers": list(headers)}
    )


async def _go_on(send: Send, piece: bytes, *, is_last: bool = False) -> None:
    await send({"type": "http.response.body", "body": piece, "more_body": not is_last})


async def _answer_json(send: Send, content: object) -> None:
    body = json.dumps(content).encode()
    await _begin(send, 200, [(b"content-length", b"%d" % len(body))])
    await _go_on(send, body, is_last=True)
