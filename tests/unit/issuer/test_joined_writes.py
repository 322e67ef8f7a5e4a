"""An answer leaves in one piece, and nothing of it is ever kept back."""

from __future__ import annotations

import asyncio

from issuer.joined_writes import JoinedWrites


class RecordingTransport(asyncio.Transport):
    """Keeps what it is given, and when it was closed."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.7", 1)})
        self.done: list[bytes | str] = []
        self.is_lost = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.done.append(bytes(data))

    def close(self) -> None:
        self.done.append("closed")

    def is_closing(self) -> bool:
        return self.is_lost or "closed" in self.done


def joined() -> tuple[RecordingTransport, JoinedWrites]:
    transport = RecordingTransport()
    return transport, JoinedWrites(transport, asyncio.get_running_loop())


async def test_a_head_and_its_body_leave_together() -> None:
    transport, writes = joined()
    writes.write(b"head ")
    writes.write(b"body")
    assert transport.done == [b"head body"]
    await asyncio.sleep(0)
    assert transport.done == [b"head body"]


async def test_a_head_without_a_body_leaves_at_once_or_with_the_turn() -> None:
    transport, writes = joined()
    writes.write(b"head")
    writes.write(b"")
    assert transport.done == [b"head"]
    writes.write(b"another")
    await asyncio.sleep(0)
    assert transport.done == [b"head", b"another"]


async def test_what_is_held_leaves_before_the_connection_closes() -> None:
    transport, writes = joined()
    writes.write(b"last words")
    writes.close()
    await asyncio.sleep(0)
    assert transport.done == [b"last words", "closed"]


async def test_a_connection_lost_meanwhile_is_not_written_to() -> None:
    """uvloop raises then, in a callback of the loop."""
    transport, writes = joined()
    writes.write(b"head")
    transport.is_lost = True
    await asyncio.sleep(0)
    assert transport.done == []


async def test_the_rest_is_the_transports_own() -> None:
    _, writes = joined()
    assert writes.get_extra_info("peername") == ("192.0.2.7", 1)
