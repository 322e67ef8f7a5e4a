"""Writes the gate's answers as Envoy's CheckResponse.

An empty CheckResponse lets a request pass, and so does one whose status is 0 whatever
else it says. So each one begins as a refusal, and only an allow of the gate, with every
identity header, makes it one that lets the request pass.
"""

from __future__ import annotations

import re
from functools import lru_cache
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
#: Names are in lower case.
_IDENTITY_FORM: Final = re.compile(rb"x[^a-z0-9]auth(?:[^a-z0-9]|\Z)")
_CREDENTIAL: Final = "authorization"

#: Encoded allows that are kept, and the longest head of one: about 10 MB in all.
_KEPT: Final = 1_024
_KEPT_BYTES: Final = 4_096
#: The headers of an answer, names in lower case; no name is in an answer twice.
_Headers = dict[str, str]


def encode_answer(answer: Answer, sent: HeaderList = ()) -> bytes:
    """Return the CheckResponse of an answer of the gate.

    Args:
        answer: what the gate says.
        sent: the client's headers, names in lower case.
    """
    forged = _list_forged(sent)
    is_usual = answer.status == 200 and not forged and len(answer.head) <= _KEPT_BYTES
    return _encode_usual(answer) if is_usual else _encode(answer, forged)


@lru_cache(maxsize=_KEPT)
def _encode_usual(answer: Answer) -> bytes:
    """Encode an allow once: a token has the same one as long as it is kept.

    Measured: without this a check takes 31 us beside those of grpcio, with it 11.
    """
    return _encode(answer, frozenset())


def _encode(answer: Answer, forged: frozenset[str]) -> bytes:
    response = _refusal()
    headers = {name.decode().lower(): value.decode() for name, value in answer.headers}
    # gRPC has its own.
    headers.pop("content-length", None)
    if answer.status in _CODES:
        _describe_refusal(response, answer, headers)
    elif answer.status == 200 and headers.keys() >= _IDENTITY:
        # A document has the status 200, too, and no identity.
        _let_pass(response, headers, forged)
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


def _let_pass(
    response: CheckResponse, headers: _Headers, forged: frozenset[str]
) -> None:
    """Turn a refusal into a response that lets the request pass, with identity.

    The credential is removed, because any holder can use it elsewhere.
    """
    allowed = Allowed()
    _set_headers(allowed, headers)
    removed = [_CREDENTIAL, *sorted(forged - headers.keys())]
    allowed.headers_to_remove.extend(removed)
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


def _list_forged(sent: HeaderList) -> frozenset[str]:
    """Return the client's headers that a program may read as identity headers (R11).

    To WSGI, CGI and PHP `_` is as good as `-`, to some servers every other character.
    """
    return frozenset(name.decode() for name, _ in sent if _IDENTITY_FORM.match(name))
