"""A receiver of security events: a real HTTP server that believes nothing it is sent.

Checks each event with PyJWT against the issuer's JWKS, as RFC 8417 and RFC 8935 ask,
and answers as configured.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt

TOKEN = "receiver-token-0123456789"
AUDIENCE = "https://receiver.test"
SESSION_REVOKED = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"


@dataclass
class EventReceiver:
    """The requests that came in, and their answers.

    Attributes:
        url: where it listens.
        jwks: the issuer's, decoded; set before anything is sent.
        answers: the answers to the next requests, each (status, body); then 202.
        accepted: the claims of every event taken, by `jti`.
        attempts: the `jti` of every request, in order.
        faults: the faults of any request.
        redirected: requests that came to another path.
    """

    url: str = ""
    jwks: Any = None
    answers: list[tuple[int, bytes]] = field(default_factory=list)
    accepted: dict[str, dict[str, Any]] = field(default_factory=dict)
    attempts: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    redirected: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def receive(self, handler: BaseHTTPRequestHandler) -> tuple[int, bytes]:
        """Take one request and return status and body of the answer."""
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        with self._lock:
            if handler.path != "/events":
                self.redirected += 1
                return 202, b""
            try:
                claims = self._verify(handler, body.decode())
            except (AssertionError, jwt.PyJWTError, KeyError) as error:
                self.faults.append(repr(error))
                return 400, b'{"err":"invalid_request"}'
            self.attempts.append(claims["jti"])
            status, answer = self.answers.pop(0) if self.answers else (202, b"")
            if status == 202:
                if claims["jti"] in self.accepted:
                    self.faults.append("an event was delivered twice")
                self.accepted[claims["jti"]] = claims
            return status, answer

    def _verify(self, handler: BaseHTTPRequestHandler, token: str) -> dict[str, Any]:
        assert handler.headers["Content-Type"] == "application/secevent+jwt"
        assert handler.headers["Accept"] == "application/json"
        assert handler.headers["Authorization"] == f"Bearer {TOKEN}"
        header = jwt.get_unverified_header(token)
        assert header["typ"] == "secevent+jwt"
        claims: dict[str, Any] = jwt.decode(
            token,
            jwt.PyJWKSet.from_dict(self.jwks)[header["kid"]],
            algorithms=["RS256"],
            audience=AUDIENCE,
            issuer="https://issuer.test",
            options={"require": ["iss", "iat", "jti", "aud"], "verify_iat": False},
        )
        # SSF 1.0 and RFC 8417, section 4.6: never to be taken for an access token.
        assert claims.keys() == {
            *("iss", "iat", "jti", "aud", "txn", "sub_id", "events")
        }
        assert claims["events"].keys() == {SESSION_REVOKED}
        assert claims["events"][SESSION_REVOKED] == {"event_timestamp": claims["iat"]}
        return claims


@contextmanager
def running_receiver() -> Iterator[EventReceiver]:
    """Serve a receiver on a free loopback port."""
    receiver = EventReceiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            status, body = receiver.receive(self)
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", "/elsewhere")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            receiver.redirected += 1
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        # Several issuers connect at once; five is the default.
        request_queue_size = 128

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    receiver.url = f"http://127.0.0.1:{server.server_port}/events"
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def endpoint_setting(*receivers: EventReceiver) -> str:
    """Return `ISSUER_CAEP_ENDPOINTS` for these receivers: `r1`, `r2`, ..."""
    return json.dumps(
        [
            {
                "name": f"r{number}",
                "url": receiver.url,
                "audience": AUDIENCE,
                "token": TOKEN,
            }
            for number, receiver in enumerate(receivers, 1)
        ]
    )
