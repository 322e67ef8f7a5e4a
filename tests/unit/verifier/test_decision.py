"""`decide`: the whole decision, one refusal after the other, and what an outcome
holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from shared.feed import EntryKind, FeedEntry
from tests.support.gatehouse_verifier import broken_key_set
from tests.support.tokens import AUDIENCE, ISSUER, good_claims, make_token, signing_key
from verifier.check.decision import Allowed, CheckPaths, Refused, Times, decide
from verifier.check.forward_auth import PlainCheckRequest
from verifier.check.policy import PolicyBook, TokenPolicy
from verifier.check.trust import KeySet, Trust, key_set
from verifier.policies.document import parse_policies

NOW = 1_795_000_000
#: Boot-time seconds.
BOOTTIME = 1_000.0
POLICIES = """
[policies.strict]
required_scopes = ["admin"]
required_roles = ["chief"]
[policies.lax]
on_stale = "allow"
[policies.paths]
[[policies.paths.rules]]
path = "/public"
methods = ["GET"]
"""
BOOK = PolicyBook(parse_policies(POLICIES, TokenPolicy.own(ISSUER, AUDIENCE)))
PATHS = CheckPaths(BOOK)
GOOD = make_token(good_claims(NOW))
NGINX = b"/verify/nginx"


def trusting(
    *,
    entries: tuple[FeedEntry, ...] = (),
    fresh_until: float = BOOTTIME + 1,
    keys_until: float = BOOTTIME + 1,
    keys: KeySet | None = None,
    has_list: bool = True,
) -> Trust:
    trust = Trust(ISSUER)
    trust.trust_keys(ISSUER, keys or key_set([signing_key().jwk]), keys_until)
    trust.enforce(entries)
    if has_list:
        trust.renew(fresh_until)
    return trust


def outcome(
    token: bytes | None = GOOD,
    *,
    target: bytes = NGINX,
    headers: Mapping[bytes, bytes] | None = None,
    peer_is_trusted: bool = True,
    trust: Trust | None = None,
    now: int = NOW,
    paths: CheckPaths = PATHS,
) -> Allowed | Refused:
    sent = list((headers or {}).items())
    if token is not None:
        sent.append((b"authorization", b"Bearer " + token))
    request = PlainCheckRequest(b"GET", target, sent, peer_is_trusted)
    times = Times(now, BOOTTIME)
    return decide(request, (trust or trusting()).snapshot, paths, times)


def refused(*args: Any, **options: Any) -> Refused:
    found = outcome(*args, **options)
    assert isinstance(found, Refused)
    return found


def reason(*args: Any, **options: Any) -> str:
    return refused(*args, **options).reason.value


@pytest.mark.parametrize("byte", [b"\0", b"\n", b"\r", b"\x1b", b"\x7f", b"!", b"="])
@pytest.mark.parametrize("at", [0, 1, 40, len(GOOD) // 2, len(GOOD) - 40, len(GOOD)])
def test_a_byte_that_is_in_no_token_is_refused_anywhere(byte: bytes, at: int) -> None:
    """R13, R24: no server of HTTP lets the control characters pass, and we do not."""
    found = refused(GOOD[:at] + byte + GOOD[at:])
    assert found.reason.value in {"token_malformed", "signature_invalid"}


def decision_of(allowed: Allowed | Refused) -> bytes:
    assert isinstance(allowed, Allowed)
    return dict(allowed.answer.headers)[b"X-Auth-Decision"]


def test_allow_holds_the_verified_claims_and_the_answer() -> None:
    allowed = outcome()
    assert isinstance(allowed, Allowed)
    assert allowed.claims.jti == "jti-1"
    assert allowed.answer.status == 200
    assert decision_of(allowed) == b"allow"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # The order is part of the contract: a path without a policy is refused first,
        # and of a stranger's request nothing more is read (R1).
        ({"target": b"/verify/x", "peer_is_trusted": False}, "route_unknown"),
        ({"target": NGINX + b"/p/none", "peer_is_trusted": False}, "policy_unknown"),
        ({"token": None, "peer_is_trusted": False}, "peer_untrusted"),
        ({"trust": Trust(ISSUER), "peer_is_trusted": False}, "peer_untrusted"),
        ({"token": None, "trust": trusting(keys_until=BOOTTIME)}, "no_keys"),
        ({"token": None, "trust": trusting(fresh_until=BOOTTIME)}, "stale"),
        ({"token": None, "trust": Trust(ISSUER)}, "no_keys"),
        ({"token": None, "target": NGINX + b"/p/strict"}, "credential_missing"),
        ({"token": b"x", "target": NGINX + b"/p/strict"}, "token_malformed"),
        ({"now": NOW + 605, "target": NGINX + b"/p/strict"}, "expired"),
        ({"now": NOW + 604, "target": NGINX + b"/p/strict"}, "scope_insufficient"),
        ({"now": NOW - 6}, "not_yet_valid"),
        ({"target": NGINX + b"/p/paths"}, "forwarded_missing"),
        ({"target": b"/verify/envoy/x"}, "policy_unnamed"),
    ],
)
def test_the_first_check_that_fails_is_the_reason(
    options: dict[str, Any], expected: str
) -> None:
    assert reason(**options) == expected


@pytest.mark.parametrize(
    ("kind", "key", "expected"),
    [
        (EntryKind.JTI, "jti-1", "revoked_jti"),
        (EntryKind.SID, "sid-1", "revoked_sid"),
        (EntryKind.USER, "app", "revoked_user"),
        (EntryKind.CLIENT, "app", "revoked_client"),
        (EntryKind.KID, signing_key().kid, "revoked_kid"),
    ],
    ids=["jti", "sid", "user", "client", "kid"],
)
@pytest.mark.parametrize("policy", ["strict", "lax"])
def test_a_revoked_token_is_refused_before_the_policy_decides(
    kind: EntryKind, key: str, expected: str, policy: str
) -> None:
    """R26: also by a policy that accepts a stale list."""
    token = make_token(good_claims(NOW, sub="app", client_id="app"))
    trust = trusting(
        entries=(FeedEntry(1, kind, key, 1, NOW + 600),),
        fresh_until=BOOTTIME if policy == "lax" else BOOTTIME + 1,
    )
    target = NGINX + b"/p/" + policy.encode()
    found = refused(token, target=target, trust=trust)
    assert found.reason.value == expected
    assert found.claims is None


def test_a_stale_list_is_accepted_only_by_policies_that_allow_it() -> None:
    stale = trusting(fresh_until=BOOTTIME)
    lax = NGINX + b"/p/lax"
    assert decision_of(outcome(target=lax, trust=stale)) == b"allow-stale"
    assert decision_of(outcome(target=lax)) == b"allow"
    assert reason(trust=stale) == "stale"
    # Without any list there is nothing to be stale.
    assert reason(target=lax, trust=trusting(has_list=False)) == "stale"
    # Keys have no such exception.
    assert reason(target=lax, trust=trusting(keys_until=BOOTTIME)) == "no_keys"


def test_claims_are_in_a_refusal_only_when_all_seven_checks_passed() -> None:
    """Trap 6 of the style guide (Oathkeeper attached unverified claims)."""
    by_policy = refused(target=NGINX + b"/p/strict")
    assert by_policy.claims is not None
    assert by_policy.claims.sub.startswith("5f9c1e1e")
    for found in (
        refused(now=NOW + 605),
        refused(GOOD[:-9] + b"A" * 9),
        refused(make_token(good_claims(NOW, aud="other"))),
        refused(trust=trusting(keys=broken_key_set(KeyError("x")))),
    ):
        assert found.claims is None


def test_a_refusal_names_the_route_and_the_policy_that_were_resolved() -> None:
    """The answer's form and the log line depend on them."""
    found = refused(None, target=b"/verify/caddy/p/strict")
    assert found.route is not None
    assert (found.route.dialect.name, found.policy) == (
        "caddy",
        BOOK.policies["strict"],
    )
    unknown = refused(target=b"/verify/caddy/p/none")
    assert unknown.route is not None
    assert (unknown.route.dialect.name, unknown.policy) == ("caddy", None)
    nothing = refused(target=b"/verify/none")
    assert (nothing.route, nothing.policy) == (None, None)


