"""A real issuer, `native`, and an Envoy with four workers, each to be broken."""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from loadtests.bench.servers import status
from loadtests.bench_native.configs import native_config
from loadtests.bench_revocation.entries import fill
from loadtests.bench_revocation.environment import Environment
from loadtests.support.fleet import NATIVE_STALENESS, Fleet, Gate, prepare
from loadtests.support.processes import (
    Process,
    ProcessFactory,
    free_port,
    is_listening,
    wait_until,
)

#: Envoy's workers.
WORKERS = 4
#: Seconds in which a large list is in force.
_LOAD_TIME = 180.0


@dataclass
class NativeSite:
    """All programs, running.

    Attributes:
        environment: the issuer, and the calls to it.
        folder: for configurations and sockets.
        port: where Envoy listens.
        envoy: its process; in a hot restart the newest.
        workers: of Envoy.
        epoch: of hot restarts.
    """

    environment: Environment
    folder: Path
    port: int
    workers: int
    envoy: Process | None = None
    epoch: int = 0

    @property
    def fleet(self) -> Fleet:
        """The issuer and `native`."""
        return self.environment.fleet

    @property
    def native(self) -> Gate:
        """The place of `native`."""
        return self.fleet.gates["native"]

    def start_envoy(self) -> Process:
        """Start Envoy; return once it listens, perhaps without filters of ours."""
        self.epoch = 0
        (self.folder / "base-id").unlink(missing_ok=True)
        base = ("--use-dynamic-base-id", "--base-id-path", self.folder / "base-id")
        return self._run_envoy(*base)

    def reload_envoy(self) -> Process:
        """Start the next Envoy, which takes over from this one (hot restart)."""
        self.epoch += 1
        base = (self.folder / "base-id").read_text()
        return self._run_envoy(
            *("--base-id", base, "--restart-epoch", str(self.epoch)),
            *("--drain-time-s", "1", "--parent-shutdown-time-s", "2"),
        )

    def _run_envoy(self, *options: str | Path) -> Process:
        program = Path(sys.executable).parent / "envoy"
        command = (program, "-c", self.folder / "envoy.json", "-l", "error")
        self.envoy = self.environment.factory.start(
            "envoy",
            (*command, "--concurrency", str(self.workers), *options),
            ready=lambda: is_listening(self.port),
        )
        return self.envoy

    def start_native(self) -> None:
        """Start `native` for the first time; return once it has its list."""
        self.fleet.add_gate(
            "native",
            keeps_copy=True,
            words=("native", "envoy"),
            settings={
                "VERIFIER_ENVOY_BIND": f"unix:{self.folder}/native.sock",
                "VERIFIER_ENVOY_ADMIN": f"unix:{self.folder}/envoy-admin.sock",
                "VERIFIER_START_WAIT": "60",
                "VERIFIER_MAX_STALENESS": str(NATIVE_STALENESS),
            },
        )

    def wait_until_open(self) -> None:
        """Return once Envoy lets a good token pass."""
        token = asyncio.run(self._one_token())
        shown = {"Authorization": f"Bearer {token}"}
        wait_until(
            lambda: status(self.port, "/", shown) == 200,
            deadline=_LOAD_TIME,
            interval=0.005,
            what="Envoy lets a token pass",
        )

    async def _one_token(self) -> str:
        (token,) = await self.environment.mint(1)
        # The next event loop opens connections of its own.
        self.environment.issuer.close()
        return token


@contextmanager
def running(entries: int, *, workers: int = WORKERS) -> Iterator[NativeSite]:
    """Run an issuer with so many entries for the length of the block.

    The caller starts the others; all of it is stopped at the end. Envoy asks for its
    filters at `envoy-xds.sock`; `native` serves them at `native.sock`, to which that is
    a link at first.
    """
    with ExitStack() as stack:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="gatehouse-bench-"))
        )
        url = f"sqlite+aiosqlite:///{folder / 'issuer.db'}"
        factory = ProcessFactory(folder)
        stack.callback(factory.stop_all)
        secrets = prepare(url, folder)
        if entries:
            asyncio.run(fill(url, entries, is_mixed=True))
        fleet = Fleet(folder, factory, url, secrets)
        fleet.issuer_env["ISSUER_LOG_LEVEL"] = "error"
        fleet.start_issuer()
        environment = Environment(fleet, factory, url, secrets.client)
        port = free_port()
        native_config(folder, port)
        (folder / "envoy-xds.sock").symlink_to(folder / "native.sock")
        yield NativeSite(environment, folder, port, workers)
