"""The revocations as gateways are sent them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shared.feed import GENERATION_KINDS, EntryKind, FeedEntry
from verifier.check.revocations import PRUNE_MARGIN
from verifier.native.entries import LiveEntries, LiveEntry

NOW = 1_800_000_000


def entry(
    kind: EntryKind, key: str, generation: int = 0, prune_at: int = NOW
) -> FeedEntry:
    return FeedEntry(1, kind, key, generation, prune_at)


ENTRIES = st.builds(
    lambda kind, key, generation, prune_at: entry(
        kind, key, generation if kind in GENERATION_KINDS else 0, NOW + prune_at
    ),
    st.sampled_from(EntryKind),
    st.sampled_from("abc"),
    st.integers(0, 5),
    st.integers(-1_000, 1_000),
)


@given(st.lists(ENTRIES), st.lists(ENTRIES))
def test_disorder_and_repeats_do_not_matter(
    first: list[FeedEntry], second: list[FeedEntry]
) -> None:
    one, other = LiveEntries(), LiveEntries()
    for batch in (first, second):
        one.add(batch)
    other.add([*second, *first, *second])
    assert set(one) == set(other)
    assert len(one) == len(set(one))


@given(st.lists(ENTRIES), st.integers(0, 10), st.integers(0, 20))
def test_changes_since_a_revision_lead_to_what_there_is(
    entries: list[FeedEntry], known: int, journal: int
) -> None:
    """The last change for a key counts, as with a gateway's map."""
    live = LiveEntries(journal)
    live.add(entries[:known])
    revision, gateway = live.revision, {(e.kind, e.key): e for e in live}
    live.add(entries[known:])
    changes = live.since(revision)
    if changes is None:
        assert live.revision - revision > journal
        return
    gateway |= {(change.kind, change.key): change for change in changes}
    assert set(gateway.values()) == set(live)


def test_higher_generation_is_a_change_and_a_lower_one_is_not() -> None:
    live = LiveEntries()
    live.add([entry(EntryKind.USER, "u", 2)])
    revision = live.revision
    live.add([entry(EntryKind.USER, "u", 1)])
    assert live.since(revision) == []
    live.add([entry(EntryKind.USER, "u", 3)])
    assert live.since(revision) == [LiveEntry(EntryKind.USER, "u", 3)]
    assert list(live) == [LiveEntry(EntryKind.USER, "u", 3)]


def test_entry_goes_when_no_token_can_be_alive() -> None:
    live = LiveEntries()
    live.add([entry(EntryKind.SID, "s"), entry(EntryKind.JTI, "j", 0, NOW + 100)])
    live.add([entry(EntryKind.SID, "s", 0, NOW + 50)])
    live.prune(NOW + 50 + PRUNE_MARGIN)
    assert (len(live), live.pruned) == (2, 0)
    live.prune(NOW + 51 + PRUNE_MARGIN)
    assert [left.key for left in live] == ["j"]
    assert live.pruned == 1


def test_revoked_keys_are_named() -> None:
    live = LiveEntries()
    live.add([entry(EntryKind.KID, "k"), entry(EntryKind.SID, "s")])
    assert live.revoked_kids() == {"k"}
