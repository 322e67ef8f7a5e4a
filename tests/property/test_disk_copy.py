"""After any damage to a disk copy, entries before it count, and its age does not.

The file is changed in its place, same inode, same boot: only its own form can show it.
The damaged part may be one that was acknowledged to the issuer.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.feed import EntryKind
from tests.support.cold_starts import VerifierHost, kill, offsets, records
from tests.support.gatehouse_verifier import SimulatedVerifier
from verifier.disk.copy_format import MARK_SIZE, RecordKind

PAGES = 5

#: Changes bytes, given where the records begin and where the last ends.
Damage = Callable[[bytes, list[int]], bytes]


def cut_off(share: float) -> Damage:
    return lambda content, _: content[: int(share * len(content))]


def cut_off_behind_record(number: int) -> Damage:
    return lambda content, at: content[: at[number % len(at)]]


def flip(share: float, bit: int) -> Damage:
    def change(content: bytes, _: list[int]) -> bytes:
        changed = bytearray(content)
        changed[int(share * len(content))] ^= 1 << bit
        return bytes(changed)

    return change


def rearrange(order: list[int]) -> Damage:
    """Leave records out, repeat them, swap them."""

    def change(content: bytes, at: list[int]) -> bytes:
        parts = [content[a:b] for a, b in pairwise(at)]
        chosen = [parts[number % len(parts)] for number in order]
        return content[:MARK_SIZE] + b"".join(chosen)

    return change


def append(more: bytes) -> Damage:
    return lambda content, _: content + more


shares = st.floats(0, 1, exclude_max=True)
damages = st.one_of(
    st.builds(cut_off, shares),
    st.builds(cut_off_behind_record, st.integers(0, 50)),
    st.builds(flip, shares, st.integers(0, 7)),
    st.builds(rearrange, st.lists(st.integers(0, 50), max_size=20)),
    st.builds(append, st.binary(min_size=1, max_size=200)),
)


async def write(host: VerifierHost) -> Path:
    """Write a copy of some pages, kill its writer, and return the file."""
    verifier = await host.start()
    await verifier.sync()
    for n in range(PAGES):
        host.issuer.revoke(EntryKind.SID, f"s-{n}")
        await verifier.feed.step()
    kill(verifier)
    (path,) = host.copies()
    return path


def known_before(path: Path, damage_at: int) -> set[str]:
    """Return the sessions with a record that ends at or before that offset."""
    ends = zip(offsets(path)[1:], records(path), strict=True)
    payloads = b"".join(
        record.payload
        for end, record in ends
        if end <= damage_at and record.kind is RecordKind.ENTRIES
    )
    return {f"s-{n}" for n in range(PAGES) if f'"s-{n}"'.encode() in payloads}


def first_difference(before: bytes, after: bytes) -> int:
    """Return where the records begin to differ."""
    pairs = zip(before[MARK_SIZE:], after[MARK_SIZE:], strict=False)
    differing = (n for n, (a, b) in enumerate(pairs, MARK_SIZE) if a != b)
    return next(differing, min(len(before), len(after)))


def knows(verifier: SimulatedVerifier, sid: str) -> bool:
    sids = verifier.trust.snapshot.own.revocations.sids
    return sids.minimum_generation(sid) is not None


async def start_damaged(folder: Path, damage: Damage) -> None:
    host = VerifierHost(folder / "state")
    path = await write(host)
    content = path.read_bytes()
    damaged = damage(content, offsets(path))
    known = known_before(path, first_difference(content, damaged))
    path.write_bytes(damaged)
    verifier = await host.start()
    assert {f"s-{n}" for n in range(PAGES) if knows(verifier, f"s-{n}")} >= known
    assert len(verifier.trust.snapshot.own.revocations) <= PAGES
    fresh_until = verifier.trust.snapshot.own.fresh_until
    if damaged == content:
        assert fresh_until == host.clock.monotonic() + 30
    else:
        assert fresh_until == 0.0
        assert verifier.feed.replaces == ()
        assert verifier.feed.epoch is None
    # It still goes on, and its later writes can be relied on again.
    await verifier.sync()
    kill(verifier)
    again = await host.start()
    assert all(knows(again, f"s-{n}") for n in range(PAGES))
    assert again.check(host.issuer.mint()).status == 200
    kill(again)


@settings(deadline=None)
@given(damages)
@example(rearrange(list(range(50))))
@example(cut_off(0.0))
@example(cut_off_behind_record(-2))
@example(append(b""))
def test_a_changed_copy_gives_the_entries_before_the_change_and_no_age(
    damage: Damage,
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(start_damaged(Path(folder), damage))


@settings(deadline=None)
@given(st.lists(st.integers(0, PAGES), min_size=1, max_size=3))
def test_no_earlier_state_of_the_writer_acknowledges_entries_it_lacks(
    stops: list[int],
) -> None:
    """Killed and started again at any point: acknowledged entries are there."""

    async def live(folder: Path) -> None:
        host = VerifierHost(folder / "state")
        acknowledged = 0
        for stop in stops:
            verifier = await host.start()
            assert verifier.feed.position >= acknowledged
            for n in range(verifier.feed.position):
                assert knows(verifier, f"s-{n}")
            for _ in range(stop):
                host.issuer.revoke(EntryKind.SID, f"s-{host.issuer.head}")
                await verifier.feed.step()
                acknowledged = verifier.feed.position
            kill(verifier)

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(live(Path(folder)))
