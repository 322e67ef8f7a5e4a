"""Which connections are taken, decided once, at accept (R43)."""

from __future__ import annotations

import asyncio
import socket

import pytest

from shared.serving.workers.places import UNIX_PEER, CrowdedError
from tests.support.gatehouse_verifier import started
from tests.support.wire import FakeTransport
from tests.unit.verifier.test_wire_states import CHECK
from verifier.wire.budgets import LOG_PERIOD
from verifier.wire.connections import (
    Admission,
    UntrustedPeerError,
    read_peer,
    trust_peers,
)
from verifier.wire.protocol import GateProtocol
from verifier.wire.public_port import PublicPort
from verifier.wire.states import State

TRUSTED = trust_peers(["10.0.0.0/8"])


def a_transport(name: object, family: int = socket.AF_INET) -> FakeTransport:
    return FakeTransport(peername=name, family=family)


@pytest.mark.parametrize(
    ("name", "family", "peer"),
    [
        (("10.0.0.1", 1), socket.AF_INET, "10.0.0.1"),
        (("::ffff:10.0.0.1", 1, 0, 0), socket.AF_INET6, "10.0.0.1"),
        ("", socket.AF_UNIX, UNIX_PEER),
        (None, socket.AF_UNIX, UNIX_PEER),
        (None, socket.AF_INET, ""),
        ("", socket.AF_INET, ""),
        ((), socket.AF_INET, ""),
        (("unix", 1), socket.AF_INET, ""),
        ((None, 1), socket.AF_INET, ""),
    ],
)
def test_peer_is_read_from_its_name_and_unix_from_its_family(
    name: object, family: int, peer: str
) -> None:
    """`getpeername` that failed counted as a trusted unix socket."""
    assert read_peer(a_transport(name, family)) == peer


@pytest.mark.parametrize("name", [("192.0.2.1", 1), None], ids=["stranger", "unnamed"])
async def test_stranger_is_aborted_at_accept_and_holds_no_slot(name: object) -> None:
    """R1, R43: 50 of 50 connections of a stranger kept the gateway out for 78 s."""
    gate = (await started()).gate
    port = PublicPort(gate, TRUSTED, 10, 0.0)
    for _ in range(50):
        protocol = GateProtocol(port, asyncio.get_running_loop())
        transport = FakeTransport(protocol, peername=name)
        protocol.connection_made(transport)
        protocol.data_received(CHECK)
        assert (protocol.state, transport.end) == (State.ENDED, "abort")
        assert transport.sent == b""
    assert not port.connections
    assert port.admission.refused["unnamed" if name is None else "untrusted"] == 50
    good = GateProtocol(port, asyncio.get_running_loop())
    good.connection_made(a_transport(("10.0.0.1", 1)))
    assert good.state is State.HEAD


def test_refusals_are_logged_at_a_bounded_rate(
    caplog: pytest.LogCaptureFixture,
) -> None:
    admission = Admission(TRUSTED, 10)
    for tick in (0.0, 1.0, LOG_PERIOD - 1, LOG_PERIOD, LOG_PERIOD + 1):
        with pytest.raises(UntrustedPeerError):
            admission.admit(a_transport(("192.0.2.1", 1)), tick)
    assert caplog.messages == ["wire.connection_refused"] * 2


def test_connections_are_bounded_in_all_and_per_peer() -> None:
    admission = Admission(TRUSTED, 20)
    first = a_transport(("10.0.0.1", 1))
    for _ in range(18):
        admission.admit(first, 0.0)
    with pytest.raises(CrowdedError):
        admission.admit(first, 0.0)
    second = a_transport(("10.0.0.2", 1))
    for _ in range(2):
        admission.admit(second, 0.0)
    with pytest.raises(CrowdedError):
        admission.admit(a_transport(("10.0.0.3", 1)), 0.0)
    assert admission.refused == {
        "untrusted": 0,
        "unnamed": 0,
        "peer_full": 1,
        "full": 1,
    }
    admission.release("10.0.0.1")
    assert admission.admit(first, 0.0) == "10.0.0.1"


async def test_connection_over_the_bound_is_503_and_gives_nothing_back() -> None:
    gate = (await started()).gate
    port = PublicPort(gate, TRUSTED, 1, 0.0)
    made = []
    for _ in range(3):
        protocol = GateProtocol(port, asyncio.get_running_loop())
        transport = FakeTransport(protocol, peername=("10.0.0.1", 1))
        protocol.connection_made(transport)
        made.append((protocol, transport))
    assert [transport.sent[9:12] for _, transport in made] == [b"", b"503", b"503"]
    assert [transport.end for _, transport in made] == ["", "close", "close"]
    made[1][0].connection_lost(None)
    late = GateProtocol(port, asyncio.get_running_loop())
    late.connection_made(FakeTransport(late, peername=("10.0.0.1", 1)))
    assert late.state is State.CLOSING
    made[0][0].connection_lost(None)
    made[0][0].connection_lost(None)
    good = GateProtocol(port, asyncio.get_running_loop())
    good.connection_made(FakeTransport(good, peername=("10.0.0.1", 1)))
    assert good.state is State.HEAD
