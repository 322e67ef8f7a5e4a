"""The checks that the gate repeats on every request, and the age of its view."""

from __future__ import annotations

from typing import Any

import pytest

from shared.feed import EntryKind
from tests.support.gate_counts import forget_counts
from tests.support.gatehouse_verifier import SimulatedVerifier, started, unstarted
from tests.support.tokens import signing_key
from verifier.check.answers import Answer

STRICT = """
[policies.strict]
required_scopes = ["admin"]
[policies.lax]
on_stale = "allow"
[policies.orders]
audience = "orders"
"""
RULES = """
[[policies.default.rules]]
path = "/public/**"
[[policies.default.rules]]
path = "/**"
required_scopes = ["admin"]
"""


def decision(answer: Answer) -> bytes:
    return dict(answer.headers).get(b"X-Auth-Decision", b"")


# --- checks on every hit -------------------------------------------------------------


async def hit(verifier: SimulatedVerifier, token: bytes, **options: Any) -> Answer:
    """Check a token that is in the cache already."""
    hits = sum(cache.counts.hits for cache in verifier.gate.caches.values())
    forget_counts(verifier.gate)
    answer = verifier.check(token, **options)
    assert sum(c.counts.hits for c in verifier.gate.caches.values()) == hits + 1
    return answer


async def test_cve_2021_32701_the_policy_is_evaluated_on_every_hit() -> None:
    """R26: Oathkeeper cached past the scope check."""
    verifier = await started(policies=STRICT)
    token = verifier.issuer.mint()
    assert verifier.check(token, target=b"/verify/nginx").status == 200
    answer = await hit(verifier, token, target=b"/verify/nginx/p/strict")
    assert answer.status == 403
    assert verifier.last_reason() == "scope_insufficient"


async def test_rules_are_evaluated_on_every_hit() -> None:
    """R26: path and method are the request's, not the token's."""
    verifier = await started(policies=RULES)
    token = verifier.issuer.mint()

    def asked(uri: bytes) -> dict[str, Any]:
        return {"headers": [(b"x-original-method", b"GET"), (b"x-original-uri", uri)]}

    assert verifier.check(token, **asked(b"/public/a")).status == 200
    assert (await hit(verifier, token, **asked(b"/admin"))).status == 403
    assert (await hit(verifier, token, **asked(b"/public/../admin"))).status == 401
    assert (await hit(verifier, token)).status == 401
    assert verifier.last_reason() == "forwarded_missing"


async def test_expiry_is_evaluated_on_every_hit() -> None:
    """R26."""
    verifier = await started()
    token = verifier.issuer.mint()
    assert verifier.check(token).status == 200
    verifier.clock.advance(604)
    await verifier.sync()
    assert (await hit(verifier, token)).status == 200
    verifier.clock.advance(1)
    assert (await hit(verifier, token)).status == 401
    assert verifier.last_reason() == "expired"


@pytest.mark.parametrize(
    ("kind", "key", "generation", "reason"),
    [
        (EntryKind.JTI, "jti-1", 0, "revoked_jti"),
        (EntryKind.SID, "sid-1", 0, "revoked_sid"),
        (EntryKind.USER, "app", 1, "revoked_user"),
        (EntryKind.CLIENT, "app", 1, "revoked_client"),
        (EntryKind.KID, signing_key().kid, 0, "revoked_kid"),
    ],
    ids=["jti", "sid", "user", "client", "kid"],
)
async def test_revocation_is_evaluated_on_every_hit(
    kind: EntryKind, key: str, generation: int, reason: str
) -> None:
    """R26, R24: logout is real, also for a token in the cache."""
    verifier = await started()
    token = verifier.issuer.mint(sub="app", client_id="app")
    assert verifier.check(token).status == 200
    verifier.issuer.revoke(EntryKind.JTI, "somebody-else's")
    await verifier.feed.step()
    assert (await hit(verifier, token)).status == 200
    verifier.issuer.revoke(kind, key, generation)
    await verifier.feed.step()
    for _ in range(2):
        assert (await hit(verifier, token)).status == 401
        assert verifier.last_reason() == reason


async def test_an_audience_has_facts_of_its_own() -> None:
    """R27: the fact's key holds the token policy."""
    verifier = await started(policies=STRICT)
    fits = {(b"", "api"), (b"/p/orders", "orders")}
    for audience in ("api", "orders"):
        token = verifier.issuer.mint(aud=audience)
        for policy in (b"/p/orders", b"") * 2:
            answer = verifier.check(token, target=b"/verify/nginx" + policy)
            assert (answer.status == 200) is ((policy, audience) in fits)


# --- too old -------------------------------------------------------------------------


async def test_nothing_passes_before_the_first_fetch() -> None:
    """R9: never a guess."""
    verifier = unstarted(policies=STRICT)
    token = verifier.issuer.mint()
    for target in (b"/verify/nginx", b"/verify/nginx/p/lax"):
        assert verifier.check(token, target=target).status == 503
        assert verifier.last_reason() == "no_keys"
    await verifier.keys.step()
    assert verifier.check(token).status == 503
    assert verifier.last_reason() == "stale"
    await verifier.feed.step()
    assert verifier.check(token).status == 200


async def test_a_stale_list_is_503_from_the_bound_on() -> None:
    verifier = await started(max_staleness=30)
    token = verifier.issuer.mint()
    verifier.clock.advance(29.999)
    assert verifier.check(token).status == 200
    verifier.clock.advance(0.001)
    forget_counts(verifier.gate)
    assert verifier.check(token).status == 503
    assert verifier.last_reason() == "stale"
    await verifier.feed.step()
    assert verifier.check(token).status == 200


async def test_a_stale_list_is_503_for_bad_tokens_as_well() -> None:
    """R38: a client does not discard its token because our keys are too old."""
    verifier = await started()
    verifier.clock.advance(30)
    for token in (None, b"junk", verifier.issuer.mint(exp=1)):
        assert verifier.check(token).status == 503


async def test_a_policy_may_allow_a_stale_list_and_marks_the_answer() -> None:
    verifier = await started(policies=STRICT)
    token = verifier.issuer.mint(exp=verifier.clock.now() + 3_000)
    lax = b"/verify/nginx/p/lax"
    assert decision(verifier.check(token, target=lax)) == b"allow"
    verifier.clock.advance(30)
    for _ in range(2):
        stale = verifier.check(token, target=lax)
        assert (stale.status, decision(stale)) == (200, b"allow-stale")
    assert verifier.check(token, target=b"/verify/nginx").status == 503
    await verifier.feed.step()
    assert decision(verifier.check(token, target=lax)) == b"allow"


async def test_entries_of_a_stale_list_still_count() -> None:
    verifier = await started(policies=STRICT)
    token = verifier.issuer.mint()
    verifier.issuer.revoke(EntryKind.SID, "sid-1")
    await verifier.feed.step()
    verifier.clock.advance(60)
    assert verifier.check(token, target=b"/verify/nginx/p/lax").status == 401
    assert verifier.last_reason() == "revoked_sid"


async def test_keys_too_old_are_503_under_every_policy() -> None:
    """R20: the last good set ends at its age limit (warehouse kept it for ever)."""
    verifier = await started(policies=STRICT, keys_max_age=100)
    token = verifier.issuer.mint()
    lax = b"/verify/nginx/p/lax"
    verifier.clock.advance(99.9)
    assert verifier.check(token, target=lax).status == 200
    verifier.clock.advance(0.1)
    forget_counts(verifier.gate)
    assert verifier.check(token, target=lax).status == 503
    assert verifier.last_reason() == "no_keys"
