"""Stands in for the issuer: keys, and a revocation feed of any size."""

from __future__ import annotations

import threading
from contextlib import suppress
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from loadtests.bench.passes import PassOffice
from shared.feed import LINES_TYPE


class Source:
    """Serves `/jwks.json` and `/feeds/N/revocations`, N live entries, on loopback.

    A feed's page is held as the issuer holds it, so that a verifier at rest asks as
    seldom as in life.
    """

    def __init__(self, office: PassOffice, port: int) -> None:
        self._office = office
        self._snapshot = cache(office.snapshot)
        self._closing = threading.Event()
        self.url = f"http://127.0.0.1:{port}"
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def feed_url(self, revocations: int) -> str:
        """Return the URL of the feed with that many live entries."""
        return f"{self.url}/feeds/{revocations}/revocations"

    def close(self) -> None:
        """Stop serving, and end the requests that are held."""
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, target: str) -> bytes:
        """Return the body for a path with query; waits for news that never come."""
        url = urlsplit(target)
        if url.path == "/jwks.json":
            return self._office.jwks
        revocations = int(url.path.split("/")[2])
        if url.path.endswith("/snapshot"):
            return self._snapshot(revocations)
        self._closing.wait(float(parse_qs(url.query)["wait"][0]))
        return self._office.empty_page(revocations)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        answer = self.answer

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = answer(self.path)
                is_snapshot = self.path.endswith("/snapshot")
                # The caller may have been stopped meanwhile.
                with suppress(ConnectionError):
                    self.send_response(200)
                    self.send_header(
                        "Content-Type",
                        LINES_TYPE if is_snapshot else "application/json",
                    )
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def handle_one_request(self) -> None:
                # Likewise while its next request is waited for.
                with suppress(ConnectionError):
                    super().handle_one_request()

            def log_message(self, *_: object) -> None:
                """Say nothing: the terminal is the table's."""

        return Handler
