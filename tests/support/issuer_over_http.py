"""The simulated issuer behind a real loopback port, for a real verifier process."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from tests.support.clock import FakeClock
from tests.support.issuer_simulator import IssuerSimulator
from tests.support.tokens import ISSUER


class WallClock(FakeClock):
    """Real time, for tokens that a real verifier looks at."""

    def now(self) -> int:
        return int(time.time())

    def monotonic(self) -> float:
        return time.monotonic()


@contextmanager
def served() -> Iterator[tuple[IssuerSimulator, str]]:
    """Serve an issuer's keys and feed; give it and the base URL it is served under."""
    issuer = IssuerSimulator(WallClock())
    is_over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            # Held as the issuer holds it: there is never news.
            if is_over.wait(float(query.get("wait", ["0"])[0])):
                self.close_connection = True
                return
            answer = asyncio.run(
                issuer.fetch(ISSUER + self.path, dict(self.headers), 0.0, 1 << 30)
            )
            # Who asked may have gone meanwhile.
            with suppress(ConnectionError):
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield issuer, f"http://127.0.0.1:{server.server_port}"
    finally:
        is_over.set()
        server.shutdown()
        thread.join()
        server.server_close()
