"""An answer leaves in one piece, and nothing of it is ever kept back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from shared.serving.writes import Writes


class RecordingTransport(asyncio.Transport):
    """Keeps the bytes it gets."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.7", 1)})
        self.done: list[bytes] = []
        self.is_lost = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.done.append(bytes(data))

    def writelines(
        self, list_of_data: Iterable[bytes | bytearray | memoryview]
    ) -> None:
        self.done += [bytes(data) for data in list_of_data]

    def is_closing(self) -> bool:
        return self.is_lost


class RecordingOwner:
    """A connection that records calls."""

    def __init__(self) -> None:
        self.may = True
        self.asked: list[str] = []

    def may_write(self) -> bool:
        return self.may

    def finish(self) -> None:
        self.asked.append("finish")

    def set_application_paused(self, *, is_paused: bool) -> None:
        self.asked.append("pause" if is_paused else "resume")


def joined() -> tuple[RecordingTransport, RecordingOwner, Writes]:
    transport, owner = RecordingTransport(), RecordingOwner()
    return transport, owner, Writes(transport, asyncio.get_running_loop(), owner)


async def test_a_head_and_its_body_leave_together() -> None:
    transport, _, writes = joined()
    writes.write(b"head ")
    writes.write(b"body")
    assert transport.done == [b"head body"]
    await asyncio.sleep(0)
    assert transport.done == [b"head body"]


async def test_a_head_without_a_body_leaves_at_once_or_with_the_turn() -> None:
    transport, _, writes = joined()
    writes.write(b"head")
    writes.write(b"")
    assert transport.done == [b"head"]
    writes.write(b"another")
    await asyncio.sleep(0)
    assert transport.done == [b"head", b"another"]


async def test_a_long_body_is_not_copied() -> None:
    """R44: an answer that many peers do not read is in memory once."""
    transport, _, writes = joined()
    writes.write(b"head")
    writes.write(b"x" * 20_000)
    assert transport.done == [b"head", b"x" * 20_000]


async def test_two_pieces_of_a_document_are_not_copied_together() -> None:
    """R44: they are the same for all callers, and in memory once."""
    transport, _, writes = joined()
    pieces = [b"x" * 16_384, b"y" * 16_384, b"z" * 10]
    writes.write(pieces[0])
    writes.write(pieces[1])
    writes.write(pieces[0])
    writes.write(pieces[2])
    wanted = [pieces[0], pieces[1], pieces[0], pieces[2]]
    assert [*map(id, transport.done)] == [*map(id, wanted)]


async def test_a_flush_sends_held_bytes_and_a_close_ends_the_connection() -> None:
    transport, owner, writes = joined()
    writes.write(b"last words")
    writes.flush()
    writes.close()
    await asyncio.sleep(0)
    assert transport.done == [b"last words"]
    assert owner.asked == ["finish"]


async def test_a_connection_lost_meanwhile_is_not_written_to() -> None:
    """uvloop raises then, in a callback of the loop."""
    transport, _, writes = joined()
    writes.write(b"head")
    transport.is_lost = True
    await asyncio.sleep(0)
    assert transport.done == []


async def test_nothing_is_written_or_held_behind_the_end() -> None:
    transport, owner, writes = joined()
    owner.may = False
    writes.write(b"head")
    writes.flush()
    assert writes.is_closing()
    assert transport.done == []


async def test_the_rest_is_the_transports_or_the_connections() -> None:
    _, owner, writes = joined()
    assert writes.get_extra_info("peername") == ("192.0.2.7", 1)
    writes.pause_reading()
    writes.resume_reading()
    assert owner.asked == ["pause", "resume"]
