"""Entries are put in groups alike, one by one and all at once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shared.feed import GENERATION_KINDS, EntryKind, FeedEntry
from verifier.native.entries import LiveEntries
from verifier.native.envoy.revocation_filters import Grouping


def made(parts: tuple[EntryKind, str, int]) -> FeedEntry:
    kind, key, generation = parts
    least = generation if kind in GENERATION_KINDS else 0
    return FeedEntry(1, kind, key, least, 2_000_000_000)


ENTRIES = st.builds(
    made,
    st.tuples(st.sampled_from(EntryKind), st.sampled_from("abcd"), st.integers(1, 3)),
)


@given(st.lists(ENTRIES, max_size=30))
def test_all_at_once_are_the_same_groups(given_entries: list[FeedEntry]) -> None:
    """User and client of the same name share a key; the higher generation counts."""
    live = LiveEntries()
    live.add(given_entries)
    single, whole = Grouping(), Grouping()
    single.add(live)
    whole.add_all(live.by_kind())

    def found(grouping: Grouping) -> set[tuple[str, int, frozenset[str]]]:
        groups = grouping.groups()
        return {(g.header, g.minimum_generation, frozenset(g.keys)) for g in groups}

    assert found(single) == found(whole)
    assert {(g.header, k) for g in whole.groups() for k in g.keys} == {
        (header, key)
        for kind, known in live.by_kind().items()
        for header in [HEADERS.get(kind)]
        if header
        for key in known
    }


HEADERS = {
    EntryKind.SID: "x-auth-session",
    EntryKind.JTI: "x-gatehouse-jti",
    EntryKind.USER: "x-auth-subject",
    EntryKind.CLIENT: "x-auth-subject",
}
