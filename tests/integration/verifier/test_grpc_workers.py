"""The gRPC port of a running verifier: workers, replacements, reloads, the stop."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.support.grpc_checks import CHECK, check_message, read_verdict
from tests.support.processes import ProcessFactory, wait_until
from tests.support.raw_http import send
from tests.support.stack import Stack

pytestmark = pytest.mark.processes

WORKERS = 2
DEADLINE = 10.0
OPTIONS = [("grpc.enable_http_proxy", 0)]


class GrpcStack:
    """A stack whose verifier listens for gRPC."""

    def __init__(self, folder: Path, factory: ProcessFactory, **settings: str) -> None:
        self.stack = Stack.start(folder, factory, **settings)
        self.target = self.stack.installation.verifier_env["VERIFIER_GRPC_BIND"]
        self.token = self.stack.log_in().access_token

    def message(self, **fields: Any) -> bytes:
        return check_message(self.token.encode(), **fields)

    def ask(self, message: bytes) -> int:
        """Return the status of a check on a connection of its own."""
        with grpc.insecure_channel(self.target, options=OPTIONS) as channel:
            answer = channel.unary_unary(CHECK)(message, timeout=DEADLINE)
            return read_verdict(answer).status

    def reasons(self) -> list[str]:
        """Return why the verifier is not ready."""
        admin = self.stack.addresses.verifier_admin
        reasons: list[str] = send(admin, "GET", "/readyz").json()["reasons"]
        return reasons

    def workers(self) -> set[int]:
        return self.stack.verifier.family() - {self.stack.verifier.pid}


@pytest.fixture
def factory(tmp_path: Path) -> Iterator[ProcessFactory]:
    factory = ProcessFactory(tmp_path)
    yield factory
    factory.stop_all()


#: After these the shipped config of Envoy asks once more.
RETRIED = {grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE}


class Traffic:
    """Asks on one connection until it is stopped, and counts the answers."""

    def __init__(self, grpc_stack: GrpcStack) -> None:
        self.seen: Counter[str] = Counter()
        self._stack = grpc_stack
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Traffic:
        self._thread.start()
        wait_until(lambda: self.seen["200"] > 20)
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        message = self._stack.message()
        with grpc.insecure_channel(self._stack.target, options=OPTIONS) as channel:
            check = channel.unary_unary(CHECK)

            def ask(tries: int) -> str:
                try:
                    answer = check(message, timeout=DEADLINE, wait_for_ready=True)
                except grpc.RpcError as error:
                    is_retried = tries and error.code() in RETRIED
                    return ask(tries - 1) if is_retried else str(error.code())
                return str(read_verdict(answer).status)

            while not self._is_over.is_set():
                self.seen[ask(1)] += 1


def test_workers_are_replaced_and_files_read_again_while_checks_go_on(
    tmp_path: Path, factory: ProcessFactory
) -> None:
    """R60, R65: USR2 loses no check; HUP is in force for gRPC, too."""
    policies = tmp_path / "policies.toml"
    policies.write_text("[policies.default]\n")
    served = GrpcStack(
        tmp_path,
        factory,
        VERIFIER_WORKERS=str(WORKERS),
        VERIFIER_POLICY_FILE=str(policies),
        VERIFIER_POLICY_WATCH="0",
    )
    with Traffic(served) as traffic:
        before = served.workers()
        os.kill(served.stack.verifier.pid, signal.SIGUSR2)
        wait_until(lambda: len(served.workers() - before) == WORKERS, deadline=60)
        wait_until(lambda: not served.workers() & before, deadline=60)
        assert served.reasons() == []
        seen = traffic.seen["200"]
        wait_until(lambda: traffic.seen["200"] > seen + 20)
    assert set(traffic.seen) == {"200"}
    policies.write_text('[policies.default]\nrequired_scopes = ["nobody:has-this"]\n')
    os.kill(served.stack.verifier.pid, signal.SIGHUP)
    wait_until(lambda: {served.ask(served.message()) for _ in range(10)} == {403})
    metrics = send(served.stack.addresses.verifier_admin, "GET", "/metrics").body
    for labels in (
        b'decision="allow",policy="default",reason=""',
        b'decision="deny",policy="default",reason="scope_insufficient"',
    ):
        assert labels in metrics


def test_r60_a_stop_turns_unready_first_and_answers_meanwhile(
    tmp_path: Path, factory: ProcessFactory
) -> None:
    served = GrpcStack(tmp_path, factory, VERIFIER_DRAIN_DELAY="2")
    message = served.message()
    assert served.ask(message) == 200
    os.kill(served.stack.verifier.pid, signal.SIGTERM)
    wait_until(lambda: served.reasons() == ["draining"])
    assert served.ask(message) == 200
    wait_until(lambda: served.stack.verifier.exit_code is not None, deadline=60)
    assert served.stack.verifier.exit_code == 0
    with pytest.raises(grpc.RpcError):
        served.ask(message)


def test_a_unix_socket_is_served_and_removed(
    tmp_path: Path, factory: ProcessFactory
) -> None:
    path = tmp_path / "grpc.sock"
    served = GrpcStack(tmp_path, factory, VERIFIER_GRPC_BIND=f"unix:{path}")
    assert served.ask(served.message()) == 200
    os.kill(served.stack.verifier.pid, signal.SIGTERM)
    wait_until(lambda: served.stack.verifier.exit_code is not None, deadline=60)
    assert not path.exists()


def test_r38_a_logout_that_is_confirmed_holds_for_grpc(
    tmp_path: Path, factory: ProcessFactory
) -> None:
    served = GrpcStack(tmp_path, factory)
    login = served.stack.log_in()
    message = check_message(login.access_token.encode())
    assert served.ask(message) == 200
    served.stack.log_out(login)
    assert served.ask(message) == 401
