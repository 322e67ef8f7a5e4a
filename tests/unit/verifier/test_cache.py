"""The cache of facts: bounded, and bound to token and key set (R26, R27)."""

from __future__ import annotations

import tracemalloc

import pytest

from shared.claims import REQUIRED_CLAIMS
from shared.feed import EntryKind, FeedEntry
from tests.support.tokens import good_claims
from verifier.check.cache import ENTRY_OVERHEAD, FactCache
from verifier.check.claims import claims_of
from verifier.check.decision import Fact
from verifier.check.denials import Denied, DenyReason
from verifier.check.revocations import RevocationIndex
from verifier.check.trust import IssuerTrust, KeySet, TrustSnapshot
from verifier.check.verify import SignedClaims, SignedToken, verify_signed

ISSUER = good_claims(0)["iss"]


def under(version: str, revision: int) -> TrustSnapshot:
    """Return a trust whose issuer has keys of that version."""
    own = IssuerTrust(KeySet(version=version))
    return TrustSnapshot(own, {ISSUER: own}, revision)


V1, V2 = under("version-1", 1), under("version-2", 2)


def signed(name: str = "a") -> SignedToken:
    claims = claims_of(good_claims(0, sub=name), REQUIRED_CLAIMS)
    return SignedToken(SignedClaims(claims), "kid", "version-1")


def fact(name: str = "a") -> Fact:
    return Fact(signed(name))


def filled(names: list[str], *, entries: int, size: int = 1 << 30) -> FactCache:
    cache = FactCache(max_entries=entries, max_bytes=size)
    for name in names:
        token = name.encode()
        if cache.find(token, V1) is None:
            cache.keep(token, fact(name))
    return cache


def test_kept_fact_is_found_again() -> None:
    cache = filled(["a"], entries=10)
    found = cache.find(b"a", V1)
    assert found is not None
    assert found.token.claims.sub == "a"
    assert cache.find(b"b", V1) is None
    assert (cache.counts.hits, cache.counts.misses) == (1, 2)


def test_the_whole_token_is_the_key() -> None:
    """R24: never a prefix, a digest or a re-encoding."""
    cache = filled(["token"], entries=10)
    for other in (b"toke", b"token ", b"Token", b"token="):
        assert cache.find(other, V1) is None


#: As long as a token; its middle is the part by which a value is found.
LONG = b"Bearer " + b"h" * 40 + b"." + b"p" * 40 + b"." + b"s" * 86


@pytest.mark.parametrize("at", range(len(LONG)))
def test_values_that_differ_in_one_byte_share_no_fact(at: int) -> None:
    """R24: also where the byte is not in the part by which a value is found."""
    cache, other = filled([LONG.decode()], entries=10), bytearray(LONG)
    other[at] ^= 1
    assert cache.find(bytes(other), V1) is None
    assert cache.find(LONG, V1) is not None
    cache.keep_bad_signature(LONG, V1.keys_revision)
    assert cache.find(bytes(other), V1) is None


def test_values_found_by_the_same_part_displace_each_other() -> None:
    one, other = LONG, b"Bearer x" + LONG[8:]
    cache = filled([one.decode(), other.decode()], entries=10)
    assert (len(cache), cache.counts.evictions) == (1, 1)
    assert cache.size_bytes == filled([other.decode()], entries=10).size_bytes
    assert cache.find(one, V1) is None
    assert cache.find(other, V1) is not None
    for token in (one, other):
        cache.keep_bad_signature(token, V1.keys_revision)
    assert cache.find(one, V1) is None


def test_values_of_one_part_in_both_generations_stay_apart() -> None:
    one, other = LONG, b"Bearer x" + LONG[8:]
    cache = filled([one.decode(), "b", other.decode()], entries=4)
    cache.keep(b"c", fact("c"))
    cache.keep(one, fact())
    assert cache.find(other, V1) is not None
    assert cache.find(one, V1) is None


def test_no_fact_is_used_under_another_key_set() -> None:
    """R27: it is dropped when it is looked for, in both generations."""
    cache = filled(["a", "b", "c"], entries=4)
    for name in (b"a", b"b", b"c"):
        assert cache.find(name, V2) is None
    assert (len(cache), cache.size_bytes) == (0, 0)
    assert cache.counts.hits == 0


def test_keys_of_one_issuer_change_nothing_for_the_tokens_of_another() -> None:
    """R67: one issuer's trouble is its own."""
    cache = filled(["a"], entries=4)
    own = V1.own
    other = IssuerTrust(KeySet(version="other"))
    both = TrustSnapshot(own, {ISSUER: own, "https://other.test": other}, 7)
    assert cache.find(b"a", both) is not None


def test_no_fact_is_used_of_an_issuer_that_is_not_trusted_any_more() -> None:
    cache = filled(["a"], entries=4)
    own = IssuerTrust(KeySet(version="version-1"))
    assert cache.find(b"a", TrustSnapshot(own, {"https://other.test": own})) is None


