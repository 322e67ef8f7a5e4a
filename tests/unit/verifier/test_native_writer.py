"""What is written into a gateway process, and when."""

from __future__ import annotations

import asyncio

from shared.feed import EntryKind, FeedEntry
from tests.support.haproxy_sites import TrustedSite, until
from verifier.native.content import Content, ContentSource, KeepingTrust
from verifier.native.in_force import InForce
from verifier.native.writer import NotSentError, WriteError, Writer

OWN = "https://issuer.example"


class Recorder:
    """A gateway process that takes everything, unless it is told not to."""

    name = "one"

    def __init__(self) -> None:
        self.has_window, self.trouble = True, ""
        self.refusal: WriteError | None = None
        self.marks: list[tuple[str, int]] = []
        self.counts: list[int] = []

    async def write(self, content: Content) -> None:
        if self.refusal is not None:
            raise self.refusal
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


async def test_gateway_that_is_kept_closed_is_failing_and_says_why() -> None:
    """It has every entry, and no window: no confirmation waits, and it closes."""
    site = TrustedSite()
    process = Recorder()
    writer = Writer(process, site.source, site.in_force)
    writing = asyncio.create_task(writer.run())
    try:
        site.revoke(EntryKind.SID, "a")
        await until(lambda: process.marks == [("e", 1)])
        left = site.in_force.progress("one").window_left
        process.has_window, process.trouble = False, "reload it"
        site.clock.advance(5)
        site.renew()
        site.revoke(EntryKind.SID, "b")
        await until(lambda: writer.last_error == "reload it")
        assert site.in_force.progress("one") == (2, left - 5)
        assert site.in_force.position("e") == 2
        assert site.in_force.failing_processes == 1
        process.has_window, process.trouble = True, ""
        site.revoke(EntryKind.SID, "c")
        await until(lambda: not writer.last_error)
        assert site.in_force.progress("one") == (3, left)
        assert site.in_force.failing_processes == 0
    finally:
        writing.cancel()


async def test_gateway_that_was_sent_nothing_has_no_window() -> None:
    site = TrustedSite()
    process = Recorder()
    process.refusal = NotSentError("it asks for another policy")
    writer = Writer(process, site.source, site.in_force)
    writing = asyncio.create_task(writer.run())
    try:
        site.revoke(EntryKind.SID, "a")
        await until(lambda: writer.last_error == "it asks for another policy")
        assert site.in_force.progress("one") == (0, 0.0)
        assert site.in_force.failing_processes == 1
    finally:
        writing.cancel()
