"""The one list of single requests that every gateway must answer alike.

The tests send them through every shipped config, `doctor` through a live gateway. A
scenario is sent as bytes, with a live access token in place of `{token}`. After an
allow the application must have seen the verified identity, each header once, and
nothing the client wrote under such a name.
"""

from __future__ import annotations

from dataclasses import dataclass

#: No header of a request that passes may bring this word to the application.
EVIL = "mallory-was-here"

TOKEN = ("Authorization", "Bearer {token}")
#: RFC 6750 asks for 400 if the credential is malformed. The verifier answers 401, and
#: nginx itself refuses a repeated Authorization with 400.
REFUSED = frozenset({400, 401})
UNAUTHORIZED = frozenset({401})
PASSES = frozenset({200})
#: Gateways without tunnels refuse them as a bad request, method, path or feature.
_REFUSED_TUNNEL = frozenset({400, 403, 404, 405, 501})


@dataclass(frozen=True, slots=True)
class Scenario:
    """One request and the allowed statuses of its answer.

    Attributes:
        title: for people; unique.
        statuses: the allowed ones.
        hole: what is open when it fails, a key of `HOLES`.
        headers: names and values; `{token}` stands for the token.
        method: as it is sent.
        target: path and query; `{path}` stands for a protected path, `{encoded}` for
            the same with its first letter percent-encoded.
        body: as it is sent; its length or coding is in `headers`.
    """

    title: str
    statuses: frozenset[int]
    hole: str
    headers: tuple[tuple[str, str], ...] = (TOKEN,)
    method: str = "GET"
    target: str = "{path}?since=2026"
    body: bytes = b""

    @property
    def passes(self) -> bool:
        """Whether an allow is the right answer, or one of them."""
        return 200 in self.statuses

    @property
    def needs_token(self) -> bool:
        """Whether it shows a live token."""
        return any("{token}" in text for _, text in (*self.headers, ("", self.target)))

    def target_at(self, path: str, token: str = "") -> str:
        """Return the target for a protected path, which begins with `/`."""
        encoded = f"/%{ord(path[1]):02x}{path[2:]}" if path[1:] else "/"
        target = self.target.replace("{encoded}", encoded).replace("{path}", path)
        return target.replace("{token}", token)

    def headers_with(self, token: str) -> list[tuple[str, str]]:
        """Return the headers with this token."""
        return [(name, value.replace("{token}", token)) for name, value in self.headers]


def _spoof(name: str, hole: str) -> Scenario:
    return Scenario(f"spoofed {name} (R11)", PASSES, hole, (TOKEN, (name, EVIL)))


def _spoof_alone(name: str) -> Scenario:
    title = f"spoofed {name} without token (R2, R6)"
    return Scenario(title, UNAUTHORIZED, "open", ((name, EVIL),))


def _garbage(title: str, value: str) -> Scenario:
    return Scenario(title, REFUSED, "open", (("Authorization", value),))


def _spoof_all(hole: str, *names: str) -> list[Scenario]:
    return [_spoof(name, hole) for name in names]


_IDENTITY = (
    "X-Auth-Subject",
    "X-Auth-User",
    "X-Auth-Client",
    "X-Auth-Scope",
    "X-Auth-Roles",
    "X-Auth-Session",
    "X-Auth-Decision",
)
_HANDSHAKE = (
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "MDEyMzQ1Njc4OWFiY2RlZg=="),
)
_H2C = (
    ("Connection", "Upgrade, HTTP2-Settings"),
    ("Upgrade", "h2c"),
    ("HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA"),
)

