"""The revocations of one Envoy in three filters: together they refuse what there is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.feed import GENERATION_KINDS, EntryKind, FeedEntry
from verifier.check.revocations import PRUNE_MARGIN
from verifier.native.entries import LiveEntries, LiveEntry
from verifier.native.envoy.levels import Levels
from verifier.native.envoy.names import GEN_HEADER, JTI_HEADER
from verifier.native.envoy.revocation_filters import Group, Grouping, settled_filter

NOW = 1_800_000_000
SUBJECT, SESSION = "x-auth-subject", "x-auth-session"
#: How each kind is compared: a client's own tokens have it as their subject.
HEADERS = {
    EntryKind.SID: SESSION,
    EntryKind.JTI: JTI_HEADER,
    EntryKind.USER: SUBJECT,
    EntryKind.CLIENT: SUBJECT,
}
Refusals = dict[tuple[str, str], int]


def feed_entry(kind: EntryKind, key: str, generation: int, prune_at: int) -> FeedEntry:
    if kind not in GENERATION_KINDS:
        generation = 0
    return FeedEntry(1, kind, key, generation, NOW + prune_at)


ENTRIES = st.builds(
    feed_entry,
    st.sampled_from(EntryKind),
    st.text("abc*", min_size=1, max_size=2),
    st.integers(1, 4),
    st.sampled_from([0, 500]),
)
STEPS = st.one_of(st.lists(ENTRIES, max_size=6), st.sampled_from(["fill", "prune"]))


def refusals(groups: Iterable[Group]) -> Refusals:
    """Return the least generation for each header and key; no key is there twice."""
    found: Refusals = {}
    for header, least, keys in groups:
        for key in keys:
            assert (header, key) not in found
            found[header, key] = least
    return found


def expected(entries: Iterable[LiveEntry]) -> Refusals:
    """Return the same of the entries themselves."""
    found: Refusals = {}
    for kind, key, generation in entries:
        if kind in HEADERS:
            place = HEADERS[kind], key
            found[place] = max(found.get(place, 0), generation)
    return found


def together(filters: Iterable[Refusals]) -> Refusals:
    """Return what filters refuse one after the other: the highest generation counts."""
    found: Refusals = {}
    for one in filters:
        for place, least in one.items():
            found[place] = max(found.get(place, 0), least)
    return found


@settings(deadline=None)
@given(st.lists(STEPS, max_size=30), st.integers(0, 3))
def test_filters_together_refuse_what_there_is(
    steps: list[list[FeedEntry] | str], recent: int
) -> None:
    """For any history. What was pruned may stay in a filter: no token has it."""
    live, levels = LiveEntries(journal=8), Levels(recent)
    settled: Refusals = {}
    ever: Refusals = {}
    for step in [*steps, "fill"]:
        if step == "prune":
            live.prune(NOW + 100 + PRUNE_MARGIN)
        elif step == "fill":
            filled = asyncio.run(levels.fill(live))
            if filled.settled is not None:
                settled = refusals(filled.settled)
            newest = refusals(filled.recent)
            has, must = together([settled, newest]), expected(live)
            assert all(has[place] >= least for place, least in must.items())
            assert all(least <= ever[place] for place, least in has.items())
            assert "prune" in steps or has == must
            assert len(newest) <= recent
        elif isinstance(step, list):
            live.add(step)
            ever = together([ever, expected(live)])


def entries_of(*sids: int) -> list[FeedEntry]:
    return [feed_entry(EntryKind.SID, str(sid), 0, 500) for sid in sids]


async def test_small_filter_that_is_full_moves_into_the_large_one() -> None:
    live, levels = LiveEntries(), Levels(recent=2)

    async def sizes() -> tuple[int | None, int]:
        settled, recent = await levels.fill(live)
        of_settled = None if settled is None else len(refusals(settled))
        return of_settled, len(refusals(recent))

    assert await sizes() == (0, 0)
    live.add(entries_of(1, 2))
    assert await sizes() == (None, 2)
    assert await sizes() == (None, 2)
    live.add(entries_of(3))
    assert await sizes() == (3, 0)
    live.add(entries_of(4))
    assert await sizes() == (None, 1)


async def test_small_filter_grows_with_all_entries() -> None:
    """The large one takes longer to build then, so it is built less often."""
    live, levels = LiveEntries(), Levels(recent=2)
    live.add(entries_of(*range(500)))
    await levels.fill(live)
    live.add(entries_of(*range(500, 505)))
    assert (await levels.fill(live)).settled is None
    live.add(entries_of(505))
    assert (await levels.fill(live)).settled is not None


async def test_small_filter_has_a_bound() -> None:
    live, levels = LiveEntries(), Levels(recent=2)
    live.add(entries_of(*range(300_000)))
    await levels.fill(live)
    live.add(entries_of(*range(300_000, 302_000)))
    assert (await levels.fill(live)).settled is None
    live.add(entries_of(302_000))
    assert (await levels.fill(live)).settled is not None


async def test_forgotten_filters_are_filled_again() -> None:
    live, levels = LiveEntries(), Levels(recent=2)
    await levels.fill(live)
    live.add(entries_of(1))
    levels.forget()
    settled, recent = await levels.fill(live)
    assert settled is not None
    assert refusals(settled) == {(SESSION, "1"): 0}
    assert recent == []


async def test_changes_that_are_kept_no_more_fill_both_filters() -> None:
    live, levels = LiveEntries(journal=1), Levels(recent=5)
    await levels.fill(live)
    live.add(entries_of(1, 2))
    settled, _ = await levels.fill(live)
    assert settled is not None
    assert len(refusals(settled)) == 2


async def test_other_work_goes_on_while_many_entries_are_grouped() -> None:
    live, levels = LiveEntries(), Levels(recent=10_000)
    await levels.fill(live)
    live.add(entries_of(*range(10_000)))
    filling = asyncio.create_task(levels.fill(live))
    turns = 0
    while not filling.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 4


def test_user_and_client_of_one_name_are_one_key() -> None:
    grouping = Grouping()
    grouping.add(
        [
            LiveEntry(EntryKind.USER, "same", 2),
            LiveEntry(EntryKind.CLIENT, "same", 5),
            LiveEntry(EntryKind.USER, "same", 3),
            LiveEntry(EntryKind.KID, "left-out", 0),
        ]
    )
    assert grouping.groups() == [Group(SUBJECT, 5, ["same"])]


def test_generation_beyond_envoys_numbers_is_the_largest_of_them() -> None:
    grouping = Grouping()
    grouping.add([LiveEntry(EntryKind.USER, "u", 2**60)])
    assert grouping.groups() == [Group(SUBJECT, 2**53, ["u"])]


def test_least_generation_of_0_refuses_nothing() -> None:
    """As in `RevocationIndex`: every generation is at least 0."""
    grouping = Grouping()
    grouping.add([LiveEntry(EntryKind.USER, "u", 0)])
    assert grouping.groups() == []


def test_only_users_and_clients_have_generations() -> None:
    """A session with one would pass with a higher generation."""
    grouping = Grouping()
    grouping.add([LiveEntry(EntryKind.SID, "s", 3), LiveEntry(EntryKind.JTI, "t", 1)])
    assert {group.minimum_generation for group in grouping.groups()} == {0}


def test_generation_is_read_from_the_header_of_the_claim() -> None:
    made = settled_filter([Group(SUBJECT, 7, ["u"])], "1").SerializeToString()
    assert GEN_HEADER.encode() in made
    without = settled_filter([], "1").SerializeToString()
    assert GEN_HEADER.encode() not in without
