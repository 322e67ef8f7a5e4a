"""Shadow mode refuses no good token, and changes nothing about a bad one (R65)."""

from __future__ import annotations

import itertools
import logging
from typing import Any

import pytest

from shared.feed import EntryKind, FeedEntry
from tests.support.gate_counts import counts_of
from tests.support.gatehouse_verifier import SimulatedVerifier, started
from tests.support.log_fields import fields_of
from tests.support.policy_questions import NOW, ask, decision, reason, trusting
from verifier.check.counts import ShadowCounts
from verifier.check.denials import DenyReason
from verifier.check.policy import Policy, TokenPolicy
from verifier.check.rules.rule import Rule

SHADOW = 'mode = "shadow"\n'
RULES = """
required_scopes = ["a"]
[[policies.a.rules]]
path = "/orders/**"
methods = ["GET"]
required_scopes = ["b"]
[[policies.a.rules]]
path = "/open"
public = true
[[policies.a.rules]]
path = "/maybe"
optional = true
"""


@pytest.mark.parametrize(
    ("policy", "asked"),
    [
        ('required_scopes = ["a"]', {"scope": "b"}),
        ('any_scopes = ["a"]', {"scope": "b"}),
        ('required_roles = ["a"]', {"roles": []}),
        ('client_ids = ["a"]', {"client_id": "b"}),
        ('claims = { tenant = "a" }', {"tenant": "b"}),
        ("max_age = 60", {"iat": NOW - 300}),
        ("max_auth_age = 60", {"auth_time": NOW - 300}),
        (RULES, {"uri": "/elsewhere", "scope": "a"}),
        (RULES, {"uri": "/orders/7", "scope": "a"}),
        (RULES, {"uri": "/orders/7", "scope": "a b", "method": "PUT"}),
        (RULES, {"uri": "/orders/../open", "scope": "a"}),
        (RULES, {"uri": None, "scope": "a"}),
    ],
)
def test_good_token_passes_whatever_the_policy_requires(
    policy: str, asked: dict[str, Any]
) -> None:
    assert reason(policy, **asked)
    assert decision(SHADOW + policy, **asked) == b"allow-shadow"


def test_what_the_policy_permits_passes_as_it_does_without_shadow_mode() -> None:
    for asked in (
        {"uri": "/orders/7", "scope": "a b"},
        {"uri": "/open"},
        {"uri": "/maybe"},
        {"uri": "/maybe", "scope": ""},
    ):
        assert ask(SHADOW + RULES, **asked) == ask(RULES, **asked)
        assert decision(RULES, **asked) in (b"allow", b"allow-anonymous")


SID = FeedEntry(1, EntryKind.SID, "sid-1", 0, NOW + 900)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, "credential_missing"),
        ({"headers": ((b"authorization", b"Basic YTpi"),)}, "credential_malformed"),
        ({"token": b"x"}, "token_malformed"),
        ({"exp": NOW - 60}, "expired"),
        ({"aud": "other"}, "audience_mismatch"),
        ({"sid": "sid-1", "trust": trusting(SID)}, "revoked_sid"),
        ({"scope": "a b", "trust": trusting(fresh_for=-1)}, "stale"),
    ],
)
@pytest.mark.parametrize("uri", ["/orders/7", "/elsewhere", "/maybe", "/a/../b"])
def test_bad_token_is_refused_as_always(
    asked: dict[str, Any], expected: str, uri: str
) -> None:
    """A logout that is `confirmed` holds in shadow mode too."""
    if uri == "/maybe" and expected == "credential_missing":
        expected = ""
    assert reason(SHADOW + RULES, uri=uri, **asked) == expected


def test_stale_list_is_named_before_shadow_mode() -> None:
    """The application has to see that a logout may not be in force."""
    policy = SHADOW + 'on_stale = "allow"\nrequired_scopes = ["a"]'
    found = decision(policy, scope="b", trust=trusting(fresh_for=-1))
    assert found == b"allow-stale"


# --- counted and logged ---------------------------------------------------------------

GATE = f"[policies.a]\n{SHADOW}{RULES}"


@pytest.fixture
async def verifier(caplog: pytest.LogCaptureFixture) -> SimulatedVerifier:
    verifier = await started(policies=GATE, refusal_log_rate=1)
    caplog.set_level(logging.INFO)
    caplog.clear()
    return verifier


def check(verifier: SimulatedVerifier, uri: bytes, **claims: Any) -> dict[bytes, bytes]:
    headers = [(b"x-original-method", b"GET"), (b"x-original-uri", uri)]
    token = verifier.issuer.mint(**claims)
    answer = verifier.check(token, target=b"/verify/nginx/p/a", headers=headers)
    assert answer.status == 200
    return dict(answer.headers)


async def test_each_rule_has_its_count(verifier: SimulatedVerifier) -> None:
    check(verifier, b"/orders/1", scope="a b")
    check(verifier, b"/orders/1", scope="a")
    check(verifier, b"/orders/1", scope="b")
    check(verifier, b"/elsewhere", scope="a")
    assert dict(verifier.gate.shadow_counts.by_key) == {
        ("a", 1, "scope_insufficient"): 2,
        ("a", 0, "rule_missing"): 1,
    }
    # They are allows: nothing was refused.
    assert counts_of(verifier.gate) == {"": 4}


async def test_each_has_a_line_at_a_rate_of_its_own(
    verifier: SimulatedVerifier, caplog: pytest.LogCaptureFixture
) -> None:
    found = check(verifier, b"/orders/1?secret=1", scope="a")
    (record,) = caplog.records
    assert record.getMessage() == "gate.shadow_refused"
    assert fields_of(record) == {
        "reason": "scope_insufficient",
        "decision_id": found[b"X-Auth-Decision-Id"].decode(),
        "policy": "a",
        "rule": 1,
        "dialect": "nginx",
        "issuer": "own",
        "kid": verifier.issuer.keys[0].kid,
    }
    for _ in range(10):
        check(verifier, b"/orders/1", scope="a")
    assert len(caplog.records) == 2
    assert verifier.gate.shadow_refusals.suppressed == 9
    # What is really refused still has its lines.
    assert verifier.check(None).status == 401
    assert caplog.records[-1].getMessage() == "gate.refused"
    verifier.clock.advance(1)
    verifier.gate.shadow_refusals.refill(verifier.clock.monotonic())
    check(verifier, b"/orders/1", scope="a")
    assert fields_of(caplog.records[-1])["suppressed"] == 9


def test_counts_are_bounded() -> None:
    """R47: each count is a time series for Prometheus."""
    policy = Policy("a", TokenPolicy.own("https://issuer.test", "api"))
    counts = ShadowCounts()
    reasons = itertools.cycle([DenyReason.RULE_MISSING, DenyReason.ROLE_MISSING])
    for number, word in zip(range(1, 301), reasons, strict=False):
        counts.add(policy, Rule(("**",), number=number), word)
    counts.add(policy, Rule(("**",), number=1), DenyReason.RULE_MISSING)
    assert len(counts.by_key) == 101
    assert counts.by_key["(other)", 0, ""] == 200
    assert counts.by_key["a", 1, "rule_missing"] == 2
