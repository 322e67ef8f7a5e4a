"""Writes the gate's answers as Envoy's CheckResponse.

An empty CheckResponse lets a request pass, and so does one whose status is 0 whatever
else it says. So each one begins as a refusal, and only an allow of the gate, with every
identity header, makes it one that lets the request pass.
"""

from __future__ import annotations

from typing import Final

from verifier.check.answers import IDENTITY_HEADERS, Answer
from verifier.check.forward_auth import HeaderList
from verifier.wire.grpc.stubs.ext_authz_pb2 import (
    OVERWRITE_IF_EXISTS_OR_ADD,
    Allowed,
    Bool,
    CheckResponse,
    Denied,
    Header,
)

# The codes of gRPC (google.rpc.Code). Envoy only looks whether it is 0; the client of
# the application gets the status that Envoy derives from that of HTTP.
_OK: Final = 0
_INVALID_ARGUMENT: Final = 3
_UNAVAILABLE: Final = 14
_CODES: Final = {401: 16, 403: 7, 503: _UNAVAILABLE}
_IDENTITY: Final = frozenset(name.decode().lower() for name in IDENTITY_HEADERS)
_IDENTITY_PREFIX: Final = b"x-auth-"
_CREDENTIAL: Final = "authorization"

#: The headers of an answer, names in lower case; no name is in an answer twice.
_Headers = dict[str, str]


def encode_answer(answer: Answer, sent: HeaderList = ()) -> bytes:
    """Return the CheckResponse of an answer of the gate.

    Args:
        answer: what the gate says.
        sent: the client's headers, names in lower case.
    """
    response = _refusal()
    headers = {name.decode().lower(): value.decode() for name, value in answer.headers}
    # gRPC has its own.
    headers.pop("content-length", None)
    if answer.status in _CODES:
        _describe_refusal(response, answer, headers)
    elif answer.status == 200 and headers.keys() >= _IDENTITY:
        # A document has the status 200, too, and no identity.
        _let_pass(response, headers, sent)
    encoded: bytes = response.SerializeToString()
    return encoded


def _refusal() -> CheckResponse:
    """Return a response that refuses with 503: the beginning of every one."""
    response = CheckResponse()
    response.status.code = _UNAVAILABLE
    response.denied_response.status.code = 503
    return response


#: For a fault of ours after which there is no answer of the gate.
REFUSAL: Final[bytes] = _refusal().SerializeToString()


def encode_fault(status: int) -> bytes:
    """Return the refusal of a request that is the client's fault.

    Args:
        status: of HTTP, for the client: 400, 414 or 431.
    """
    response = _refusal()
    response.status.code = _INVALID_ARGUMENT
    response.denied_response.status.code = status
    encoded: bytes = response.SerializeToString()
    return encoded


def _describe_refusal(
    response: CheckResponse, answer: Answer, headers: _Headers
) -> None:
    """Put status, headers and body of the HTTP dialect into a refusal."""
    response.status.code = _CODES[answer.status]
    denied = response.denied_response
    denied.status.code = answer.status
    denied.body = answer.body.decode()
    _set_headers(denied, headers)


def _let_pass(response: CheckResponse, headers: _Headers, sent: HeaderList) -> None:
    """Turn a refusal into a response that lets the request pass, with identity."""
    allowed = Allowed()
    _set_headers(allowed, headers)
    allowed.headers_to_remove.extend(_list_forged(headers, sent))
    # It sets the other member of a `oneof`, so it removes the refusal.
    response.ok_response.CopyFrom(allowed)
    response.status.code = _OK


def _set_headers(message: Allowed | Denied, headers: _Headers) -> None:
    """Add each header, to be set in place of one that is there.

    Old releases of Envoy read only `append`, new ones may read only `append_action`,
    whose zero would append to the client's own value.
    """
    for name, value in headers.items():
        message.headers.add(
            header=Header(key=name, value=value),
            append=Bool(value=False),
            append_action=OVERWRITE_IF_EXISTS_OR_ADD,
            keep_empty_value=True,
        )


def _list_forged(headers: _Headers, sent: HeaderList) -> list[str]:
    """Return the headers of the client that must not reach the application (R11).

    These are the credential, which any holder can use elsewhere, and every name that a
    program may read as an identity header, with `_` in place of `-` as well.
    """
    forged = {
        name.decode()
        for name, _ in sent
        if name.replace(b"_", b"-").startswith(_IDENTITY_PREFIX)
    }
    return [_CREDENTIAL, *sorted(forged - headers.keys())]
