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
from verifier.native.envoy.names import GEN_HEADER, JTI_HEADER, MIDDLE, RECENT, SETTLED
from verifier.native.envoy.revocation_filters import Group, Grouping, revocation_filter

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
@given(st.lists(STEPS, max_size=30), st.integers(0, 3), st.integers(0, 6))
def test_filters_together_refuse_what_there_is(
    steps: list[list[FeedEntry] | str], recent: int, middle: int
) -> None:
    """For any history. What was pruned may stay in a filter: no token has it."""
    live, levels = LiveEntries(journal=8), Levels(recent, middle)
    filters: dict[str, Refusals] = {}
    ever: Refusals = {}
    for step in [*steps, "fill"]:
        if step == "prune":
            live.prune(NOW + 100 + PRUNE_MARGIN)
        elif step == "fill":
            filled = asyncio.run(levels.fill(live))
            filters |= {level.name: refusals(level.groups) for level in filled}
            has, must = together(filters.values()), expected(live)
            assert all(has[place] >= least for place, least in must.items())
            assert all(least <= ever[place] for place, least in has.items())
            assert "prune" in steps or has == must
            assert len(filters[RECENT]) <= recent
            assert len(filters[MIDDLE]) <= middle
        elif isinstance(step, list):
            live.add(step)
            ever = together([ever, expected(live)])


def entries_of(*sids: int) -> list[FeedEntry]:
    return [feed_entry(EntryKind.SID, str(sid), 0, 500) for sid in sids]


async def test_what_takes_over_comes_before_what_loses() -> None:
    """In another order an entry would be in no filter for a moment."""
    live, levels = LiveEntries(), Levels(recent=2, middle=4)

    async def names() -> list[str]:
        return [level.name for level in await levels.fill(live)]

    assert await names() == [MIDDLE, SETTLED, RECENT]
    assert await names() == [RECENT]
    live.add(entries_of(1, 2))
    assert await names() == [RECENT]
    live.add(entries_of(3))
    assert await names() == [MIDDLE, RECENT]
    live.add(entries_of(4))
    assert await names() == [RECENT]
    live.add(entries_of(5, 6))
    assert await names() == [SETTLED, MIDDLE, RECENT]
    live.add(entries_of(7, 8, 9))
    assert await names() == [MIDDLE, RECENT]
    live.add([entry._replace(prune_at=1) for entry in entries_of(10, 11, 12)])
    live.prune(NOW + 501 + PRUNE_MARGIN)
    assert await names() == [MIDDLE, SETTLED, RECENT]


async def test_large_filter_is_empty_while_the_middle_one_has_room() -> None:
    """It costs each request a look-up."""
    live, levels = LiveEntries(), Levels(recent=2, middle=4)
    live.add(entries_of(1, 2, 3, 4))
    middle, settled, recent = await levels.fill(live)
    assert refusals(middle.groups).keys() == {(SESSION, n) for n in "1234"}
    assert settled.groups == recent.groups == []
    live.add(entries_of(5))
    await levels.fill(live)
    live.add(entries_of(6, 7))
    settled, middle, recent = await levels.fill(live)
    assert len(refusals(settled.groups)) == 7
    assert middle.groups == recent.groups == []


async def test_forgotten_filters_are_filled_again() -> None:
    live, levels = LiveEntries(), Levels(recent=2, middle=4)
    live.add(entries_of(1))
    await levels.fill(live)
    levels.forget()
    middle, settled, recent = await levels.fill(live)
    assert [each.name for each in (middle, settled)] == [MIDDLE, SETTLED]
    assert refusals(middle.groups) == {(SESSION, "1"): 0}
    assert settled.groups == recent.groups == []


async def test_changes_that_are_kept_no_more_fill_all_filters() -> None:
    live, levels = LiveEntries(journal=1), Levels(recent=5, middle=1)
    live.add(entries_of(1, 2))
    await levels.fill(live)
    live.add(entries_of(3, 4))
    assert len(await levels.fill(live)) == 3


async def test_other_work_goes_on_while_many_entries_are_grouped() -> None:
    live, levels = LiveEntries(), Levels()
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


def test_each_content_of_a_filter_is_another_one() -> None:
    """Envoy does not count the same content as an update."""
    one = revocation_filter([], None, "1").SerializeToString(deterministic=True)
    other = revocation_filter([], None, "2").SerializeToString(deterministic=True)
    assert one != other


def test_generation_is_read_from_the_header_of_the_claim() -> None:
    made = revocation_filter([Group(SUBJECT, 7, ["u"])], None, "1").SerializeToString()
    assert GEN_HEADER.encode() in made
