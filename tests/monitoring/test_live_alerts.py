"""The shipped alerts fire and clear in a real Prometheus, for real faults."""

from __future__ import annotations

import contextlib
import itertools
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.monitoring import queries
from tests.support.processes import ProcessFactory
from tests.support.prometheus import Prometheus
from tests.support.raw_http import post_json, send
from tests.support.stack import Stack

pytestmark = pytest.mark.processes

#: More than what a verifier opens itself; a fifth is left to other peers.
CONNECTIONS = 60
#: At once: one is hashed, and the others wait. One more than 33 would be refused, at
#: once: on a quick machine these were so many that the rest was no slow share.
LOGINS = 32
POLICIES = "[policies.default]\n"


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessFactory]:
    factory = ProcessFactory(tmp_path_factory.mktemp("logs"))
    yield factory
    factory.stop_all()


@pytest.fixture(scope="module")
def policy_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("policies") / "policies.toml"
    path.write_text(POLICIES)
    return path


@pytest.fixture(scope="module")
def stack(
    tmp_path_factory: pytest.TempPathFactory,
    factory: ProcessFactory,
    policy_file: Path,
) -> Stack:
    folder = tmp_path_factory.mktemp("stack")
    return Stack.start(
        folder,
        factory,
        # The alert is about the default queue: with one thread it fills anywhere.
        ISSUER_HASH_WORKERS="1",
        ISSUER_BCRYPT_COST="11",
        ISSUER_LOGIN_SOURCE_FREE_FAILURES="100000",
        VERIFIER_MAX_STALENESS="11",
        VERIFIER_POLICY_FILE=str(policy_file),
        VERIFIER_STATE_DIR=str(folder),
        VERIFIER_TRUSTED_PEERS="127.0.0.1",
        VERIFIER_MAX_CONNECTIONS=str(CONNECTIONS),
    )


@pytest.fixture(scope="module")
def prometheus(
    tmp_path_factory: pytest.TempPathFactory, factory: ProcessFactory, stack: Stack
) -> Prometheus:
    """Scrapes all, and nothing is wrong."""
    folder = tmp_path_factory.mktemp("prometheus")
    prometheus = Prometheus(folder, factory, stack.addresses)
    jobs = ("gatehouse-issuer", "gatehouse-verifier", "gatehouse-readyz")
    prometheus.await_scrapes(jobs)
    prometheus.await_clear()
    return prometheus


def check(stack: Stack) -> int:
    """Ask the verifier as a gateway does; return the status."""
    return send(stack.addresses.verifier, "GET", "/verify/nginx").status


def log_in(stack: Stack, name: str) -> int:
    """Try a password that is not theirs; return the status."""
    account = {"username": name, "password": "no password of theirs"}
    return post_json(stack.addresses.issuer, "/auth/login", account).status


@contextlib.contextmanager
def repeated(act: Callable[[int], object], times: int) -> Iterator[None]:
    """Within, this many callers act again and again, each with numbers of its own."""
    is_over = threading.Event()

    def go_on(caller: int) -> None:
        for number in itertools.count(caller, times):
            act(number)
            if is_over.wait(0.05):
                return

    with ThreadPoolExecutor(times) as pool:
        callers = [pool.submit(go_on, caller) for caller in range(times)]
        try:
            yield
        finally:
            is_over.set()
        for caller in callers:
            caller.result()


def connect(stack: Stack, source: str, sent: bytes = b"") -> socket.socket:
    """Return a connection to the verifier's public port."""
    port = stack.addresses.verifier
    opened = socket.create_connection(("127.0.0.1", port), 10, (source, 0))
    opened.sendall(sent)
    return opened


def test_prometheus_can_read_every_query(prometheus: Prometheus) -> None:
    for query in queries().values():
        prometheus.ask("query", query=query)


def test_the_issuer_is_away_and_a_verifier_has_trouble_of_its_own(
    stack: Stack, prometheus: Prometheus, policy_file: Path
) -> None:
    """Together, since stale revocations are waited for: 11 s are the least."""
    stack.kill_issuer()
    policy_file.write_text("[policies.default\n")
    with contextlib.suppress(OSError):
        connect(stack, "127.0.0.2").close()
    for _ in range(20):
        connect(stack, "127.0.0.1", b"no request\r\n\r\n").close()
    with contextlib.ExitStack() as opened:
        for _ in range(CONNECTIONS + 5):
            opened.enter_context(connect(stack, "127.0.0.1"))
        prometheus.await_firing(
            "GatehouseIssuerDown",
            "GatehouseIssuerInstanceDown",
            "GatehouseNotReady",
            "GatehousePolicyFileDiffers",
            "GatehouseReloadKept",
            "GatehouseUntrustedPeers",
            "GatehouseWireFaults",
            "GatehouseConnectionsRefused",
        )
    policy_file.write_text(POLICIES)
    with repeated(lambda _: check(stack), 1):
        prometheus.await_firing(
            "GatehouseRevocationsLate",
            "GatehouseRevocationsStale",
            "GatehouseGateBudgetFast",
            "GatehouseGateBudgetSlow",
        )
    stack.start_issuer()
    prometheus.await_clear()


def test_a_verifier_loses_its_disk_and_then_itself(
    stack: Stack, prometheus: Prometheus
) -> None:
    # No file of it may grow, as on a full disk.
    resource.prlimit(stack.verifier.pid, resource.RLIMIT_FSIZE, (1, 1))
    stack.confirm_all_ended()
    prometheus.await_firing("GatehouseDiskCopyLost")
    with stack.verifier_replaced():
        prometheus.await_firing("GatehouseVerifierDown", "GatehouseNotReady")
    prometheus.await_clear()


def test_the_issuer_is_overrun(stack: Stack, prometheus: Prometheus) -> None:
    with repeated(lambda number: log_in(stack, f"user{number}"), LOGINS):
        prometheus.await_firing("GatehouseHashingQueueFull", "GatehouseLoginBudgetFast")
    prometheus.await_clear()
