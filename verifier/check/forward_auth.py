"""How each gateway describes the client's request (docs/gateways.md).

The path of the check request selects the dialect, never a header: each gateway
overwrites only its own headers and passes the others on from the client. For each
dialect this module reads exactly the documented headers. No other module reads any
(R3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from verifier.check.denials import Denied, DenyReason

PREFIX: Final = b"/verify/"
# Integers: `in` with bytes on both sides raises and drops a TypeError first.
_SPACE: Final = ord(" ")
_TAB: Final = ord("\t")
_COMMA: Final = ord(",")

HeaderList = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Dialect:
    """The headers that one kind of gateway sends, and the form of its refusals.

    Attributes:
        name: the path segment after `/verify/`.
        method_header: the header with the client's method, lower case; empty when the
            check request itself has the client's method.
        uri_header: the header with the client's path and query; empty when they are
            appended to the check path.
        host_header: the header with the client's host.
        wants_body: whether a refusal's body reaches the client.
        slots: the index of the value for every spelling of a header, with `_` in place
            of `-` as well; -1 for a spelling that is not the header's own.
    """

    name: str
    method_header: bytes
    uri_header: bytes
    host_header: bytes
    wants_body: bool
    # Compiled, a look-up in a `Mapping` costs more: a warm check 5 %.
    slots: dict[bytes, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        slots: dict[bytes, int] = {}
        read = (_AUTHORIZATION, self.method_header, self.uri_header, self.host_header)
        for slot, name in enumerate(read):
            slots |= dict.fromkeys(_spellings(name), _ALIAS) | {name: slot}
        slots.pop(b"", None)
        object.__setattr__(self, "slots", slots)


_AUTHORIZATION: Final = b"authorization"
_ALIAS: Final = -1
_PREFLIGHT: Final = frozenset({b"origin", b"access-control-request-method"})


def _spellings(name: bytes) -> list[bytes]:
    """Return the name with each `-` as it is or as `_`."""
    first, *rest = name.split(b"-")
    spellings = [first]
    for part in rest:
        spellings = [s + mark + part for s in spellings for mark in (b"-", b"_")]
    return spellings


# Method, path with query, host.
_ORIGINAL: Final = (b"x-original-method", b"x-original-uri", b"x-original-host")
_FORWARDED: Final = (b"x-forwarded-method", b"x-forwarded-uri", b"x-forwarded-host")
DIALECTS: Final = {
    dialect.name.encode(): dialect
    for dialect in (
        Dialect("nginx", *_ORIGINAL, wants_body=False),
        Dialect("envoy", b"", b"", b"host", wants_body=True),
        Dialect("caddy", *_FORWARDED, wants_body=True),
        Dialect("haproxy", *_ORIGINAL, wants_body=True),
        Dialect("traefik", *_FORWARDED, wants_body=True),
        Dialect("apache", *_ORIGINAL, wants_body=False),
    )
}


class CheckRequest(Protocol):
    """The parts of a check request that a decision reads: see `PlainCheckRequest`."""

    @property
    def method(self) -> bytes: ...  # noqa: D102
    @property
    def target(self) -> bytes: ...  # noqa: D102
    @property
    def headers(self) -> HeaderList: ...  # noqa: D102
    @property
    def peer_is_trusted(self) -> bool: ...  # noqa: D102


class PlainCheckRequest(NamedTuple):
    """A check request as plain values.

    Attributes:
        method: the method of the check request itself.
        target: its raw path and query.
        headers: names in lower case, in order, with repetitions.
        peer_is_trusted: the connection is from a gateway of ours (R1).
    """

    method: bytes
    target: bytes
    headers: HeaderList
    peer_is_trusted: bool


class Route(NamedTuple):
    """A check path taken apart.

    Attributes:
        dialect: which headers are read.
        policy_name: empty when the path names no policy.
        client_uri: the client's path and query when they are appended to the path.
    """

    dialect: Dialect
    policy_name: str
    client_uri: bytes | None


#: The client's method, host, and raw path with query; None where the gateway sent none.
ClientRequest = tuple[bytes | None, bytes | None, bytes | None]
#: The value of the Authorization header, and the request of the client.
Question = tuple[bytes, ClientRequest]


def read_route(target: bytes) -> Route:
    """Read `/verify/<dialect>[/p/<policy>]`; Envoy appends the client's path to it.

    The query is never read: Caddy appends the client's own.

    Raises:
        Denied: `route_unknown`.
    """
    if not target.startswith(PREFIX):
        raise Denied(DenyReason.ROUTE_UNKNOWN)
    name, slash, rest = _cut(target[len(PREFIX) :])
    dialect = DIALECTS.get(name)
    if dialect is None:
        raise Denied(DenyReason.ROUTE_UNKNOWN)
    policy_name = b""
    if slash == b"/" and rest.startswith(b"p/"):
        policy_name, slash, rest = _cut(rest[2:])
        if not policy_name:
            raise Denied(DenyReason.ROUTE_UNKNOWN)
    if dialect.uri_header:
        if slash == b"/":
            raise Denied(DenyReason.ROUTE_UNKNOWN)
        return Route(dialect, policy_name.decode("latin-1"), None)
    return Route(dialect, policy_name.decode("latin-1"), slash + rest or None)


def _cut(path: bytes) -> tuple[bytes, bytes, bytes]:
    """Cut at the first `/` or `?`."""
    head, mark, query = path.partition(b"?")
    segment, slash, rest = head.partition(b"/")
    return (segment, slash, rest + mark + query) if slash else (segment, mark, query)


def read_question(request: CheckRequest, route: Route) -> Question:
    """Return the one credential, and the client's method, host and path.

    Raises:
        Denied: `credential_missing`, `credential_repeated`, `forwarded_repeated`.
    """
    slots = route.dialect.slots
    found: list[bytes | None] = [None, None, None, None]
    for name, value in request.headers:
        slot = slots.get(name)
        if slot is None:
            continue
        # Many programs read `X_Original_URI` as the same name, and some gateways pass
        # underscores on. Such a header counts as a repetition (R4).
        if slot < 0 or found[slot] is not None:
            raise Denied(
                DenyReason.FORWARDED_REPEATED
                if slot
                else DenyReason.CREDENTIAL_REPEATED
            )
        found[slot] = value
    authorization, method, uri, host = found
    if authorization is None:
        raise Denied(DenyReason.CREDENTIAL_MISSING)
    if not route.dialect.uri_header:
        return authorization, (request.method, host, route.client_uri)
    _check_uri(uri)
    return authorization, (method, host, uri)


def read_client(request: CheckRequest, route: Route) -> ClientRequest:
    """Return the client's method, host and path, whatever its credential.

    Raises:
        Denied: `forwarded_repeated`.
    """
    slots = route.dialect.slots
    found: list[bytes | None] = [None, None, None, None]
    for name, value in request.headers:
        slot = slots.get(name, 0)
        if slot == 0:
            continue
        if slot < 0 or found[slot] is not None:
            raise Denied(DenyReason.FORWARDED_REPEATED)
        found[slot] = value
    _, method, uri, host = found
    if not route.dialect.uri_header:
        return request.method, host, route.client_uri
    _check_uri(uri)
    return method, host, uri


def has_credential(request: CheckRequest) -> bool:
    """Return whether there is an Authorization header, even an empty one (R13)."""
    return any(name == _AUTHORIZATION for name, _ in request.headers)


def is_preflight(request: CheckRequest, method: bytes | None) -> bool:
    """Return whether it is a CORS preflight (Fetch, section 3.2.2).

    A browser sends `OPTIONS` with `Origin` and `Access-Control-Request-Method`, and
    never a credential.
    """
    if method != b"OPTIONS":
        return False
    names = {name for name, _ in request.headers}
    return names >= _PREFLIGHT and _AUTHORIZATION not in names


def _check_uri(uri: bytes | None) -> None:
    # A raw request-target has no space. ",/" in its path means that a proxy joined two
    # headers (R4).
    if uri is not None and (
        _SPACE in uri or (_COMMA in uri and b",/" in uri.partition(b"?")[0])
    ):
        raise Denied(DenyReason.FORWARDED_REPEATED)


def read_bearer(authorization: bytes) -> bytes:
    """Return the token behind `Bearer` (RFC 6750, section 2.1).

    The scheme is case-insensitive, followed by one or more spaces. Any other content of
    the header is a refusal, never "no credential" (R13).

    Raises:
        Denied: `credential_repeated` for a comma list, `credential_malformed`.
    """
    if _COMMA in authorization:
        raise Denied(DenyReason.CREDENTIAL_REPEATED)
    scheme, token = authorization[:7], authorization[7:]
    if scheme != b"Bearer " and scheme.lower() != b"bearer ":
        raise Denied(DenyReason.CREDENTIAL_MALFORMED)
    # Compiled, a comparison costs a sixth of `startswith`.
    if token[:1] == b" ":
        token = token.lstrip(b" ")
    # Other control characters are in no segment of a token, and no server of HTTP lets
    # them pass. A look at each byte would make the refusal of garbage a tenth dearer.
    if not token or not token.isascii() or _SPACE in token or _TAB in token:
        raise Denied(DenyReason.CREDENTIAL_MALFORMED)
    return token
