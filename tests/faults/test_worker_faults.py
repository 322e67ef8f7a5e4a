"""Trouble of one worker or of its outputs costs no check (R47, R48).

Behind real gateways, under load: each fault once here and as often as `--proof-scale`
says, 20 times for the table of issue 12. In a whole proof a worker hangs, too, which
takes 30 s each to be seen.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.installed_gateways import require
from tests.support.mounts import small_disk
from tests.support.paused_log import PausedLog
from tests.support.processes import Process, ProcessFactory, free_port
from tests.support.proofs import is_whole
from tests.support.raw_http import send
from tests.support.stack import Stack
from tests.support.survival import GATEWAYS, Load, Request, Supervised, Tokens, repeat

pytestmark = [pytest.mark.processes, pytest.mark.proof]
#: Answers that must come while a log pipe is blocked.
ANSWERS_MEANWHILE = 200


class Faults:
    """A verifier of two workers, and the faults it must survive.

    Attributes:
        program: the verifier.
        load: the threads that send requests through the gateway during the faults.
    """

    def __init__(self, stack: Stack, factory: ProcessFactory, disk: Path) -> None:
        self._folder = stack.installation.var
        self._stack = stack
        self._disk = disk
        self._authorities = self._folder / "ca.pem"
        self._authorities.write_bytes(Authority().certificate)
        # Earlier versions kept their counts there, and it may still be set.
        self._metrics = self._folder / "metrics"
        self._metrics.mkdir()
        self.port, self.admin, self.grpc = free_port(), free_port(), free_port()
        self._log = PausedLog(self._folder / "log", self._folder / "verifier-copy.log")
        self._env = {
            **stack.installation.verifier_env,
            "VERIFIER_BIND": f"127.0.0.1:{self.port}",
            "VERIFIER_ADMIN_BIND": f"127.0.0.1:{self.admin}",
            "VERIFIER_GRPC_BIND": f"127.0.0.1:{self.grpc}",
            "VERIFIER_WORKERS": "2",
            "VERIFIER_STATE_DIR": str(disk / "state"),
            "VERIFIER_CA_FILE": str(self._authorities),
            "PROMETHEUS_MULTIPROC_DIR": str(self._metrics),
            "LOG": str(self._log.path),
        }
        self._factory = factory
        self.load: Load | None = None

    def __enter__(self) -> Faults:
        self._log.__enter__()
        self.program = Supervised(self._start, self._start(), log=self._read_log)
        return self

    def __exit__(self, *of_error: object) -> None:
        self._log.unblock()
        self.program.process.terminate()
        self._log.__exit__(None, None, None)

    def _start(self) -> Process:
        command = (sys.executable, "-m", "verifier")
        return self._factory.start(
            "verifier",
            ("sh", "-c", 'exec "$@" 2>"$LOG"', "sh", *command),
            env=self._env,
            cwd=self._folder,
            ready=lambda: send(self.admin, "GET", "/readyz").status == 200,
        )

    def _read_log(self) -> str:
        return (self._folder / "verifier-copy.log").read_text(errors="replace")

    def metrics_directory_removed(self) -> None:
        shutil.rmtree(self._metrics)
        self.program.kill_worker()
        self._metrics.mkdir()

    def disk_full(self) -> None:
        filler = self._disk / "filler"
        with filler.open("wb") as file:
            try:
                while True:
                    os.write(file.fileno(), bytes(4_096))
            except OSError:
                pass
        # This entry finds no room, and the worker that starts has no copy to write.
        self._stack.log_out(self._stack.log_in())
        self.program.kill_worker()
        filler.unlink()

    def ca_file_missing(self) -> None:
        away = self._authorities.rename(self._folder / "away.pem")
        self.program.kill_worker()
        away.rename(self._authorities)

    def log_pipe_blocked(self) -> None:
        assert self.load is not None
        load = self.load
        self._log.block()
        before = load.answers.total()
        self.program.process.wait_until(
            lambda: load.answers.total() > before + ANSWERS_MEANWHILE,
            what="answers while the log is blocked",
        )
        self._log.unblock()

    def worker_hung(self) -> None:
        self.program.hang_worker()


FAULTS = (
    "metrics_directory_removed",
    "disk_full",
    "ca_file_missing",
    "log_pipe_blocked",
    *(("worker_hung",) if is_whole() else ()),
)


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessFactory]:
    made = ProcessFactory(tmp_path_factory.mktemp("worker-faults"))
    yield made
    made.stop_all()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, factory: ProcessFactory) -> Stack:
    return Stack.start(tmp_path_factory.mktemp("worker-faults-stack"), factory)


@pytest.fixture(scope="module")
def faults(stack: Stack, factory: ProcessFactory) -> Iterator[Faults]:
    with small_disk("2m") as disk, Faults(stack, factory, disk) as made:
        yield made


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("gateway", GATEWAYS)
def test_no_check_fails_when_a_worker_is_in_trouble(
    stack: Stack,
    faults: Faults,
    gateway: str,
    fault: str,
    proof_scale: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    require(gateway)
    running = stack.start_gateway(
        gateway,
        "worker-faults",
        verifier=faults.port,
        second_verifier=stack.addresses.verifier,
        grpc_verifier=faults.grpc,
        second_grpc_verifier=stack.addresses.grpc_verifier,
    )
    tokens, turns = Tokens(stack), itertools.count()

    def ask() -> Request:
        # Every second one is refused, so that there are lines to log.
        is_bad = next(turns) % 2 == 0
        token = "x.y.z" if is_bad else tokens()
        headers = {"Authorization": f"Bearer {token}"}
        return Request("GET", "/orders", headers, b"", 401 if is_bad else 200)

    faults.load = Load(running.port, ask)
    failures = repeat(getattr(faults, fault), proof_scale, faults.load)
    with capsys.disabled():
        summary = faults.load.summary()
        print(f"\n{gateway}: {fault} x{proof_scale}: {summary}", flush=True)
    assert failures == []
