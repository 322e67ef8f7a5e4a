"""Another issuer: its OpenID configuration and keys, in memory or over HTTP."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import orjson

from tests.support.jose_keys import JoseKey, jose_key
from verifier.sync.fetch import Fetched, TakeLine

CONFIGURATION = "/.well-known/openid-configuration"


class OpenIdProvider:
    """The answers of an issuer, which a test may change.

    Attributes:
        issuer: its `iss`, and the base of its URLs.
        members: of the OpenID configuration.
        jwks: the keys as JSON objects.
        answers: status and body by path, in place of the usual ones.
        asked: the path of each request.
        largest: the most bytes that the last request would read.
    """

    def __init__(self, issuer: str, *keys: JoseKey) -> None:
        self.issuer = issuer
        self.members: dict[str, Any] = {"issuer": issuer, "jwks_uri": f"{issuer}/jwks"}
        self.jwks = [key.jwk for key in keys or (jose_key("ES256"),)]
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.asked: list[str] = []
        self.largest = 0

    def answer(self, path: str) -> tuple[int, bytes]:
        """Return status and body for a path behind the issuer's own."""
        self.asked.append(path)
        usual = {
            CONFIGURATION: (200, orjson.dumps(self.members)),
            "/jwks": (200, orjson.dumps({"keys": self.jwks})),
        }
        return (usual | self.answers).get(path, (404, b"not here"))

    async def fetch(
        self,
        url: str,
        headers: Mapping[str, str],
        hold: float,
        max_bytes: int,
        take_line: TakeLine | None = None,
    ) -> Fetched:
        """Answer as `HttpSource.fetch` does."""
        assert "Authorization" not in headers
        assert hold == 0.0
        self.largest = max_bytes
        status, body = self.answer(url.removeprefix(self.issuer))
        is_good = status == 200
        shown = "" if is_good else body.decode()
        return Fetched(status, {}, body if is_good else b"", 0.0, shown)


@contextmanager
def openid_provider(
    *keys: JoseKey, tls: ssl.SSLContext | None = None
) -> Iterator[OpenIdProvider]:
    """Serve a provider on loopback until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = provider.answer(urlsplit(self.path).path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: object) -> None:
            """Write nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        scheme = "http" if tls is None else "https"
        provider = OpenIdProvider(f"{scheme}://127.0.0.1:{server.server_port}", *keys)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield provider
        finally:
            server.shutdown()
            thread.join()
