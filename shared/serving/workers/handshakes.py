"""Stops new TCP connections to a listening socket while those that wait are taken.

A connection that arrives between the last `accept` and the `close` of a listening
socket is reset by the system. Its client has sent a request by then, and no gateway
repeats a POST. So the first packet of every further handshake is dropped instead. The
client's system sends it again after a second; then the port is closed, which a gateway
takes as "no connection, ask another server".
"""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
from typing import Final

#: Linux's own number; the socket module has no name for it (asm-generic/socket.h).
_SO_ATTACH_FILTER: Final = 26
#: A filter of a TCP socket sees the packet from its TCP header on. Byte 13 has the
#: flags; SYN without ACK begins a handshake (RFC 9293, section 3.1). Instructions of
#: classic BPF: code, jump if true, jump if false, operand.
_DROP_SYN: Final = (
    (0x30, 0, 0, 13),  # load byte 13
    (0x54, 0, 0, 0x12),  # keep SYN and ACK
    (0x15, 0, 1, 0x02),  # SYN alone?
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # pass
)
_INSTRUCTION: Final = struct.Struct("=HBBI")


def drop_handshakes(listener: socket.socket) -> bool:
    """Let no further connection begin; those that have begun can still be taken.

    It concerns every copy of the socket, in all processes.

    Returns:
        Whether the system does that: False for a unix socket, and on other systems than
        Linux. The caller closes the socket all the same.
    """
    if sys.platform != "linux" or listener.family not in (
        socket.AF_INET,
        socket.AF_INET6,
    ):
        return False
    program = b"".join(_INSTRUCTION.pack(*step) for step in _DROP_SYN)
    instructions = ctypes.create_string_buffer(program, len(program))
    address = ctypes.addressof(instructions)
    try:
        listener.setsockopt(
            socket.SOL_SOCKET,
            _SO_ATTACH_FILTER,
            struct.pack("@HP", len(_DROP_SYN), address),
        )
    except OSError:
        # A sandbox may forbid it.
        return False
    return True
