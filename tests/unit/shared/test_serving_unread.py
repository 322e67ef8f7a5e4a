"""What a peer has taken of its answers (R46)."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from shared.serving.connection import Connection
from shared.serving.limits import Limits
from shared.serving.port import Port


class FullTransport(asyncio.Transport):
    """A transport whose buffer stays as full as it is."""

    def get_write_buffer_size(self) -> int:
        return 50_000


def make_no_requests(_connection: Connection) -> Any:
    raise AssertionError("nothing is read")


async def test_what_leaves_the_kernel_counts_as_taken() -> None:
    """The kernel takes more of ours only in lumps: a slow reader would seem to
    stand.
    """
    ours, peer = socket.socketpair()
    with ours, peer:
        port = Port("test", Limits())
        connection = Connection(port, make_no_requests, asyncio.get_running_loop())
        connection._transport = FullTransport({"socket": ours})
        nothing = connection._count_untaken()
        ours.sendall(b"a" * 4_096)
        queued = connection._count_untaken()
        peer.recv(4_096)
        assert nothing == connection._count_untaken() == 50_000
        assert queued > 50_000
