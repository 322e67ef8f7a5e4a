"""One attempt to push a security event (RFC 8935), and the receiver's answer."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import httpx
import orjson

from issuer.exports.security_events import TYP
from issuer.settings.event_endpoints import EventEndpoint
from shared.claims import is_plain_text
from shared.outgoing.bodies import read_beginning
from shared.outgoing.connections import Connections, Request
from shared.outgoing.failures import (
    EXCERPT_READ,
    FAULTS_OF_URL,
    FailureKind,
    excerpt,
    shown_url,
)

#: Seconds an attempt may take, including the answer.
TIMEOUT: Final = 10.0
_REFUSALS: Final = frozenset({401, 403, 404, 405, 410})
_ERROR_CODE: Final = re.compile(r"[A-Za-z_]{1,64}")


class DeliveryAttempt(NamedTuple):
    """The outcome of an attempt.

    Attributes:
        is_taken: whether the receiver has accepted it.
        is_final: whether the receiver will never accept it.
        told: the recorded text of a failure.
        kind: of the failure; empty for an error of the receiver.
        setting: the setting with the fault; empty when it is elsewhere.
    """

    is_taken: bool = False
    is_final: bool = False
    told: str = ""
    kind: str = ""
    setting: str = ""


async def push(
    connections: Connections, endpoint: EventEndpoint, signed: str
) -> DeliveryAttempt:
    """Post one event and return the outcome (RFC 8935, section 2).

    202 accepts it. A 400 with an error object is final. Any other answer, including a
    redirect, is followed by another attempt.

    Raises:
        httpx.HTTPError: without an answer.
    """
    token = endpoint.token.get_secret_value()
    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": f"application/{TYP}",
        "Accept": "application/json",
    }
    timeout = httpx.Timeout(TIMEOUT)
    request = Request("POST", endpoint.url, headers, timeout, signed.encode())
    async with connections.stream(request) as answer:
        if answer.status_code == httpx.codes.ACCEPTED:
            return DeliveryAttempt(is_taken=True)
        body = await read_beginning(answer, EXCERPT_READ)
    if answer.status_code == httpx.codes.BAD_REQUEST and (said := _read_error(body)):
        return said
    return _refused(answer, excerpt(body, [token]))


def _refused(answer: httpx.Response, shown: str) -> DeliveryAttempt:
    status = answer.status_code
    if 300 <= status < 400:
        target = shown_url(answer.headers.get("location", ""))
        return failed(FailureKind.REDIRECT, f"status {status}: to {target}")
    told = f"status {status}: {shown}" if shown else f"status {status}"
    return failed(FailureKind.STATUS, told, status)


def failed(kind: FailureKind, told: str, status: int | None = None) -> DeliveryAttempt:
    """Return a failure that may be repeated."""
    if kind in {FailureKind.UNKNOWN_AUTHORITY, FailureKind.CERTIFICATE_REFUSED}:
        setting = "ISSUER_CA_FILE"
    elif kind in FAULTS_OF_URL or status in _REFUSALS:
        setting = "ISSUER_CAEP_ENDPOINTS"
    else:
        setting = ""
    return DeliveryAttempt(told=told, kind=kind.value, setting=setting)


def _read_error(body: bytes) -> DeliveryAttempt | None:
    """Return the final refusal in an answer; None if it has none.

    RFC 8935, section 2.3: `{"err": code, "description": text}`.
    """
    try:
        said = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    code = said.get("err") if isinstance(said, dict) else None
    if not isinstance(code, str) or not _ERROR_CODE.fullmatch(code):
        return None
    description = said.get("description")
    if isinstance(description, str) and is_plain_text(description):
        return DeliveryAttempt(is_final=True, told=f"{code}: {description}"[:256])
    return DeliveryAttempt(is_final=True, told=code)
