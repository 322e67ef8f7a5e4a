"""The packet filter of the gRPC port, run by a small interpreter."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.wire.grpc.filters import Instruction, write_program

#: `SKF_NET_OFF`.
HEADER = 0xFFF0_0000


def passes(program: list[Instruction], source: str) -> bool:
    """Run a program on a packet, as the kernel does."""
    address = ip_address(source)
    begin = 12 if address.version == 4 else 8
    packet = bytearray(40)
    packet[0] = address.version << 4
    packet[begin : begin + len(address.packed)] = address.packed
    at, held = 0, 0
    while True:
        code, if_true, if_false, operand = program[at]
        at += 1
        if code == 0x06:
            return operand != 0
        if code == 0x05:
            at += operand
        elif code == 0x15:
            at += if_true if held == operand else if_false
        elif code == 0x54:
            held &= operand
        elif code == 0x74:
            held >>= operand
        else:
            size = {0x20: 4, 0x30: 1}[code]
            offset = operand - HEADER
            held = int.from_bytes(packet[offset : offset + size], "big")


ADDRESSES = st.ip_addresses().map(str)
NETWORKS = st.builds(
    lambda address, length: str(
        ip_network((address, min(length, address.max_prefixlen)), strict=False)
    ),
    st.ip_addresses(),
    st.integers(0, 128),
)


@given(networks=st.lists(NETWORKS, max_size=5), source=ADDRESSES)
def test_r1_a_packet_passes_from_a_trusted_network_alone(
    networks: list[str], source: str
) -> None:
    expected = any(ip_address(source) in ip_network(n) for n in networks)
    assert passes(write_program(networks), source) is expected


@given(network=NETWORKS)
def test_both_ends_of_a_network_pass(network: str) -> None:
    parsed = ip_network(network)
    program = write_program(["192.0.2.1/32", network])
    assert passes(program, str(parsed[0]))
    assert passes(program, str(parsed[-1]))


@pytest.mark.parametrize("source", ["0.0.0.0", "127.0.0.1", "::", "::1"])
def test_without_networks_nothing_passes(source: str) -> None:
    assert not passes(write_program([]), source)
