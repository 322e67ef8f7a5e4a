"""The encoded answers to the gateway (docs/design.md, "What a gateway sees").

An allow is exactly `200` with an empty body and every identity header once. nginx and
Caddy close the connection when there is a body, and Envoy accepts no status but 200.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from http import HTTPStatus
from types import MappingProxyType
from typing import Final

import orjson

from shared.identity_headers import encode_word, encode_words
from verifier.check.claims import Scalar
from verifier.check.denials import REFUSALS, DenyReason
from verifier.check.policy import ClaimHeader, Policy
from verifier.check.rules.rule import Rule
from verifier.check.verify import SignedClaims

#: The identity headers, in the order they are sent. Every allow has all of them (R10).
IDENTITY_HEADERS: Final = (
    b"X-Auth-Subject",
    b"X-Auth-User",
    b"X-Auth-Client",
    b"X-Auth-Scope",
    b"X-Auth-Roles",
    b"X-Auth-Session",
    b"X-Auth-Decision",
)
#: On every refusal, and on the allows of a policy with `decision_ids`.
DECISION_ID_HEADER: Final = b"X-Auth-Decision-Id"
_DECISION_ID: Final = DECISION_ID_HEADER + b": "
#: `Retry-After` in seconds when the gate cannot decide.
RETRY_AFTER: Final = 5

_ALLOW_HEAD: Final = b"\r\n".join(
    [
        b"HTTP/1.1 200 OK",
        b"Content-Length: 0",
        *[name + b": %b" for name in IDENTITY_HEADERS],
        b"\r\n",
    ]
)

Headers = tuple[tuple[bytes, bytes], ...]


class Answer:
    """One answer to the gateway.

    Attributes:
        status: 200, 401, 403 or 503; 404 when the target is not a check path.
        head: status line and headers as bytes, including the empty line.
        body: empty for every allow and in the nginx dialect.
    """

    __slots__ = ("body", "head", "status")

    def __init__(self, status: int, head: bytes, body: bytes = b"") -> None:
        self.status = status
        self.head = head
        self.body = body

    def __eq__(self, other: object) -> bool:
        """Return whether it is an answer of the same content."""
        return isinstance(other, Answer) and self._content() == other._content()

    def __hash__(self) -> int:
        """Return the hash of the content."""
        return hash(self._content())

    def _content(self) -> tuple[int, bytes, bytes]:
        return self.status, self.head, self.body

    @property
    def headers(self) -> Headers:
        """Names and values, ASCII, including `Content-Length`."""
        _, *lines = self.head.removesuffix(b"\r\n\r\n").split(b"\r\n")
        split = [line.partition(b": ") for line in lines]
        return tuple([(name, value) for name, _, value in split])


def _make_answer(status: int, headers: Headers, body: bytes = b"") -> Answer:
    phrase = HTTPStatus(status).phrase.encode("ascii")
    lines = [b"HTTP/1.1 %d %s\r\n" % (status, phrase)]
    lines += [b"%s: %s\r\n" % header for header in headers]
    return Answer(status, b"".join([*lines, b"\r\n"]), body)


def allow_answer(
    claims: SignedClaims, decision: bytes, headers: Sequence[ClaimHeader] = ()
) -> Answer:
    """Encode the answer that lets a request pass with a token (R9).

    It may be encoded in advance, but it must not be sent before the claims are verified
    and the policy permits the request: only `decide` releases it.

    Args:
        claims: the token's claims.
        decision: `allow`; `allow-stale` when the revocation list was too old and the
            policy accepts that; `allow-shadow` when the policy would have refused the
            request outside of shadow mode.
        headers: further identity headers, of a policy.
    """
    head = _ALLOW_HEAD % (
        encode_word(claims.sub),
        encode_word(claims.username),
        encode_word(claims.client_id),
        _encode_words(claims.scopes),
        _encode_words(claims.roles),
        encode_word(claims.sid),
        decision,
    )
    if headers:
        values = [_encode_values(claims.kept.get(path, ())) for _, path in headers]
        head = _add_headers(head, headers, values)
    return Answer(200, head)


def anonymous_answer(headers: Sequence[ClaimHeader] = ()) -> Answer:
    """Encode the answer that lets a request pass without a token (R61).

    Every identity header is there and empty, or the application would read one that
    the client wrote.
    """
    empty = [b""] * (len(IDENTITY_HEADERS) - 1)
    head = _ALLOW_HEAD % (*empty, b"allow-anonymous")
    return Answer(200, _add_headers(head, headers, [b""] * len(headers)))


def _add_headers(
    head: bytes, headers: Sequence[ClaimHeader], values: Sequence[bytes]
) -> bytes:
    pairs = zip(headers, values, strict=True)
    lines = [
        b"%b: %b\r\n" % (name.encode("ascii"), value) for (name, _), value in pairs
    ]
    return b"".join([head[:-2], *lines, b"\r\n"])


def _encode_values(values: Sequence[Scalar]) -> bytes:
    """Encode a claim as the identity headers are, true and false as in JSON."""
    return encode_words(
        [
            str(value).lower() if isinstance(value, bool) else str(value)
            for value in values
        ]
    )


@lru_cache(maxsize=1_024)
def _encode_words(words: tuple[str, ...]) -> bytes:
    """Encode a list once: many tokens have the same scopes and roles."""
    return encode_words(words)


def _refusal_answer(reason: DenyReason, *, with_body: bool) -> Answer:
    refusal = REFUSALS[reason]
    headers: list[tuple[bytes, bytes]] = [(b"Cache-Control", b"no-store")]
    if refusal.status == 503:
        headers.append((b"Retry-After", b"%d" % RETRY_AFTER))
    else:
        headers.append((b"WWW-Authenticate", _challenge(refusal.error).encode()))
    body = b""
    if with_body:
        headers.append((b"Content-Type", b"application/problem+json"))
        problem = {
            "type": "about:blank",
            "title": HTTPStatus(refusal.status).phrase,
            "status": refusal.status,
            "detail": refusal.description,
        }
        if refusal.error:
            problem["code"] = refusal.error
        body = orjson.dumps(problem)
    headers.append((b"Content-Length", b"%d" % len(body)))
    return _make_answer(refusal.status, tuple(headers), body)


def _challenge(error: str) -> str:
    """RFC 6750, section 3: without a credential the challenge names no error."""
    challenge = 'Bearer realm="gatehouse"'
    if not error:
        return challenge
    descriptions = {r.error: r.description for r in REFUSALS.values()}
    return f'{challenge}, error="{error}", error_description="{descriptions[error]}"'


#: Refusals with a problem document, for gateways that pass the body on.
REFUSALS_WITH_BODY: Final[Mapping[DenyReason, Answer]] = MappingProxyType(
    {reason: _refusal_answer(reason, with_body=True) for reason in DenyReason}
)
#: Refusals without a body: nginx drops a body and then closes the connection.
REFUSALS_WITHOUT_BODY: Final[Mapping[DenyReason, Answer]] = MappingProxyType(
    {reason: _refusal_answer(reason, with_body=False) for reason in DenyReason}
)

_DECISION_START: Final = b"\r\nX-Auth-Decision: "


def decision_of(allow: Answer) -> str:
    """Return the `X-Auth-Decision` of an allow."""
    _, _, rest = allow.head.partition(_DECISION_START)
    return rest[: rest.index(b"\r\n")].decode("ascii")


_CHALLENGE_START: Final = b"\r\nWWW-Authenticate: "


def add_decision_id(answer: Answer, decision_id: bytes) -> Answer:
    """Return the answer with the id of its decision, by which operators find it."""
    head = b"".join((answer.head[:-2], _DECISION_ID, decision_id, b"\r\n\r\n"))
    return Answer(answer.status, head, answer.body)


def add_challenge(answer: Answer, parameters: bytes) -> Answer:
    """Return a 401 or 403 with further parameters at the end of its challenge."""
    before, start, rest = answer.head.partition(_CHALLENGE_START)
    challenge, end, after = rest.partition(b"\r\n")
    head = b"".join((before, start, challenge, parameters, end, after))
    return Answer(answer.status, head, answer.body)


def challenge_parameters(
    reason: DenyReason, policy: Policy, rule: Rule | None
) -> bytes:
    """Return what the challenge of one policy says besides that of every policy.

    Args:
        reason: why the request is refused.
        policy: the policy that refuses it.
        rule: the rule that matches the request; None when there is none.

    Returns:
        Parameters, each after a comma: `max_age` for a login that is too old (RFC 9470,
        section 3); `resource_metadata` (RFC 9728, section 5.1) and `scope` (RFC 6750,
        section 3) where the policy has resource metadata. Empty for none.
    """
    if REFUSALS[reason].status == 503:
        return b""
    # An optional rule asks nothing of a token: see `Policy.permit`.
    asked = [] if rule is not None and rule.is_optional else [policy.requirements]
    if asked and rule is not None:
        asked.append(rule.requirements)
    parameters: list[str] = []
    ages = [one.max_auth_age for one in asked if one.max_auth_age]
    if ages and reason is DenyReason.AUTHENTICATION_TOO_OLD:
        parameters.append(f'max_age="{min(ages)}"')
    if policy.resource_metadata is not None:
        parameters.append(f'resource_metadata="{policy.resource_metadata.url}"')
        scopes = {s for one in asked for s in one.required_scopes | one.any_scopes}
        if scopes:
            parameters.append(f'scope="{" ".join(sorted(scopes))}"')
    return "".join([f", {parameter}" for parameter in parameters]).encode("ascii")


#: With these the public port gives out documents.
READ_METHODS: Final = frozenset({b"GET", b"HEAD", b"OPTIONS"})


def document_answer(document: bytes) -> Answer:
    """Encode a resource metadata document (RFC 9728, section 3.2).

    Any site may read it: clients in a browser fetch it from another origin, and some
    send a header of their own, so a preflight gets the same answer (Fetch, section
    3.2.3).
    """
    headers = (
        (b"Access-Control-Allow-Headers", b"*"),
        (b"Access-Control-Allow-Origin", b"*"),
        (b"Cache-Control", b"max-age=300"),
        (b"Content-Type", b"application/json"),
        (b"Content-Length", b"%d" % len(document)),
    )
    return _make_answer(200, headers, document)


_NOT_FOUND_BODY: Final = b'{"type":"about:blank","title":"Not Found","status":404}'
#: For every target that is not a check path.
NOT_FOUND: Final = _make_answer(
    404,
    (
        (b"Content-Type", b"application/problem+json"),
        (b"Content-Length", b"%d" % len(_NOT_FOUND_BODY)),
    ),
    _NOT_FOUND_BODY,
)
