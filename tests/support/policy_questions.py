"""Policies are asked about one request, through `decide`."""

from __future__ import annotations

from typing import Any

from shared.feed import FeedEntry
from tests.support.tokens import AUDIENCE, ISSUER, good_claims, make_token, signing_key
from verifier.check.decision import Allowed, CheckPaths, Times, decide
from verifier.check.forward_auth import DIALECTS, PlainCheckRequest
from verifier.check.policy import (
    PolicyBook,
    TokenPolicy,
)
from verifier.check.trust import Trust, key_set
from verifier.policies.document import parse_policies

NOW = 1_795_000_000
BOOTTIME = 1_000.0
TOKEN = TokenPolicy.own(ISSUER, AUDIENCE)


def trusting(*entries: FeedEntry, fresh_for: float = 1) -> Trust:
    trust = Trust(ISSUER)
    trust.trust_keys(ISSUER, key_set([signing_key().jwk]), BOOTTIME + 1)
    trust.enforce(entries)
    trust.renew(BOOTTIME + fresh_for)
    return trust


def ask(
    policy: str,
    *,
    method: str = "GET",
    host: str | None = None,
    uri: str | None = "/",
    token: bytes | None = None,
    headers: tuple[tuple[bytes, bytes], ...] = (),
    trust: Trust | None = None,
    dialect: bytes = b"nginx",
    **claims: Any,
) -> tuple[str, dict[bytes, bytes]]:
    """Return the reason of a refusal, empty for an allow, and the answer's headers."""
    book = PolicyBook(parse_policies(f"[policies.a]\n{policy}", TOKEN))
    sent = [*headers]
    if token is None and claims:
        token = make_token(good_claims(NOW, **claims))
    if token is not None:
        sent.append((b"authorization", b"Bearer " + token))
    read = DIALECTS[dialect]
    target = b"/verify/" + dialect + b"/p/a"
    if read.uri_header:
        sent.append((read.method_header, method.encode()))
        if uri is not None:
            sent.append((read.uri_header, uri.encode()))
    else:
        target += (uri or "").encode()
    if host is not None:
        sent.append((read.host_header, host.encode()))
    request = PlainCheckRequest(method.encode(), target, sent, peer_is_trusted=True)
    outcome = decide(
        request,
        (trust or trusting()).snapshot,
        CheckPaths(book),
        Times(NOW, BOOTTIME),
    )
    if isinstance(outcome, Allowed):
        return "", dict(outcome.answer.headers)
    return outcome.reason.value, {}


def reason(policy: str, **options: Any) -> str:
    return ask(policy, **options)[0]


def decision(policy: str, **options: Any) -> bytes:
    """Return `X-Auth-Decision` of an allow, empty for a refusal."""
    return ask(policy, **options)[1].get(b"X-Auth-Decision", b"")


GOOD: dict[str, Any] = {"sub": "app"}
ANONYMOUS = b"allow-anonymous"
PUBLIC = """
[[policies.a.rules]]
path = "/assets/**"
public = true
[[policies.a.rules]]
path = "/**"
"""
#: The headers of a preflight.
CORS = ((b"origin", b"https://a.test"), (b"access-control-request-method", b"PUT"))
