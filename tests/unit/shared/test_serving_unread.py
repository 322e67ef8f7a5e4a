"""The part of its answers that a peer has taken (R46)."""

from __future__ import annotations

import asyncio
import socket

from shared.serving.unread import UnreadAnswers


class FullTransport(asyncio.Transport):
    """A transport with a buffer that stays full."""

    def get_write_buffer_size(self) -> int:
        return 50_000


def test_bytes_that_leave_the_kernel_count_as_taken() -> None:
    """The kernel takes more of ours only in lumps: a slow reader would seem to
    stand.
    """
    ours, peer = socket.socketpair()
    with ours, peer:
        answers = UnreadAnswers(FullTransport({"socket": ours}))
        assert answers.count() == 50_000
        ours.sendall(b"a" * 4_096)
        assert answers.count() > 50_000
        answers.start()
        peer.recv(4_096)
        assert answers.count() == 50_000
        assert answers.has_fallen()
        assert not answers.has_fallen()
        assert answers.taken() > 0
