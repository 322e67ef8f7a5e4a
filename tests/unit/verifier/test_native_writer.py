"""What is written into a gateway process, and when."""

from __future__ import annotations

import asyncio

from shared.feed import EntryKind, FeedEntry
from verifier.native.content import Content, ContentSource, KeepingTrust
from verifier.native.in_force import InForce
from verifier.native.writer import Writer

OWN = "https://issuer.example"


class Recorder:
    """A gateway process that takes everything."""

    name = "one"

    def __init__(self) -> None:
        self.marks: list[tuple[str, int]] = []
        self.counts: list[int] = []

    async def write(self, content: Content) -> None:
        self.marks.append(tuple(content.mark))
        self.counts.append(len(content.entries))


def entry(seq: int) -> FeedEntry:
    return FeedEntry(seq, EntryKind.SID, f"s-{seq}", 0, 2_000_000_000)


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_nothing_is_written_before_all_entries_are_there() -> None:
    """A million entries come in a hundred pieces; none is worth a filter by itself."""
    trust = KeepingTrust(OWN)
    in_force = InForce(lambda: 0.0, 30)
    source = ContentSource(trust, in_force, dict, lambda: 0.0, lambda: 0.0)
    process = Recorder()
    writing = asyncio.create_task(Writer(process, source, in_force).run())
    try:
        trust.enforce([entry(1)])
        await turns()
        assert not process.marks
        trust.enforce([entry(2)])
        in_force.reached("e", 2)
        await turns()
        assert (process.marks, process.counts) == ([("e", 2)], [2])
        trust.enforce([entry(3)])
        in_force.reached("e", 3)
        await turns()
        assert process.marks[1:] == [("e", 3)]
    finally:
        writing.cancel()
