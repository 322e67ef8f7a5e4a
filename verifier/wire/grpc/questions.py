"""Reads Envoy's CheckRequest as a check request of the gate.

A route of Envoy names its policy in `context_extensions`. The target is the one
that the HTTP dialect has for it, so both are one to the gate (decision 0002).
"""

from __future__ import annotations

from typing import Final

from google.protobuf.message import DecodeError

from verifier.check.denials import Denied, DenyReason
from verifier.check.forward_auth import DIALECTS, HeaderList, PlainCheckRequest, Route
from verifier.wire.budgets import TARGET_BYTES
from verifier.wire.grpc.budgets import HEADERS, MESSAGE_BYTES
from verifier.wire.grpc.stubs.ext_authz_pb2 import (
    Attributes,
    CheckRequest,
    HttpRequest,
)

_CHECK_PATH: Final = b"/verify/envoy"
#: The key of `context_extensions` with the policy's name.
POLICY_KEY: Final = "policy"
#: The route of a check that names none that can be read: a refusal has a body.
ENVOY_ROUTE: Final = Route(DIALECTS[b"envoy"], "", None)


class FaultyRequestError(Exception):
    """The client's request is one that the HTTP port does not take either.

    Attributes:
        status: of the answer: 400, 414 or 431.
    """

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def read_check(message: bytes) -> PlainCheckRequest:
    """Return the check request in a message of a trusted peer.

    Raises:
        Denied: `forwarded_malformed` for what is no CheckRequest or beyond a bound,
            `forwarded_missing` for one without method or path, `route_unknown` for a
            name that no policy can have.
        FaultyRequestError: the client's request has a fault or is too large.
    """
    if len(message) > MESSAGE_BYTES:
        raise Denied(DenyReason.FORWARDED_MALFORMED)
    try:
        attributes = CheckRequest.FromString(message).attributes
    except DecodeError:
        raise Denied(DenyReason.FORWARDED_MALFORMED) from None
    http = attributes.request.http
    method = http.method.encode()
    if not method:
        raise Denied(DenyReason.FORWARDED_MISSING)
    target = _read_check_path(attributes) + _read_path(http)
    return PlainCheckRequest(method, target, _read_headers(http), peer_is_trusted=True)


def _read_check_path(attributes: Attributes) -> bytes:
    """Return the check path, without the client's path.

    Without a policy the gate decides, as for the HTTP dialect, whether the client's
    path could choose one.
    """
    extensions = attributes.context_extensions
    if POLICY_KEY not in extensions:
        return _CHECK_PATH
    name = extensions[POLICY_KEY].encode()
    # Such a name would end before its end, and the rest would be the client's path.
    if not name or b"/" in name or b"?" in name:
        raise Denied(DenyReason.ROUTE_UNKNOWN)
    return b"%b/p/%b" % (_CHECK_PATH, name)


def _read_path(http: HttpRequest) -> bytes:
    """Return the client's raw path and query.

    It begins with a slash, or it would continue the policy's name. It has no fragment
    and no byte beyond ASCII, as on the HTTP port (RFC 9112, section 3.2).
    """
    path = http.path.encode()
    if not path:
        raise Denied(DenyReason.FORWARDED_MISSING)
    if len(path) > TARGET_BYTES:
        raise FaultyRequestError(414)
    if not path.startswith(b"/") or not path.isascii() or b"#" in path:
        raise FaultyRequestError(400)
    return path


def _read_headers(http: HttpRequest) -> HeaderList:
    """Return the headers, names in lower case, and the host as one of them.

    Envoy fills `headers` or, with `encode_raw_headers`, `header_map`. In `headers` it
    has joined repeated ones by commas, so two credentials are a value with a comma,
    which is refused (R4). All of both are read: if both have a credential, it counts as
    repeated.
    """
    lines, joined = http.header_map.headers, http.headers
    if len(lines) + len(joined) > HEADERS:
        raise FaultyRequestError(431)
    headers = [
        (line.key.lower().encode(), line.raw_value or line.value.encode())
        for line in lines
    ]
    # An empty map takes as long to go through as three headers.
    if joined:
        headers += [(n.lower().encode(), v.encode()) for n, v in joined.items()]
    if http.host:
        headers.append((b"host", http.host.encode()))
    return headers
