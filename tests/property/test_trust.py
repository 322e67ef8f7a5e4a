"""`Trust` only grows stricter, for any order and number of calls.

"Never un-revoked" and "of two times the later one counts" are properties of this class
alone: the feed, the cold start and the sweep call it in any order.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.feed import EntryKind, FeedEntry
from tests.support.tokens import ISSUER
from verifier.check.revocations import PRUNE_MARGIN, RevocationIndex
from verifier.check.trust import PRUNE_PARTS, IssuerTrust, KeySet, Trust

#: The name of each kind's table in the index.
TABLES = {
    EntryKind.JTI: "jtis",
    EntryKind.SID: "sids",
    EntryKind.USER: "users",
    EntryKind.CLIENT: "clients",
    EntryKind.KID: "kids",
}
KEYS = ["a", "b", "c"]
PRUNE_ATS = [1_000, 2_000, 3_000]
ENTRIES = st.builds(
    FeedEntry,
    st.just(1),
    st.sampled_from(EntryKind),
    st.sampled_from(KEYS),
    st.integers(0, 3),
    st.sampled_from(PRUNE_ATS),
)
BATCHES = st.lists(ENTRIES, max_size=4)
#: -inf: a list of an age that is not known.
TIMES = st.sampled_from([float("-inf"), 0.0, 10.0, 20.0, 20.5, 30.0])
KEY_SETS = [KeySet(version=f"version-{n}") for n in range(3)]
CALLS = st.one_of(
    st.tuples(st.just("enforce"), BATCHES),
    st.tuples(st.just("renew"), TIMES),
    st.tuples(st.just("trust_keys"), st.tuples(st.sampled_from(KEY_SETS), TIMES)),
    st.tuples(st.just("prune"), st.just(0)),
)
Call = tuple[str, Any]


def make(trust: Trust, call: Call) -> None:
    name, argument = call
    if name == "trust_keys":
        trust.trust_keys(ISSUER, *argument)
    else:
        getattr(trust, name)(argument)


def revoked(index: RevocationIndex) -> dict[tuple[EntryKind, str], int]:
    """Return every minimum generation in the index."""
    found = {
        (kind, key): getattr(index, table).minimum_generation(key)
        for kind, table in TABLES.items()
        for key in KEYS
    }
    return {name: least for name, least in found.items() if least is not None}


def greatest(entries: Iterable[FeedEntry]) -> dict[tuple[EntryKind, str], int]:
    """Return the greatest generation of each kind and key, which must be in force."""
    most: dict[tuple[EntryKind, str], int] = {}
    for entry in entries:
        name = (entry.kind, entry.key)
        most[name] = max(entry.minimum_generation, most.get(name, 0))
    return most


@settings(deadline=None, max_examples=60)
@given(st.lists(CALLS, max_size=12))
def test_no_call_reverses_an_earlier_one(calls: list[Call]) -> None:
    trust = Trust(ISSUER)
    entries: list[FeedEntry] = []
    for call in calls:
        before = trust.snapshot.own
        make(trust, call)
        after = trust.snapshot.own
        entries += call[1] if call[0] == "enforce" else []
        assert revoked(after.revocations) == greatest(entries)
        assert after.fresh_until >= before.fresh_until
        assert after.keys_until >= before.keys_until
        assert after.has_revocations >= before.has_revocations


@settings(deadline=None, max_examples=60)
@given(st.lists(CALLS, max_size=8), st.data())
def test_order_and_repetition_of_the_calls_do_not_count(
    calls: list[Call], data: st.DataObject
) -> None:
    # Two key sets with one time are the one case in which the order must count: the
    # last answer of the issuer wins.
    calls = [call for call in calls if call[0] != "trust_keys"]
    again = data.draw(st.permutations(calls + calls[: len(calls) // 2]))
    one, other = Trust(ISSUER), Trust(ISSUER)
    for call in calls:
        make(one, call)
    for call in again:
        make(other, call)
    a, b = one.snapshot.own, other.snapshot.own
    assert revoked(a.revocations) == revoked(b.revocations)
    assert len(a.revocations) == len(b.revocations)
    assert (a.fresh_until, a.has_revocations) == (b.fresh_until, b.has_revocations)


@settings(deadline=None, max_examples=60)
@given(st.lists(TIMES, max_size=6))
def test_the_latest_renewal_counts(times: list[float]) -> None:
    trust = Trust(ISSUER)
    for until in times:
        trust.renew(until)
    snapshot = trust.snapshot
    assert snapshot.own.fresh_until == max([0.0, *times])
    assert snapshot.own.has_revocations is bool(times)
    assert (snapshot.own.keys_until, snapshot.own.keys.version) == (0.0, "")


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(KEY_SETS), TIMES), max_size=6))
def test_the_keys_with_the_latest_time_are_trusted(
    answers: list[tuple[KeySet, float]],
) -> None:
    trust = Trust(ISSUER)
    for keys, until in answers:
        trust.trust_keys(ISSUER, keys, until)
    # Of two with one time the last: an answer to a later request may have that too.
    best, best_until = KeySet(), 0.0
    for keys, until in answers:
        if until >= best_until:
            best, best_until = keys, until
    snapshot = trust.snapshot
    assert (snapshot.own.keys.version, snapshot.own.keys_until) == (
        best.version,
        best_until,
    )
    assert (snapshot.own.fresh_until, snapshot.own.has_revocations) == (0.0, False)


@settings(deadline=None, max_examples=15)
@given(BATCHES, st.sampled_from(PRUNE_ATS), st.sampled_from([-1, 0, 1]))
def test_a_sweep_drops_only_expired_entries(
    entries: list[FeedEntry], prune_at: int, beside: int
) -> None:
    trust = Trust(ISSUER)
    trust.enforce(entries)
    trust.renew(10.0)
    now = prune_at + PRUNE_MARGIN + beside
    revision = trust.snapshot.own.revocations.revision
    for _ in range(PRUNE_PARTS):
        trust.prune(now)
    latest: dict[tuple[EntryKind, str], int] = {}
    for entry in entries:
        name = (entry.kind, entry.key)
        latest[name] = max(entry.prune_at, latest.get(name, 0))
    kept = {name for name, at in latest.items() if at + PRUNE_MARGIN >= now}
    assert revoked(trust.snapshot.own.revocations).keys() == kept
    assert trust.snapshot.own.fresh_until == 10.0
    # A cached fact need not be searched again for dropped entries.
    assert trust.snapshot.own.revocations.revision == revision


@settings(deadline=None, max_examples=60)
@given(st.lists(CALLS, max_size=6), st.lists(CALLS, max_size=6))
def test_nothing_is_trusted_again_after_the_end(
    before: list[Call], after: list[Call]
) -> None:
    trust = Trust(ISSUER)
    for call in before:
        make(trust, call)
    trust.end()
    for call in after:
        make(trust, call)
    ended, empty = trust.snapshot.own, IssuerTrust()
    assert (ended.keys.version, ended.keys_until) == ("", 0.0)
    assert (ended.fresh_until, ended.has_revocations) == (0.0, False)
    assert revoked(ended.revocations) == revoked(empty.revocations) == {}