@pytest.mark.parametrize("entries", [2, 3, 10, 101])
def test_entries_are_bounded(entries: int) -> None:
    cache = FactCache(max_entries=entries, max_bytes=1 << 30)
    for n in range(300):
        cache.find(b"%d" % n, V1)
        cache.keep(b"%d" % n, fact())
        assert len(cache) <= entries
    assert cache.counts.evictions >= 300 - entries


def test_bytes_are_bounded() -> None:
    budget = 20 * (ENTRY_OVERHEAD + 2_000)
    cache = FactCache(max_entries=1_000_000, max_bytes=budget)
    for n in range(300):
        token = b"%04d" % n + b"t" * (n % 8) * 1_000
        cache.find(token, V1)
        cache.keep(token, fact())
        assert cache.size_bytes <= budget
    assert len(cache) >= 5


def test_bytes_are_counted_exactly() -> None:
    cache = filled(["a", "bb", "a", "ccc", "a", "bb"], entries=4)
    kept = sum(len(name) + fact(name).kept_bytes for name in ("a", "bb", "ccc"))
    assert cache.size_bytes == len(cache) * ENTRY_OVERHEAD + kept


@pytest.mark.parametrize("claim", ["roles", "scope", "aud"])
def test_the_estimate_is_near_what_is_kept(claim: str) -> None:
    """The tokens of other issuers may have hundreds of groups."""
    tracemalloc.start()
    try:
        cache = FactCache(max_entries=1_000, max_bytes=1 << 30)
        for n in range(100):
            words = [f"{n}-{word}" for word in range(900)]
            value = " ".join(words) if claim == "scope" else words
            claims = claims_of(good_claims(0, **{claim: value}), REQUIRED_CLAIMS)
            token = SignedToken(SignedClaims(claims), "kid", "version-1")
            cache.keep(b"%d" % n, Fact(token))
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used < cache.size_bytes * 1.5


def test_used_facts_stay_and_unused_facts_are_dropped() -> None:
    cache = filled(["used"], entries=10)
    for n in range(100):
        cache.find(b"%d" % n, V1)
        cache.keep(b"%d" % n, fact())
        assert cache.find(b"used", V1) is not None
    assert cache.find(b"0", V1) is None


def revoke(key: str) -> FeedEntry:
    return FeedEntry(1, EntryKind.JTI, key, 0, 600)


def test_next_index_may_revoke_a_token_that_the_last_one_did_not() -> None:
    """R26."""
    token = signed()
    before = RevocationIndex().apply([revoke("another")])
    for _ in range(2):
        verify_signed(token, before, 0, 0)
    after = before.apply([revoke(token.claims.jti)])
    for index in (after, after, after.pruned(0)):
        with pytest.raises(Denied):
            verify_signed(token, index, 0, 0)


def test_an_index_is_consulted_about_a_fact_once() -> None:
    """Decision 0008: an index that did not revoke it is not consulted again."""
    token = signed()
    jti = token.claims.jti
    index = RevocationIndex().apply([revoke("another"), revoke(jti)])
    token.unrevoked_in = index.revision
    for same in (index, index.pruned(2_000)):
        verify_signed(token, same, 0, 0)
    with pytest.raises(Denied):
        verify_signed(token, index.apply([revoke("another")]), 0, 0)


def test_a_bad_signature_is_remembered_and_refused() -> None:
    cache = filled([], entries=10)
    assert cache.find(b"bad", V1) is None
    cache.keep_bad_signature(b"bad", V1.keys_revision)
    with pytest.raises(Denied) as caught:
        cache.find(b"bad", V1)
    assert caught.value.reason is DenyReason.SIGNATURE_INVALID
    assert cache.find(b"good", V1) is None


def test_a_bad_signature_is_forgotten_with_its_key_set() -> None:
    """R27: under another key of that name it may be good."""
    cache = filled([], entries=10)
    cache.find(b"bad", V1)
    cache.keep_bad_signature(b"bad", V1.keys_revision)
    assert cache.find(b"bad", V2) is None


def test_bad_signatures_are_bounded_and_push_out_no_facts() -> None:
    cache = filled(["good"], entries=10)
    for n in range(5_000):
        cache.keep_bad_signature(b"%d" % n, V1.keys_revision)
    remembered = 0
    for n in range(5_000):
        try:
            cache.find(b"%d" % n, V1)
        except Denied:
            remembered += 1
    assert remembered == 1_024
    assert cache.find(b"good", V1) is not None


def test_a_bad_signature_seen_again_displaces_no_other() -> None:
    """Under new keys it is kept anew, and is the newest then."""
    cache = filled([], entries=10)
    for n in range(1_024):
        cache.keep_bad_signature(b"%d" % n, V1.keys_revision)
    cache.keep_bad_signature(b"1", V1.keys_revision)
    for kept in (b"0", b"1", b"2"):
        with pytest.raises(Denied):
            cache.find(kept, V1)
    # The two that are older now are displaced by new ones.
    for n in (2_000, 2_001):
        cache.keep_bad_signature(b"%d" % n, V1.keys_revision)
    with pytest.raises(Denied):
        cache.find(b"1", V1)
    assert cache.find(b"2", V1) is None
