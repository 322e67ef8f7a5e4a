"""HTTP as bytes: the bytes written here go over the wire unchanged.

Client libraries normalise: they merge repeated headers, fix names, set `Connection` and
resolve `..`. An attacker's client does not.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.support.processes import PATIENCE

HeaderLines = Iterable[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """One answer: status, header lines in order (names in lower case), body."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """Return the one value of a header, None without; twice is a failure."""
        values = [value for key, value in self.headers if key == name.lower()]
        assert len(values) < 2, f"{name} came {len(values)} times: {values}"
        return values[0] if values else None

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)


def send(
    port: int | Path,
    method: str = "GET",
    target: str = "/",
    headers: HeaderLines = (),
    body: bytes = b"",
    *,
    timeout: float = PATIENCE,
) -> RawAnswer:
    """Send one request to a loopback port over a connection of its own.

    Args:
        port: the TCP port, or the path of a unix socket.
        method: written as given.
        target: written as given.
        headers: header lines, written as given after `Host`, in order, latin-1.
        body: bytes after the head; its length or coding stands in `headers`.
        timeout: seconds to wait for each part of the answer.

    Raises:
        OSError: there is no answer in time.
    """
    host = "unix" if isinstance(port, Path) else f"127.0.0.1:{port}"
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in headers]
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    with _connect(port, timeout) as connection:
        connection.sendall(head + body)
        return read_answer(connection, method)


def read_answer(connection: socket.socket, method: str) -> RawAnswer:
    """Return the answer that comes over a connection.

    Args:
        connection: read to the answer's end, perhaps further.
        method: that of the request: the answer to HEAD has no body.

    Raises:
        OSError: when it does not come in time.
    """
    answer = http.client.HTTPResponse(connection, method=method)
    try:
        answer.begin()
        read = answer.read()
    finally:
        answer.close()
    lines_back = tuple((name.lower(), value) for name, value in answer.getheaders())
    return RawAnswer(answer.status, lines_back, read)


def _connect(port: int | Path, timeout: float) -> socket.socket:
    if isinstance(port, int):
        return socket.create_connection(("127.0.0.1", port), timeout)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(timeout)
    try:
        connection.connect(str(port))
    except OSError:
        connection.close()
        raise
    return connection


def post_json(
    port: int, target: str, content: object, headers: HeaderLines = ()
) -> RawAnswer:
    """Send `content` as JSON with POST."""
    body = json.dumps(content).encode()
    described = [
        ("Content-Type", "application/json"),
        ("Content-Length", str(len(body))),
    ]
    return send(port, "POST", target, [*headers, *described], body)


def bearer(token: str) -> tuple[str, str]:
    """Return the header line that shows this token."""
    return ("Authorization", f"Bearer {token}")
