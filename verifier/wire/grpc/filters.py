"""A packet filter that keeps strangers from connecting at all (R1, R43).

grpcio reads what a peer sends as soon as it has accepted. Header frames without end
made it grow by 20 MB for each connection within a second. So the listening socket gets
a filter of the kernel (classic BPF, Documentation/networking/filter.rst): a packet
whose source is in no trusted network is dropped, the first one of a connection, too.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

#: `SO_ATTACH_FILTER` of asm-generic/socket.h.
_ATTACH_FILTER: Final = 26
#: `SKF_NET_OFF` of linux/filter.h: offsets from here begin at the IP header.
_IP_HEADER: Final = 0x1_0000_0000 - 0x10_0000
#: Offsets of the source address there, by version (RFC 791, RFC 8200).
_SOURCE: Final = {4: 12, 6: 8}
# Instructions, as in linux/bpf_common.h.
_LOAD_WORD: Final = 0x20
_LOAD_BYTE: Final = 0x30
_AND: Final = 0x54
_SHIFT_RIGHT: Final = 0x74
_JUMP: Final = 0x05
_JUMP_IF_EQUAL: Final = 0x15
_RETURN: Final = 0x06
_DROP: Final = (_RETURN, 0, 0, 0)
_PASS: Final = (_RETURN, 0, 0, 0xFFFF_FFFF)

#: Code, distance if true, distance if false, operand.
Instruction = tuple[int, int, int, int]


def attach_filter(listener: socket.socket, networks: Iterable[str]) -> None:
    """Let the listener's kernel drop what comes from no trusted network.

    Raises:
        OSError: the system has no such filters, or there are too many networks.
    """
    program = write_program(networks)
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    kept = ctypes.create_string_buffer(code, len(code))
    described = struct.pack("@HP", len(program), ctypes.addressof(kept))
    listener.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, described)


def write_program(networks: Iterable[str]) -> list[Instruction]:
    """Return the program that passes packets from these networks alone."""
    parsed = [ip_network(network) for network in networks]
    parts = {4: [_DROP], 6: [_DROP]}
    for network in parsed:
        parts[network.version][:0] = _write_match(network)
    return [
        (_LOAD_BYTE, 0, 0, _IP_HEADER),
        (_SHIFT_RIGHT, 0, 0, 4),
        # To the part of IPv4, or over it.
        (_JUMP_IF_EQUAL, 1, 0, 4),
        (_JUMP, 0, 0, len(parts[4])),
        *parts[4],
        *parts[6],
    ]


def _write_match(network: IPv4Network | IPv6Network) -> Sequence[Instruction]:
    """Return instructions that pass a source of the network, and else go on."""
    masks = struct.unpack(f">{network.max_prefixlen // 32}I", network.netmask.packed)
    words = struct.unpack(f">{len(masks)}I", network.network_address.packed)
    begin = _IP_HEADER + _SOURCE[network.version]
    written: list[Instruction] = [_PASS]
    # From the last word to the first: a difference jumps over all that follows.
    for index in reversed(range(len(masks))):
        if masks[index]:
            written[:0] = [
                (_LOAD_WORD, 0, 0, begin + 4 * index),
                (_AND, 0, 0, masks[index]),
                (_JUMP_IF_EQUAL, 0, len(written), words[index]),
            ]
    return written
