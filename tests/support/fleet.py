"""The fleet of the benchmarks, with relays between its parts and a watch over it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from loadtests.support.fleet import Fleet as FleetOfPrograms
from loadtests.support.fleet import Gate as Gate
from loadtests.support.fleet import Revoked as Revoked
from loadtests.support.fleet import Secrets as Secrets
from loadtests.support.fleet import prepare as prepare
from loadtests.support.processes import Process, free_port
from tests.support.promise_watch import PromiseWatch

_ROOT = Path(__file__).parents[2]


class Fleet(FleetOfPrograms):
    """Issuers and verifiers as real processes, which tests disturb one by one."""

    def add_relay(
        self,
        name: str,
        to: str,
        *options: str,
        host: str = "127.0.0.1",
        prefix: Sequence[str] = (),
        port: int = 0,
    ) -> tuple[int, Process]:
        """Start a relay to `HOST:PORT`; return its port and its process."""
        port = port or free_port()
        command = (sys.executable, "-m", "tests.support.tcp_relay")
        places = ("--listen", f"{host}:{port}", "--to", to)
        process = self.factory.start(
            name, (*prefix, *command, *places, *options), cwd=_ROOT
        )
        return port, process

    def watch(self) -> PromiseWatch:
        """Return a watch over all verifiers there are."""
        return PromiseWatch({gate.name: gate.address for gate in self.gates.values()})
