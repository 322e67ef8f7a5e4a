"""The echo application: it answers with the request it received.

Any path and method gets `{"method": ..., "path": ..., "headers": {...}}` as JSON.
Header names are in lower case; a repeated header is a list of its values. It trusts
every caller, as applications behind a gateway do, so bind it where only the gateway can
connect.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from typing import Any, Final

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

#: Seconds for the application to begin, and to end.
_PATIENCE: Final = 10.0


async def app(
    asgi_scope: MutableMapping[str, Any], receive: Receive, send: Send
) -> None:
    """Answer one request; other kinds of ASGI calls (lifespan) are not supported."""
    if asgi_scope["type"] != "http":
        raise ValueError(f"{asgi_scope['type']} is not spoken here")
    while (await receive()).get("more_body", False):
        pass
    body = json.dumps(describe(asgi_scope)).encode("ascii")
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode("ascii")),
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})


def describe(asgi_scope: MutableMapping[str, Any]) -> dict[str, object]:
    """Return method, raw path with query, and headers as received."""
    path = asgi_scope["raw_path"]
    if asgi_scope["query_string"]:
        path += b"?" + asgi_scope["query_string"]
    return {
        "method": asgi_scope["method"],
        "path": path.decode("latin-1"),
        "headers": _by_name(asgi_scope["headers"]),
    }


def _by_name(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str | list[str]]:
    values: dict[str, list[str]] = {}
    for name, value in headers:
        key = name.decode("latin-1").lower()
        values.setdefault(key, []).append(value.decode("latin-1"))
    return {name: v[0] if len(v) == 1 else v for name, v in values.items()}


@contextlib.contextmanager
def running(host: str, port: int) -> Iterator[None]:
    """Serve the echo application within.

    Raises:
        OSError: the address is in use, or is not of this machine.
    """
    import uvicorn

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family)
    server = uvicorn.Server(
        uvicorn.Config(
            app, ws="none", lifespan="off", log_config=None, access_log=False
        )
    )
    # uvicorn leaves the signals alone in a thread that is not the main one.
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(_PATIENCE)
        listener.close()
