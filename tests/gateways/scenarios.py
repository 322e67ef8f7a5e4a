"""The one list of single requests that every gateway must answer alike.

A scenario is sent as bytes through the real gateway, `{token}` standing for a live
access token. After an allow the application must have seen the verified identity, each
header once, and nothing the client wrote under such a name.
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


@dataclass(frozen=True, slots=True)
class Scenario:
    """One request and the allowed statuses of its answer."""

    title: str
    statuses: frozenset[int]
    headers: tuple[tuple[str, str], ...] = (TOKEN,)
    method: str = "GET"
    target: str = "/orders?since=2026"
    body: bytes = b""

    @property
    def passes(self) -> bool:
        """Whether an allow is the right answer, or one of them."""
        return 200 in self.statuses


def _spoof(name: str) -> Scenario:
    return Scenario(f"spoofed {name} (R11)", PASSES, (TOKEN, (name, EVIL)))


def _spoof_alone(name: str) -> Scenario:
    headers = ((name, EVIL),)
    return Scenario(f"spoofed {name} without token (R2, R6)", UNAUTHORIZED, headers)


def _garbage(title: str, value: str) -> Scenario:
    return Scenario(title, REFUSED, (("Authorization", value),))


_IDENTITY = (
    "X-Auth-Subject",
    "X-Auth-User",
    "X-Auth-Client",
    "X-Auth-Scope",
    "X-Auth-Roles",
    "X-Auth-Session",
    "X-Auth-Decision",
)

SCENARIOS = (
    # --- the plain cases ----------------------------------------------------------
    Scenario("no token", UNAUTHORIZED, ()),
    Scenario("a token passes", PASSES),
    Scenario("scheme in lower case", PASSES, (("Authorization", "bearer {token}"),)),
    # --- methods and bodies pass rightly ------------------------------------------
    Scenario("HEAD", PASSES, method="HEAD"),
    Scenario("OPTIONS", PASSES, method="OPTIONS"),
    Scenario("DELETE", PASSES, method="DELETE"),
    Scenario(
        "POST with a body",
        PASSES,
        (TOKEN, ("Content-Length", "5"), ("Content-Type", "text/plain")),
        method="POST",
        body=b"hello",
    ),
    Scenario(
        "POST with a body that nginx keeps in a file",
        PASSES,
        (TOKEN, ("Content-Length", "100000")),
        method="POST",
        body=b"x" * 100_000,
    ),
    Scenario(
        "POST in chunks",
        PASSES,
        (TOKEN, ("Transfer-Encoding", "chunked")),
        method="POST",
        body=b"5\r\nhello\r\n0\r\n\r\n",
    ),
    Scenario(
        "POST refused before its body counts",
        UNAUTHORIZED,
        (("Content-Length", "5"),),
        method="POST",
        body=b"hello",
    ),
    # --- malformed credentials are refusals, never anonymous (R13) ----------------
    _garbage("garbage for a token", "Bearer not-a-token"),
    _garbage("garbage in three parts", "Bearer a.b.c"),
    _garbage("an empty bearer", "Bearer "),
    _garbage("a token with a tail", "Bearer {token}x"),
    _garbage("two tokens in one line", "Bearer {token}, Bearer {token}"),
    _garbage("basic credentials", "Basic YWRtaW46YWRtaW4="),
    _garbage("the token alone", "{token}"),
    _garbage("a token past the limit (R17)", "Bearer " + "a" * 8_100),
    Scenario("two Authorization headers (R4)", REFUSED, (TOKEN, TOKEN)),
    Scenario(
        "a second, foreign Authorization header (R4)",
        REFUSED,
        (TOKEN, ("Authorization", "Bearer other")),
    ),
    Scenario(
        "a token in the query only (RFC 6750, 2.3)",
        UNAUTHORIZED,
        (),
        target="/orders?access_token={token}",
    ),
    # --- an identity written by the client never arrives (R2, R11) ------------------
    *map(_spoof, _IDENTITY),
    *map(_spoof, [name.replace("-", "_") for name in _IDENTITY]),
    *map(_spoof, ["X-Auth_Subject", "X_Auth-Subject", "x-auth-subject", "X-AUTH-USER"]),
    *map(_spoof, ["X-Auth-Admin", "X-Auth-Email", "X-Auth-Groups", "X-Auth-Username"]),
    *map(_spoof, ["X-Auth-Request-User", "X-Forwarded-User", "Remote-User"]),
    # What an application believes of the way to it, and of the path: written anew, or
    # gone.
    *map(
        _spoof,
        [
            *("Forwarded", "X-Real-IP", "X-Forwarded-Proto", "X-Forwarded-Host"),
            *("X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-Server"),
            *("X-Original-URL", "X-Rewrite-URL", "X-Original-URI"),
            *("X-Original-Method", "X-Forwarded-Uri", "X-Forwarded-Method"),
            "X-Forwarded-Path",
        ],
    ),
    *map(_spoof_alone, ["X-Auth-Subject", "X_Auth_Subject", "X-Auth-Decision"]),
    Scenario(
        "an identity header twice (R4)",
        PASSES,
        (TOKEN, ("X-Auth-Roles", EVIL), ("X-Auth-Roles", f"{EVIL} again")),
    ),
    # --- hop-by-hop tricks change nothing, or are refused (R11) --------------------
    *(
        Scenario(
            f"Connection names {name} (R11)",
            PASSES,
            (TOKEN, ("Connection", f"close, {name}"), (name, EVIL)),
        )
        for name in ("X-Auth-Subject", "X-Auth-Roles", "X-Auth-Decision")
    ),
    Scenario(
        "Connection names an identity header the client does not send (R11)",
        PASSES,
        (TOKEN, ("Connection", "close, X-Auth-Subject")),
    ),
    Scenario(
        # Envoy drops headers named in Connection before the check: no token is left.
        "Connection names Authorization (R11)",
        PASSES | UNAUTHORIZED,
        (TOKEN, ("Connection", "close, Authorization")),
    ),
    # --- headers of other gateways have no effect (R3, R6) --------------------------
    *(
        Scenario(f"{name} opens nothing (R3, R6)", UNAUTHORIZED, ((name, value),))
        for name, value in (
            ("X-Original-URI", "/public"),
            ("X-Original-Method", "OPTIONS"),
            ("X-Forwarded-Uri", "/healthz"),
            ("X-Forwarded-For", "127.0.0.1"),
            ("X-Forwarded-Method", "OPTIONS"),
            ("User-Agent", "kube-probe/1.31"),
            ("User-Agent", "GoogleHC/1.0"),
        )
    ),
    # --- paths (R7) ----------------------------------------------------------------
    *(
        Scenario(f"{target} without token (R7)", REFUSED, (), target=target)
        for target in (
            "/healthz",
            "/verify/nginx",
            "/public/../orders",
            "//orders",
            "/%6frders",
            "/orders%2f..%2fhealthz",
            "/orders;x=1",
            "/.well-known/jwks.json",
        )
    ),
)
