"""Several verifier processes on one socket: one gate to the outside, one set of numbers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.processes import ProcessFactory, is_alive, wait_until
from tests.support.raw_http import bearer, send
from tests.support.stack import Stack

WORKERS = 2
CHECKS = 40

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder: Path = tmp_path_factory.mktemp("workers")
    factory = ProcessFactory(folder)
    try:
        yield Stack.start(folder, factory, VERIFIER_WORKERS=str(WORKERS))
    finally:
        factory.stop_all()


@pytest.fixture
def doomed(tmp_path: Path) -> Iterator[Stack]:
    """A house of its own for the test that kills the master."""
    factory = ProcessFactory(tmp_path)
    try:
        yield Stack.start(tmp_path, factory, VERIFIER_WORKERS=str(WORKERS))
    finally:
        factory.stop_all()


def workers_of(house: Stack) -> set[int]:
    return house.verifier.family() - {house.verifier.pid}


def ask(house: Stack, token: str, times: int) -> set[int]:
    """Ask that often, each time on a new connection; return the statuses seen."""
    headers = [bearer(token)]
    port = house.addresses.verifier
    return {send(port, "GET", "/verify/nginx", headers).status for _ in range(times)}


def allowed(house: Stack) -> float:
    """Return the allows counted by all workers together."""
    body = send(house.addresses.verifier_admin, "GET", "/metrics").body.decode()
    for family in text_string_to_metric_families(body):
        for sample in family.samples:
            if sample.labels.get("decision") == "allow":
                return sample.value
    return 0.0


def all_ready(house: Stack, token: str) -> bool:
    return len(workers_of(house)) == WORKERS and ask(house, token, 10) == {200}


def test_counts_of_all_workers_add_up_and_outlive_a_worker(house: Stack) -> None:
    """R39."""
    token = house.log_in().access_token
    wait_until(lambda: all_ready(house, token))
    # Each worker moves its numbers into the shared files once a second.
    counts: list[float] = []

    def is_settled() -> bool:
        time.sleep(0.5)
        counts.append(allowed(house))
        return counts[-1] > 0 and len(set(counts[-5:])) == 1 and len(counts) >= 5

    wait_until(is_settled, deadline=30)
    before = counts[-1]
    assert ask(house, token, CHECKS) == {200}
    wait_until(lambda: allowed(house) == before + CHECKS)
    victim = min(workers_of(house))
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: victim not in workers_of(house))
    wait_until(lambda: all_ready(house, token))
    wait_until(lambda: allowed(house) >= before + CHECKS)


def test_every_worker_refuses_after_a_logout(house: Stack) -> None:
    login = house.log_in()
    wait_until(lambda: all_ready(house, login.access_token))
    headers = [bearer(login.access_token)]
    answer = send(house.addresses.issuer, "POST", "/auth/logout", headers)
    assert answer.status == 200, answer
    wait_until(lambda: ask(house, login.access_token, 10) == {401}, deadline=1.0)


def test_workers_end_when_their_master_was_killed(doomed: Stack) -> None:
    """An orphan would go on answering on the shared socket."""
    workers = workers_of(doomed)
    assert len(workers) == WORKERS
    os.kill(doomed.verifier.pid, signal.SIGKILL)
    wait_until(lambda: not any(map(is_alive, workers)))