_PLAIN = (
    Scenario("no token", UNAUTHORIZED, "open", ()),
    Scenario("a token passes", PASSES, "refused"),
    Scenario(
        "scheme in lower case",
        PASSES,
        "refused",
        (("Authorization", "bearer {token}"),),
    ),
)
_METHODS_AND_BODIES = (
    Scenario("HEAD", PASSES, "refused", method="HEAD"),
    Scenario("OPTIONS", PASSES, "refused", method="OPTIONS"),
    Scenario("DELETE", PASSES, "refused", method="DELETE"),
    *(
        Scenario(f"{method} without token", UNAUTHORIZED, "open-method", (), method)
        for method in ("HEAD", "OPTIONS", "DELETE", "PROPFIND", "PUT", "PATCH")
    ),
    Scenario(
        "POST with a body",
        PASSES,
        "refused",
        (TOKEN, ("Content-Length", "5"), ("Content-Type", "text/plain")),
        method="POST",
        body=b"hello",
    ),
    Scenario(
        "POST with a body that nginx keeps in a file",
        PASSES,
        "refused",
        (TOKEN, ("Content-Length", "100000")),
        method="POST",
        body=b"x" * 100_000,
    ),
    Scenario(
        "POST in chunks",
        PASSES,
        "refused",
        (TOKEN, ("Transfer-Encoding", "chunked")),
        method="POST",
        body=b"5\r\nhello\r\n0\r\n\r\n",
    ),
    Scenario(
        "POST refused before its body counts",
        UNAUTHORIZED,
        "open-method",
        (("Content-Length", "5"),),
        method="POST",
        body=b"hello",
    ),
)
# Malformed credentials are refusals, never anonymous (R13).
_CREDENTIALS = (
    _garbage("garbage for a token", "Bearer not-a-token"),
    _garbage("garbage in three parts", "Bearer a.b.c"),
    _garbage("an empty bearer", "Bearer "),
    _garbage("a token with a tail", "Bearer {token}x"),
    _garbage("two tokens in one line", "Bearer {token}, Bearer {token}"),
    _garbage("basic credentials", "Basic YWRtaW46YWRtaW4="),
    _garbage("the token alone", "{token}"),
    _garbage("a token past the limit (R17)", "Bearer " + "a" * 8_100),
    Scenario("two Authorization headers (R4)", REFUSED, "open", (TOKEN, TOKEN)),
    Scenario(
        "a second, foreign Authorization header (R4)",
        REFUSED,
        "open",
        (TOKEN, ("Authorization", "Bearer other")),
    ),
    Scenario(
        "a token in the query only (RFC 6750, 2.3)",
        UNAUTHORIZED,
        "open",
        (),
        target="{path}?access_token={token}",
    ),
)
# An identity written by the client never arrives (R2, R11).
_SPOOFED = (
    *_spoof_all("identity", *_IDENTITY),
    *_spoof_all("identity-alias", *(name.replace("-", "_") for name in _IDENTITY)),
    *_spoof_all("identity-alias", "X-Auth_Subject", "X_Auth-Subject"),
    *_spoof_all("identity-alias", "X.Auth.Subject"),
    *_spoof_all("identity", "x-auth-subject", "X-AUTH-USER"),
    *_spoof_all("foreign-identity", "X-Auth-Admin", "X-Auth-Email", "X-Auth-Groups"),
    *_spoof_all("foreign-identity", "X-Auth-Username", "X-Auth-Request-User"),
    *_spoof_all("foreign-identity", "X-Forwarded-User", "Remote-User"),
    *_spoof_all("foreign-identity", "X-Forwarded-Email", "X-Forwarded-Groups"),
    *_spoof_all("foreign-identity", "X-Forwarded-Preferred-Username"),
    # What an application believes of the way to it, and of the path: written anew, or
    # gone.
    *_spoof_all("forwarding", "Forwarded", "X-Real-IP", "X-Forwarded-Proto"),
    *_spoof_all("forwarding", "X-Forwarded-Host", "X-Forwarded-Port"),
    *_spoof_all("forwarding", "X-Forwarded-Prefix", "X-Forwarded-Server"),
    *_spoof_all("forwarding", "X-Forwarded-Ssl", "X-Forwarded-Scheme"),
    *_spoof_all("forwarding", "X-Original-URL", "X-Rewrite-URL", "X-Original-URI"),
    *_spoof_all("forwarding", "X-Original-Method", "X-Forwarded-Uri"),
    *_spoof_all("forwarding", "X-Forwarded-Method", "X-Forwarded-Path"),
    *map(_spoof_alone, ["X-Auth-Subject", "X_Auth_Subject", "X-Auth-Decision"]),
    Scenario(
        "an identity header twice (R4)",
        PASSES,
        "identity",
        (TOKEN, ("X-Auth-Roles", EVIL), ("X-Auth-Roles", f"{EVIL} again")),
    ),
)
# Hop-by-hop tricks change nothing, or are refused (R11).
_HOP_BY_HOP = (
    *(
        Scenario(
            f"Connection names {name} (R11)",
            PASSES,
            "identity",
            (TOKEN, ("Connection", f"close, {name}"), (name, EVIL)),
        )
        for name in ("X-Auth-Subject", "X-Auth-Roles", "X-Auth-Decision")
    ),
    Scenario(
        "Connection names an identity header the client does not send (R11)",
        PASSES,
        "identity-lost",
        (TOKEN, ("Connection", "close, X-Auth-Subject")),
    ),
    Scenario(
        # Envoy drops headers named in Connection before the check: no token is left.
        "Connection names Authorization (R11)",
        PASSES | UNAUTHORIZED,
        "refused",
        (TOKEN, ("Connection", "close, Authorization")),
    ),
)
# Headers of other gateways have no effect (R3, R6).
_FOREIGN = tuple(
    Scenario(
        f"{name}: {value} opens nothing (R3, R6)",
        UNAUTHORIZED,
        "open",
        ((name, value),),
    )
    for name, value in (
        ("X-Original-URI", "/public"),
        ("X-Original-Method", "OPTIONS"),
        ("X-Forwarded-Uri", "/healthz"),
        ("X-Forwarded-For", "127.0.0.1"),
        ("X-Forwarded-Method", "OPTIONS"),
        ("User-Agent", "kube-probe/1.31"),
        ("User-Agent", "GoogleHC/1.0"),
    )
)
# R7.
_PATHS = tuple(
    Scenario(f"{target} without token (R7)", REFUSED, "open-path", (), target=target)
    for target in (
        "/healthz",
        "/verify/nginx",
        "/public/..{path}",
        "/{path}",
        "{encoded}",
        "{path}%2f..%2fhealthz",
        "{path};x=1",
        "/.well-known/jwks.json",
    )
)
_UPGRADES = (
    Scenario(
        "a WebSocket handshake without token", UNAUTHORIZED, "open-upgrade", _HANDSHAKE
    ),
    Scenario("h2c without token", UNAUTHORIZED, "open-upgrade", _H2C),
    # Envoy refuses the upgrade, the others leave it out.
    Scenario("h2c", frozenset({200, 400, 403}), "upgrade", (TOKEN, *_H2C)),
    # The application would get its own path, and every byte after it.
    Scenario("CONNECT", _REFUSED_TUNNEL, "tunnel", (TOKEN,), "CONNECT", "{path}"),
)

SCENARIOS = (
    *_PLAIN,
    *_METHODS_AND_BODIES,
    *_CREDENTIALS,
    *_SPOOFED,
    *_HOP_BY_HOP,
    *_FOREIGN,
    *_PATHS,
    *_UPGRADES,
)
