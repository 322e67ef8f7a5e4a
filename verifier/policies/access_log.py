"""Reads access logs of gateways: what each request was, and what the gate answered.

A line is one JSON object with the members that docs/policies.md gives for nginx and
Envoy; others are ignored. The client wrote method, host and path, so a line may hold
anything: it is read strictly, or it is not used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import IO, Any, Final, NamedTuple
from urllib.parse import unquote

from shared.jose.strict_json import StrictJsonError, read_object

#: Bytes of a line. nginx takes 8 kB of a request line by default, and writes at most
#: six bytes for one.
MAX_LINE: Final = 131_072
#: `X-Auth-Decision` of an allow without a token.
ANONYMOUS: Final = "allow-anonymous"
_ANSWERS: Final = frozenset({200, 401, 403, 503})
# nginx joins the answers of several attempts: `502, 200`.
_LAST_STATUS: Final = re.compile(r"(?:.*[^0-9])?([0-9]{3})", re.ASCII)
#: What Envoy's response code details begin with when the request was passed on, so that
#: the gate has allowed it.
_PASSED_ON: Final = (
    "via_upstream",
    "upstream_",
    "response_timeout",
    "no_healthy_upstream",
)
_DENIED: Final = "ext_authz_denied"
_NO_ANSWER: Final = "ext_authz_error"


class LogLineError(ValueError):
    """A line cannot be used; the message has the reason, and nothing of the line."""


class Identity(NamedTuple):
    """What an allow says about the caller.

    Attributes:
        scopes, roles: all that the token had.
        client_id: of the token.
    """

    scopes: frozenset[str]
    roles: frozenset[str]
    client_id: str


class LoggedRequest(NamedTuple):
    """One request, as far as a log has it.

    Attributes:
        policy: of the check path.
        method, host: of the client's request.
        path: raw, without a query.
        status: the gate's answer: 200, 401, 403 or 503.
        decision: `X-Auth-Decision` of an allow; empty for a refusal.
        identity: of an allow with a token; None otherwise.
        has_credential: whether the client sent a credential; None when the log does not
            say.
    """

    policy: str
    method: str
    host: str
    path: str
    status: int
    decision: str = ""
    identity: Identity | None = None
    has_credential: bool | None = None


def read_lines(log: IO[bytes]) -> Iterator[bytes | None]:
    """Yield the lines of a log without their ends; None for one over `MAX_LINE`."""
    while line := log.readline(MAX_LINE + 1):
        if len(line) <= MAX_LINE or line.endswith(b"\n"):
            yield line.rstrip(b"\r\n")
            continue
        while line and not line.endswith(b"\n"):
            line = log.readline(MAX_LINE)
        yield None


def read_request(line: bytes | None, policy: str = "") -> LoggedRequest | None:
    """Return the request of a line; None when the gate did not answer about it.

    Args:
        line: as `read_lines` yields it.
        policy: for a line that names none.

    Raises:
        LogLineError: with the member that is missing or wrong.
    """
    if line is None:
        raise LogLineError(f"is longer than {MAX_LINE} bytes")
    try:
        members = read_object(line)
    except StrictJsonError:
        raise LogLineError("is no JSON object, or names a member twice") from None
    status, decision = _read_answer(members)
    if status not in _ANSWERS:
        return None
    name = _read_text(members, "policy") or policy
    if not name:
        raise LogLineError("policy: is missing; name it with --policy")
    if status == 200 and not decision:
        raise LogLineError("decision: is missing beside an allow")
    has_token = status == 200 and decision != ANONYMOUS
    return LoggedRequest(
        policy=name,
        method=_read_text(members, "method", is_needed=True),
        host=_read_text(members, "host"),
        path=_read_text(members, "uri", is_needed=True).partition("?")[0],
        status=status,
        decision=decision if status == 200 else "",
        identity=_read_identity(members) if has_token else None,
        has_credential=_read_flag(members, "credential"),
    )


def _read_answer(members: Mapping[str, Any]) -> tuple[int, str]:
    """Return the gate's status, 0 for none, and the decision."""
    decision = _read_text(members, "decision")
    if "gate" in members:
        # nginx: the status of the check. It is empty when none was made.
        found = _LAST_STATUS.fullmatch(_read_text(members, "gate"))
        return (int(found[1]) if found else 0), decision
    if "status" not in members or "details" not in members:
        raise LogLineError("gate: is missing, or for Envoy status and details")
    # Envoy: the status of the whole answer, and which part of Envoy gave it. A request
    # that was refused before the gate may have a decision that the client wrote.
    details = _read_text(members, "details")
    if details.startswith(_DENIED):
        found = _LAST_STATUS.fullmatch(_read_text(members, "status"))
        return (int(found[1]) if found else 0), ""
    if details.startswith(_NO_ANSWER):
        return 503, ""
    return (200 if details.startswith(_PASSED_ON) and decision else 0), decision


def _read_identity(members: Mapping[str, Any]) -> Identity:
    for name in ("client", "scope", "roles"):
        if name not in members:
            raise LogLineError(f"{name}: is missing beside an allow")
    client_id, *_ = _read_words(members, "client") or [""]
    return Identity(
        frozenset(_read_words(members, "scope")),
        frozenset(_read_words(members, "roles")),
        client_id,
    )


def _read_words(members: Mapping[str, Any], name: str) -> list[str]:
    """Return the words of an identity header (`encode_words`)."""
    try:
        words = _read_text(members, name).split(" ")
        return [unquote(word, errors="strict") for word in words if word]
    except UnicodeDecodeError:
        raise LogLineError(f"{name}: is not UTF-8") from None


def _read_flag(members: Mapping[str, Any], name: str) -> bool | None:
    text = _read_text(members, name)
    if text not in ("", "0", "1"):
        raise LogLineError(f'{name}: must be "0" or "1"')
    return text == "1" if text else None


def _read_text(
    members: Mapping[str, Any], name: str, *, is_needed: bool = False
) -> str:
    """Return a member as text; empty when it is missing or null (Envoy)."""
    value = members.get(name)
    if type(value) is int:
        return str(value)
    if value is not None and not isinstance(value, str):
        raise LogLineError(f"{name}: must be text")
    # nginx and Envoy write `-` for a value that is not there.
    text = "" if value is None or value == "-" else str(value)
    if is_needed and not text:
        raise LogLineError(f"{name}: is missing")
    return text
