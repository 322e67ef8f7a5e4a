"""Sends a case of `tests/conformance/smuggling.py` to a port and judges what comes
back.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
from pathlib import Path
from typing import Final

from tests.conformance.smuggling import Case, Must
from tests.support.processes import PATIENCE

#: Refusals of the wire. An application answers 404 to the targets of the cases.
REFUSALS: Final = frozenset({400, 413, 414, 417, 431, 501, 505})


class _Replay(io.BytesIO):
    """The received bytes, as a socket from whose file answers are read one by one."""

    def makefile(self, _mode: str) -> _Replay:
        return self

    def close(self) -> None:
        """Stay open: `http.client` closes its file behind each answer."""


def find_fault(port: int | Path, case: Case, pieces: int = 1) -> str:
    """Return the faults of the answers to a case; empty when there are none.

    Args:
        port: a TCP port of loopback, or the path of a unix socket.
        case: the bytes to send.
        pieces: in how many pieces.
    """
    found, is_ended = exchange(port, case.sent, pieces)
    shown = f"{case.name} ({case.source}): {found}"
    if not is_ended:
        return f"{shown}, not ended"
    if 408 in found or len(found) > 2:
        return shown
    if case.must is Must.REFUSE:
        is_right = len(found) == 1 and found[0] in REFUSALS
    elif case.must is Must.END:
        is_right = len(found) <= 1
    else:
        most = 1 if case.must is Must.SERVE_ONE else 2
        is_right = 1 <= len(found) <= most and not REFUSALS.intersection(found)
    return "" if is_right else shown


def exchange(
    port: int | Path, sent: bytes, pieces: int = 1, timeout: float = PATIENCE
) -> tuple[list[int], bool]:
    """Send bytes; return the statuses of the answers, and whether the server ended.

    Args:
        port: a TCP port of loopback, or the path of a unix socket.
        sent: the bytes.
        pieces: in how many pieces.
        timeout: seconds without a byte after which the server has not ended.
    """
    came, is_ended = talk(port, sent, pieces, timeout)
    return statuses(came), is_ended


def talk(
    port: int | Path, sent: bytes, pieces: int = 1, timeout: float = PATIENCE
) -> tuple[bytes, bool]:
    """Send bytes; return the answer, and whether the server ended the connection."""
    family = socket.AF_INET if isinstance(port, int) else socket.AF_UNIX
    came = bytearray()
    with socket.socket(family, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        address = ("127.0.0.1", port) if isinstance(port, int) else str(port)
        connection.connect(address)
        step = max(1, -(-len(sent) // pieces))
        # A server that has refused already resets later bytes.
        with contextlib.suppress(ConnectionError):
            for at in range(0, len(sent), step):
                connection.sendall(sent[at : at + step])
        try:
            while data := connection.recv(65_536):
                came += data
        except TimeoutError:
            return bytes(came), False
        except ConnectionError:
            pass
    return bytes(came), True


def statuses(came: bytes) -> list[int]:
    """Return the statuses of the answers in `came`, read one behind the other."""
    replay = _Replay(came)
    found = []
    while replay.tell() < len(came):
        answer = http.client.HTTPResponse(replay)  # type: ignore[arg-type]
        answer.begin()
        answer.read()
        found.append(answer.status)
    return found
