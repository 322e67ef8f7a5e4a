"""The programs' own ports, as they are served: limits, framing, and memory under
attack.

No port takes a request for another one than its sender wrote (RFC 9112). No attack
makes a program grow by more than 10 MB, on each port, on 1 and 200 connections (R44):
here each lasts a moment, with `--proof-scale=600` a minute.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.smuggling import CASES
from tests.support.processes import ProcessFactory
from tests.support.raw_http import send
from tests.support.smuggling import exchange, find_fault
from tests.support.stack import Stack
from tests.support.wire_attacks import ATTACKS, HONEST, Attack, Attackers

MOST_GROWTH = 10_000_000
#: Seconds of one attack in CI.
MOMENT = 0.1
PORTS = {
    "issuer": "issuer",
    "issuer_admin": "issuer",
    "verifier_admin": "verifier",
}
#: Where the verifier's public port answers otherwise (decision 0022): it skips no empty
#: line, and what is no check is 404 before its form is looked at. Each is still one
#: answer and the end of the connection.
OTHERWISE = {
    "an empty line": [400],
    "authority form": [404],
    "tunnel to a path": [404],
    "other protocol": [404],
}

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("served-ports")
    factory = ProcessFactory(folder)
    try:
        yield Stack.start(folder, factory)
    finally:
        factory.stop_all()


def resident(stack: Stack, program: str) -> int:
    process = getattr(stack, f"_{program}")
    pages = Path(f"/proc/{process.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    "name", ["issuer", "issuer_admin", "verifier", "verifier_admin"]
)
def test_every_port_that_is_open_has_the_limit(stack: Stack, name: str) -> None:
    """R40."""
    port = getattr(stack.addresses, name)
    assert send(port, "GET", "/healthz", [("X", "a" * 20_000)]).status == 431


@pytest.mark.parametrize("port", [*PORTS, "verifier"])
@pytest.mark.parametrize("pieces", [1, 7], ids=["one piece", "seven pieces"])
def test_requests_that_parsers_read_differently_are_refused(
    stack: Stack, port: str, pieces: int
) -> None:
    """R44, R45: cases of published smuggling."""
    address = getattr(stack.addresses, port)
    otherwise = OTHERWISE if port == "verifier" else {}
    faults = [
        find_fault(address, case, pieces)
        for case in CASES
        if case.name not in otherwise
    ]
    assert [fault for fault in faults if fault] == []
    for case in CASES:
        if case.name in otherwise:
            wanted = (otherwise[case.name], True)
            assert exchange(address, case.sent, pieces) == wanted, case.name


@pytest.mark.proof
@pytest.mark.parametrize("port", PORTS)
def test_attacks_add_little_memory(
    stack: Stack, port: str, proof_scale: int, capsys: pytest.CaptureFixture[str]
) -> None:
    address = getattr(stack.addresses, port)
    # The memory of a first request, a first document and 200 honest connections stays.
    for target in ("/metrics", "/openapi.json", "/docs", "/x") * 3:
        send(address, target=target)
    attack(address, HONEST, 200, 5 * MOMENT)
    at_rest = resident(stack, PORTS[port])
    grown = {}
    for name in ATTACKS:
        for count in (1, 200):
            grown[name, count] = (
                attack(
                    address,
                    ATTACKS[name],
                    count,
                    MOMENT * proof_scale,
                    stack,
                    PORTS[port],
                )
                - at_rest
            )
    with capsys.disabled():
        worst = max(grown, key=lambda key: grown[key])
        print(f"\n{port}: +{grown[worst] / 1e6:.1f} MB at most, by {worst}")
        if os.environ.get("SHOW_ATTACKS"):
            for key, size in grown.items():
                print(f"  {key}: +{size / 1e6:.1f} MB")
    assert {key: size for key, size in grown.items() if size > MOST_GROWTH} == {}
    assert send(address, target="/healthz").status in (200, 404)


def attack(
    address: int,
    sent: Attack,
    count: int,
    seconds: float,
    stack: Stack | None = None,
    program: str = "",
) -> int:
    """Attack for that long; return the program's memory at the end of it."""
    attackers = Attackers(address, sent, count)
    try:
        attackers.run(seconds)
        return resident(stack, program) if stack else 0
    finally:
        attackers.close()
