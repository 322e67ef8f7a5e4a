"""A verifier is killed (SIGKILL) and started again while the issuer is away.

Real processes, real files; the issuer is the simulator behind a loopback port.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shared.feed import EntryKind
from tests.support.issuer_over_http import served
from tests.support.issuer_simulator import FEED_TOKEN, IssuerSimulator
from tests.support.processes import Process, ProcessFactory, free_port, wait_until
from tests.support.raw_http import bearer, send
from tests.support.tokens import AUDIENCE, ISSUER
from verifier.sync.clock import boottime

#: Seconds: the shortest bound there is, and longer ones for a machine on which a start
#: takes longer than that.
STALENESS = (11, 30, 60)
#: As many connections as are spread over both workers for certain, near enough.
ASKED = 40
#: Starts the command behind it with files limited to that many bytes.
LIMITED = (
    "import os, resource, sys; "
    "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2); "
    "os.execv(sys.argv[2], sys.argv[2:])"
)

pytestmark = pytest.mark.processes


@dataclass
class Gate:
    """Verifiers started one after the other on one directory of disk copies."""

    factory: ProcessFactory
    folder: Path
    issuer: IssuerSimulator
    url: str
    staleness: int = STALENESS[0]

    def __post_init__(self) -> None:
        self.port, self.admin = free_port(), free_port()
        self.state = self.folder / "state"

    def start(self, *prefix: str, ready: str = "/readyz", workers: int = 1) -> Process:
        """Start a verifier; `prefix` stands before its command."""
        env = os.environ | {
            "VERIFIER_ISSUER_URL": ISSUER,
            "VERIFIER_AUDIENCE": AUDIENCE,
            "VERIFIER_JWKS_URL": f"{self.url}/.well-known/jwks.json",
            "VERIFIER_FEED_URL": f"{self.url}/revocations",
            "VERIFIER_FEED_TOKEN": FEED_TOKEN,
            "VERIFIER_BIND": f"127.0.0.1:{self.port}",
            "VERIFIER_ADMIN_BIND": f"127.0.0.1:{self.admin}",
            "VERIFIER_WORKERS": str(workers),
            "VERIFIER_STATE_DIR": str(self.state),
            "VERIFIER_MAX_STALENESS": str(self.staleness),
        }
        return self.factory.start(
            "verifier",
            (*prefix, sys.executable, "-m", "verifier"),
            env=env,
            cwd=self.folder,
            ready=lambda: send(self.admin, "GET", ready).status == 200,
        )

    def check(self, token: bytes) -> int:
        """Ask as nginx would."""
        headers = [bearer(token.decode())]
        return send(self.port, "GET", "/verify/nginx", headers).status

    def status(self) -> dict[str, Any]:
        """Return the answer of `/status`."""
        body: dict[str, Any] = send(self.admin, "GET", "/status").json()
        return body

    def readiness(self) -> list[str]:
        """Return why the verifier is not ready."""
        reasons: list[str] = send(self.admin, "GET", "/readyz").json()["reasons"]
        return reasons


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    factory = ProcessFactory(tmp_path)
    try:
        with served() as (issuer, url):
            yield Gate(factory, tmp_path, issuer, url)
            factory.stop_all()
    finally:
        factory.stop_all()


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_verifier_restarts_without_the_issuer_until_its_age_is_over(
    gate: Gate, workers: int
) -> None:
    gate.issuer.revoke(EntryKind.SID, "dead")
    good, dead = gate.issuer.mint(), gate.issuer.mint(sid="dead")
    for gate.staleness in STALENESS:
        closes_at = kill_and_start_alone(gate, good, dead, workers)
        opened = {gate.check(good) for _ in range(ASKED)}
        refused = {gate.check(dead) for _ in range(ASKED)}
        if boottime() < closes_at:
            break
        gate.factory.stop_all()
    assert boottime() < closes_at, "each start took longer than the gate may be open"
    assert opened == {200}
    assert refused == {401}
    assert len(gate.status()["workers"]) == workers
    assert gate.status()["feed"]["position"] == 1
    while boottime() <= closes_at:
        assert gate.check(good) in {200, 503}
    # Sent after the bound: from no worker a 200.
    assert {gate.check(good) for _ in range(ASKED)} == {503}
    assert gate.readiness() == ["stale"]
    gate.issuer.is_down = False
    wait_until(lambda: not gate.readiness())
    assert {gate.check(dead) for _ in range(ASKED)} == {401}
    assert len(list(gate.state.glob("gatehouse-verifier/*.copy"))) == workers


def kill_and_start_alone(gate: Gate, good: bytes, dead: bytes, workers: int) -> float:
    """Kill a verifier that has all, take its issuer away, and start it again.

    Returns:
        The boot time after which the gate must be closed.
    """
    gate.issuer.is_down = False
    verifier = gate.start(workers=workers)
    assert (gate.check(good), gate.check(dead)) == (200, 401)
    verifier.kill()
    gate.issuer.is_down = True
    # Nothing asked after this moment can be answered by the issuer any more.
    closes_at = boottime() + gate.staleness
    again = gate.start(workers=workers, ready="/healthz")
    again.wait_until(lambda: not gate.readiness() or boottime() > closes_at)
    return closes_at


def test_hung_worker_makes_the_verifier_not_ready(gate: Gate) -> None:
    """And one that was killed and came back is as ready as the others."""
    verifier = gate.start(workers=2)
    pids = {worker["pid"] for worker in gate.status()["workers"]}
    assert pids == verifier.family() - {verifier.pid}
    killed, hanging = sorted(pids)
    os.kill(killed, signal.SIGKILL)
    wait_until(
        lambda: (
            killed not in {worker["pid"] for worker in gate.status()["workers"]}
            and not gate.readiness()
        )
    )
    os.kill(hanging, signal.SIGSTOP)
    try:
        wait_until(lambda: gate.readiness() == ["stale"])
    finally:
        os.kill(hanging, signal.SIGCONT)
    wait_until(lambda: not gate.readiness())


def test_full_disk_ends_the_copy_but_not_the_checks(gate: Gate) -> None:
    good, dead = gate.issuer.mint(), gate.issuer.mint(sid="dead")
    gate.start(sys.executable, "-c", LIMITED, "30000")
    assert gate.status()["disk_copy"]["state"] == "kept"
    for n in range(1_000):
        gate.issuer.revoke(EntryKind.SID, f"some-session-{n}")
    gate.issuer.revoke(EntryKind.SID, "dead")
    wait_until(lambda: gate.check(dead) == 401)
    assert gate.check(good) == 200
    assert gate.status()["disk_copy"]["state"] == "lost"
    assert gate.status()["feed"]["position"] == 1_001
    assert list(gate.state.glob("gatehouse-verifier/*.copy")) == []
    metrics = send(gate.admin, "GET", "/metrics").body
    assert b"gatehouse_verifier_disk_copy -1.0" in metrics
    assert gate.readiness() == []
