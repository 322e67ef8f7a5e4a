"""Several verifier processes on one socket: one gate to the outside, one set of
numbers.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections import Counter
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
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder: Path = tmp_path_factory.mktemp("workers")
    factory = ProcessFactory(folder)
    try:
        yield Stack.start(folder, factory, VERIFIER_WORKERS=str(WORKERS))
    finally:
        factory.stop_all()


@pytest.fixture
def doomed(tmp_path: Path) -> Iterator[Stack]:
    """A separate stack for the test that kills the master."""
    factory = ProcessFactory(tmp_path)
    try:
        yield Stack.start(tmp_path, factory, VERIFIER_WORKERS=str(WORKERS))
    finally:
        factory.stop_all()


def workers_of(stack: Stack) -> set[int]:
    return stack.verifier.family() - {stack.verifier.pid}


class Asker:
    """Sends checks to the gate of a stack, and counts the answers.

    Attributes:
        answers: how often each status came, since the stack was started.
    """

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.answers: Counter[int] = Counter()

    def ask(self, token: str, times: int) -> set[int]:
        """Ask that often, each time on a new connection; return the statuses seen."""
        port, seen = self.stack.addresses.verifier, set()
        for _ in range(times):
            status = send(port, "GET", "/verify/nginx", [bearer(token)]).status
            self.answers[status] += 1
            seen.add(status)
        return seen

    def are_all_ready(self, token: str) -> bool:
        """Return whether as many workers as there should be answer 200."""
        return len(workers_of(self.stack)) == WORKERS and self.ask(token, 10) == {200}


@pytest.fixture(scope="module")
def asker(stack: Stack) -> Asker:
    return Asker(stack)


def allowed(stack: Stack) -> float:
    """Return the allows counted by all workers together."""
    body = send(stack.addresses.verifier_admin, "GET", "/metrics").body.decode()
    samples = [s for f in text_string_to_metric_families(body) for s in f.samples]
    return sum(s.value for s in samples if s.labels.get("decision") == "allow")


def test_counts_of_all_workers_add_up_and_outlive_a_worker(
    stack: Stack, asker: Asker
) -> None:
    """R39."""

    seen = [0.0]

    def is_all_counted() -> bool:
        # Each worker shows its numbers to the others once a second.
        seen.append(allowed(stack))
        assert seen[-2] <= seen[-1] <= asker.answers[200]
        return seen[-1] == asker.answers[200]

    token = stack.log_in().access_token
    wait_until(lambda: asker.are_all_ready(token))
    assert asker.ask(token, CHECKS) == {200}
    wait_until(is_all_counted)
    victim = min(workers_of(stack))
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: victim not in workers_of(stack))
    wait_until(lambda: asker.are_all_ready(token))
    wait_until(is_all_counted)
    # No file is involved.
    assert not [path for path in files_of(stack) if path.endswith(".db")]


def files_of(stack: Stack) -> list[str]:
    """Return the paths of all files that the verifier's processes have open or
    mapped.
    """
    found = []
    for pid in stack.verifier.family():
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                found.append(os.readlink(link))
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            found.append(line[73:].strip())
    return found


def test_every_worker_refuses_after_a_logout(stack: Stack, asker: Asker) -> None:
    login = stack.log_in()
    wait_until(lambda: asker.are_all_ready(login.access_token))
    stack.log_out(login)
    assert asker.ask(login.access_token, 20) == {401}


def test_workers_end_when_their_master_was_killed(doomed: Stack) -> None:
    """An orphan would go on answering on the shared socket."""
    workers = workers_of(doomed)
    assert len(workers) == WORKERS
    os.kill(doomed.verifier.pid, signal.SIGKILL)
    wait_until(lambda: not any(map(is_alive, workers)))
