"""A verifier that is stopped (SIGTERM) sends a goodbye: no confirmation waits for it.

Real processes, asked all the while about each token. A violation is a 200 to a request
that was sent after the answer `confirmed: true` for its token had come. `make proof`
makes 20 times as many trials.
"""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.fleet import Fleet, Gate, Secrets, prepare
from tests.support.processes import Process, ProcessFactory, wait_until
from tests.support.trials import Trials, running, wait_for_none

Tell = Callable[[str, str], None]

pytestmark = [pytest.mark.processes, pytest.mark.proof]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Secrets]:
    """A SQLite database that is prepared, to be copied."""
    path = tmp_path_factory.mktemp("template") / "issuer.db"
    return path, prepare(f"sqlite+aiosqlite:///{path}", path.parent)


@pytest.fixture
def fleet(
    tmp_path: Path, factory: ProcessFactory, template: tuple[Path, Secrets]
) -> Fleet:
    """One issuer on SQLite; the verifiers are each test's own."""
    path, secrets = template
    for file in path.parent.glob("issuer.db*"):
        shutil.copy(file, tmp_path)
    url = f"sqlite+aiosqlite:///{tmp_path / 'issuer.db'}"
    fleet = Fleet(tmp_path, factory, url, secrets)
    fleet.start_issuer()
    return fleet


@pytest.fixture
def trials(fleet: Fleet) -> Iterator[Trials]:
    """One verifier of two workers that keep copies; tokens are asked about."""
    fleet.add_gate("stopped", keeps_copy=True, workers=2)
    with running(fleet) as trials:
        yield trials


def process_of(gate: Gate) -> Process:
    assert gate.process is not None
    return gate.process


def stop(gate: Gate) -> None:
    assert process_of(gate).terminate() == 0


def is_confirmed_at_once(trials: Trials) -> bool:
    """Revoke a token without waiting for anybody; return whether it is confirmed."""
    (name,) = trials.mint()
    return trials.revoke(name, wait=0).is_confirmed


def test_confirmation_does_not_wait_for_a_verifier_stopped_under_traffic(
    fleet: Fleet, trials: Trials, scale: int, tell: Tell
) -> None:
    """R18: revoked before, while and after it stops, and refused by its successor.

    Also before that one has received anything from the issuer.
    """
    gate, issuer = fleet.gates["stopped"], fleet.replicas[0].process
    assert issuer is not None
    for _ in range(2 * scale):
        names = trials.mint(6)
        trials.wait_for(200, names[-1])
        calls = [trials.confirm(name) for name in names[:2]]
        wait_for_none(0)
        process_of(gate).send_signal(signal.SIGTERM)
        for name in names[2:5]:
            wait_for_none(random.uniform(0, 0.1))
            calls.append(trials.confirm(name))
        assert process_of(gate).wait_for_exit() == 0
        # At once: no verifier is left that could answer 200.
        assert is_confirmed_at_once(trials)
        assert trials.revoke(names[5], wait=0).is_confirmed
        assert all(call.result().is_confirmed for call in calls)
        issuer.send_signal(signal.SIGSTOP)
        try:
            fleet.start_gate(gate, ready="/healthz")
            trials.ask_on()
        finally:
            issuer.send_signal(signal.SIGCONT)
        trials.wait_for(200)
        trials.wait_for(401, names[5])
        trials.ask_on()
    tell("clean stop", trials.verdict(confirmed_at_least=14 * scale))


def test_confirmation_does_not_wait_for_replaced_workers(
    fleet: Fleet, trials: Trials, tell: Tell
) -> None:
    """A new worker shares the directory with the old ones until those stop."""
    gate = fleet.gates["stopped"]
    process = process_of(gate)
    old = process.family()
    process.send_signal(signal.SIGUSR2)
    wait_until(
        lambda: len(process.family()) == 3 and len(process.family() & old) == 1,
        what="two new workers instead of the old",
    )
    wait_until(
        lambda: process.log().count('"supervisor.replaced"') == 1,
        what="the new workers follow",
    )
    trials.wait_for(200)
    (name,) = trials.mint()
    followers = trials.revoke(name, wait=0).body["followers"]
    assert followers["confirmed"] + len(followers["pending"]) == 2
    assert trials.confirm(name).result().is_confirmed
    trials.ask_on()
    tell("replaced", trials.verdict(confirmed_at_least=1))


def test_confirmation_waits_for_a_killed_verifier_until_its_lease_ends(
    fleet: Fleet, trials: Trials, tell: Tell
) -> None:
    """It sends nothing, so its disk copy keeps its age, and the issuer its row."""
    gate = fleet.gates["stopped"]
    process_of(gate).kill()
    assert not is_confirmed_at_once(trials)
    (name,) = trials.mint()
    waiting = trials.confirm(name)
    wait_for_none(1, waiting)
    fleet.start_gate(gate)
    assert waiting.result().is_confirmed
    trials.wait_for(200)
    trials.wait_for(401, name)
    trials.ask_on()
    tell("killed", trials.verdict(confirmed_at_least=1))


def test_unresponsive_issuer_does_not_delay_the_stop(
    fleet: Fleet, trials: Trials, tell: Tell
) -> None:
    """And the goodbye arrives late, when the successor follows already."""
    gate, issuer = fleet.gates["stopped"], fleet.replicas[0].process
    assert issuer is not None
    issuer.send_signal(signal.SIGSTOP)
    try:
        stop(gate)
        assert process_of(gate).log().count('"feed.goodbye_failed"') == 2
        fleet.start_gate(gate, ready="/healthz")
        # Its copy is void, because the goodbye may have arrived.
        trials.wait_for(503)
    finally:
        issuer.send_signal(signal.SIGCONT)
    trials.wait_for(200)
    (name,) = trials.mint()
    assert trials.confirm(name).result().is_confirmed
    trials.ask_on()
    tell("late goodbye", trials.verdict(confirmed_at_least=1))


def test_verifier_stopped_in_an_outage_sends_no_goodbye(fleet: Fleet) -> None:
    """Its copy keeps its age, as after a crash
    (`tests/unit/verifier/test_goodbye.py`).
    """
    gate = fleet.add_gate("stopped", keeps_copy=True)
    token = fleet.mint()
    fleet.kill_issuer()
    wait_until(lambda: '"source":"feed"' in process_of(gate).log(), what="a failure")
    stop(gate)
    assert "goodbye" not in process_of(gate).log()
    fleet.start_issuer()
    assert not fleet.revoke(token, wait=0).is_confirmed
