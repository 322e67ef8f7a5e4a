"""The simulated issuer behind a real loopback port, for a real verifier process."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from tests.support.clock import FakeClock
from tests.support.issuer_simulator import IssuerSimulator
from tests.support.tokens import ISSUER

#: Gives the TLS side of a server, for the next connection.
TlsOf = Callable[[], ssl.SSLContext]


class WallClock(FakeClock):
    """Real time, for tokens that a real verifier looks at."""

    def now(self) -> int:
        return int(time.time())

    def monotonic(self) -> float:
        return time.monotonic()


class _Server(ThreadingHTTPServer):
    """Speaks TLS when it has a side of it; which may change."""

    daemon_threads = True
    tls: TlsOf | None = None

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        connection, address = super().get_request()
        if self.tls is not None:
            # The handshake is the handler's: it may take long, or fail.
            connection = self.tls().wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        return connection, address

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a client that trusts us not is none of our errors."""


@contextmanager
def served(
    issuer: IssuerSimulator | None = None,
    *,
    address: tuple[str, int] = ("127.0.0.1", 0),
    tls: TlsOf | None = None,
    asked: list[str] | None = None,
) -> Iterator[tuple[IssuerSimulator, str]]:
    """Serve an issuer's keys and feed; give it and the base URL it is served under.

    Args:
        issuer: one that is there already.
        address: to listen on.
        tls: gives the TLS side of the next connection; None: plain HTTP.
        asked: gets the target of each request.
    """
    issuer = issuer or IssuerSimulator(WallClock())
    is_over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if asked is not None:
                asked.append(self.path)
            query = parse_qs(urlsplit(self.path).query)
            # Held as the issuer holds it: there is never news.
            if is_over.wait(float(query.get("wait", ["0"])[0])):
                self.close_connection = True
                return
            answer = asyncio.run(
                issuer.fetch(ISSUER + self.path, dict(self.headers), 0.0, 1 << 30)
            )
            # The caller may have left meanwhile.
            with suppress(ConnectionError):
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

        def do_POST(self) -> None:
            answer = asyncio.run(issuer.post(ISSUER + self.path, dict(self.headers)))
            self.send_response(answer.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = _Server(address, Handler)
    server.tls = tls
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        scheme = "http" if tls is None else "https"
        yield issuer, f"{scheme}://{address[0]}:{server.server_port}"
    finally:
        is_over.set()
        server.shutdown()
        thread.join()
        server.server_close()
