"""Sends one scenario as bytes, and reads the answer.

A client library would merge repeated headers, fix names, set `Connection` and resolve
`..`. An attacker's client does not.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

#: Bytes of an answer that are read.
MAX_ANSWER: Final = 1_048_576
_PORTS: Final = {"http": 80, "https": 443}


class UnreachableError(Exception):
    """There is no answer; the message says why."""


class BadUrlError(ValueError):
    """The URL does not name a gateway; the message has the rule."""


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """One answer of the gateway.

    Attributes:
        status: its status; without a body if that is 101, or a tunnel's.
        headers: names in lower case, in order.
        body: at most `MAX_ANSWER` bytes.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def values(self, name: str) -> list[str]:
        """Return every value of a header; the name is in lower case."""
        return [value for key, value in self.headers if key == name]

    def seen(self) -> dict[str, Any] | None:
        """Return what the echo application received; None if it did not answer."""
        try:
            # Its nesting has a bound, and its text no lone surrogates.
            seen = orjson.loads(self.body)
        except ValueError:
            return None
        if not isinstance(seen, dict) or not {"method", "path", "headers"} <= set(seen):
            return None
        return seen if isinstance(seen["headers"], dict) else None


@dataclass(frozen=True, slots=True)
class Gateway:
    """The address of a live gateway.

    Args:
        host: name or address to connect to.
        port: its port.
        tls: the context for https; None for http.
        host_header: what `Host` says.
        timeout: seconds for the connection, and for the whole answer.
    """

    host: str
    port: int
    tls: ssl.SSLContext | None
    host_header: str
    timeout: float

    @classmethod
    def from_url(
        cls, url: str, *, ca_file: str = "", host_header: str = "", timeout: float = 10
    ) -> Gateway:
        """Return the gateway of a URL.

        Args:
            url: `http://HOST[:PORT]` or `https://HOST[:PORT]`.
            ca_file: PEM file of the authorities to trust; empty: the system's.
            host_header: another value for `Host`, also for TLS; empty: the URL's.
            timeout: seconds for the connection, and for the whole answer.

        Raises:
            BadUrlError: for any other form.
            OSError: the file of authorities cannot be read.
        """
        try:
            parts = urlsplit(url)
            port = parts.port or _PORTS.get(parts.scheme, 0)
        except ValueError:
            raise BadUrlError("must be http://HOST:PORT or https://HOST:PORT") from None
        if parts.scheme not in _PORTS or not parts.hostname or parts.path.strip("/"):
            raise BadUrlError("must be http://HOST:PORT or https://HOST:PORT")
        if parts.username is not None or parts.query or parts.fragment:
            raise BadUrlError("must have no user, no query and no fragment")
        tls = None
        if parts.scheme == "https":
            tls = ssl.create_default_context(cafile=ca_file or None)
        return cls(parts.hostname, port, tls, host_header or parts.netloc, timeout)

    def send(
        self, method: str, target: str, headers: list[tuple[str, str]], body: bytes
    ) -> ProbeAnswer:
        """Send one request over a connection of its own.

        Raises:
            UnreachableError: there is no whole answer in time.
        """
        lines = [f"{method} {target} HTTP/1.1", f"Host: {self.host_header}"]
        lines += [f"{name}: {value}" for name, value in headers]
        if not any(name.lower() == "connection" for name, _ in headers):
            lines.append("Connection: close")
        head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        try:
            with self._connect() as connection, _ending(connection, self.timeout):
                return _exchange(connection, head + body, method)
        except OSError as error:
            raise UnreachableError(str(error) or type(error).__name__) from None
        except http.client.HTTPException as error:
            # Its text has what the gateway sent: perhaps the token.
            what = f"this is no HTTP answer ({type(error).__name__})"
            raise UnreachableError(what) from None

    def _connect(self) -> socket.socket:
        plain = socket.create_connection((self.host, self.port), self.timeout)
        if self.tls is None:
            return plain
        name = urlsplit(f"//{self.host_header}").hostname
        try:
            return self.tls.wrap_socket(plain, server_hostname=name)
        except OSError:
            plain.close()
            raise


@contextlib.contextmanager
def _ending(connection: socket.socket, timeout: float) -> Iterator[None]:
    """End the connection if the block takes longer.

    A time-out of the socket would begin anew with each byte.

    Raises:
        TimeoutError: it took longer.
    """
    is_over = threading.Event()

    def end() -> None:
        is_over.set()
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(timeout, end)
    timer.start()
    try:
        yield
    except (OSError, ValueError, http.client.HTTPException):
        if not is_over.is_set():
            raise
    finally:
        timer.cancel()
    if is_over.is_set():
        raise TimeoutError(f"no whole answer in {timeout:g} s")


def _exchange(connection: socket.socket, request: bytes, method: str) -> ProbeAnswer:
    # A gateway may answer and close before it has read the body.
    with contextlib.suppress(OSError):
        connection.sendall(request)
    answer = http.client.HTTPResponse(connection, method=method)
    try:
        answer.begin()
        switched = answer.status == http.HTTPStatus.SWITCHING_PROTOCOLS
        # A tunnel has no end (RFC 9110, section 9.3.6).
        switched |= method == "CONNECT" and answer.status < 300
        body = b"" if switched else answer.read(MAX_ANSWER)
    finally:
        answer.close()
    lines = tuple((name.lower(), value) for name, value in answer.getheaders())
    return ProbeAnswer(answer.status, lines, body)