def test_a_fault_of_ours_is_a_refusal_that_holds_the_error() -> None:
    """R25 (CVE-2021-32637): never an allow, never an exception."""
    error = RecursionError("t.o.k")
    found = refused(trust=trusting(keys=broken_key_set(error)))
    assert found.reason.value == "internal_error"
    assert found.error is error
    assert found.route is not None
    assert refused(None).error is None


def test_a_kept_check_path_decides_as_one_that_is_resolved() -> None:
    for target in (NGINX, b"/verify/envoy/p/strict", b"/verify/caddy/p/strict"):
        paths = CheckPaths(BOOK)
        first = outcome(target=target, paths=paths)
        assert target in paths.by_target
        second = outcome(target=target, paths=paths)
        assert type(first) is type(second)
        if isinstance(first, Refused) and isinstance(second, Refused):
            assert first.reason is second.reason


@pytest.mark.parametrize(
    "target",
    [
        b"/verify/nginx?a=b",
        b"/verify/envoy/p/strict/a/path",
        b"/verify/envoy/p/strict/",
        b"/verify/envoy/p/strict?a",
        b"/verify/nginx/p/missing",
        b"/verify/nothing",
    ],
)
def test_check_paths_that_a_client_chooses_are_not_kept(target: bytes) -> None:
    paths = CheckPaths(BOOK)
    outcome(target=target, paths=paths)
    assert not paths.by_target


def test_an_appended_path_is_used_for_rules_and_names_no_policy() -> None:
    """Decision 0002."""
    paths = b"/verify/envoy/p/paths"
    assert isinstance(outcome(target=paths + b"/public"), Allowed)
    assert reason(target=paths + b"/p/lax") == "rule_missing"


def test_one_snapshot_and_one_time_decide_the_same_every_time() -> None:
    """It is pure: a second decision does not depend on the first."""
    trust = trusting(entries=(FeedEntry(1, EntryKind.SID, "other", 0, NOW + 600),))
    for _ in range(3):
        assert isinstance(outcome(trust=trust), Allowed)
        assert reason(trust=trust, now=NOW + 605) == "expired"
