"""A real issuer, `native`, and a gateway, each to be broken."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from loadtests.bench.servers import status
from loadtests.bench_native.gateways import Gateway, MakeGateway
from loadtests.bench_revocation.entries import fill
from loadtests.bench_revocation.environment import Environment
from loadtests.support.fleet import NATIVE_STALENESS, Fleet, Gate, prepare
from loadtests.support.processes import ProcessFactory, wait_until

#: Seconds in which a large list is in force.
_LOAD_TIME = 180.0


@dataclass
class NativeSite:
    """All programs.

    Attributes:
        environment: the issuer, and the calls to it.
        gateway: beside `native`.
    """

    environment: Environment
    gateway: Gateway

    @property
    def fleet(self) -> Fleet:
        """The issuer and `native`."""
        return self.environment.fleet

    @property
    def native(self) -> Gate:
        """The place of `native`."""
        return self.fleet.gates["native"]

    def start(self) -> None:
        """Start `native` and the gateway; return when that is open."""
        self.start_native()
        self.gateway.start()
        self.wait_until_open()

    def start_native(self) -> None:
        """Start `native` for the first time; return once it has its list."""
        self.fleet.add_gate(
            "native",
            keeps_copy=True,
            words=("native", self.gateway.kind),
            settings={
                **self.gateway.settings,
                "VERIFIER_START_WAIT": "60",
                "VERIFIER_MAX_STALENESS": str(NATIVE_STALENESS),
            },
        )

    def wait_until_open(self) -> None:
        """Return once the gateway lets a good token pass."""
        token = asyncio.run(self._one_token())
        shown = {"Authorization": f"Bearer {token}"}
        wait_until(
            lambda: status(self.gateway.port, "/", shown) == 200,
            deadline=_LOAD_TIME,
            interval=0.005,
            what=f"{self.gateway.name} lets a token pass",
        )

    async def _one_token(self) -> str:
        (token,) = await self.environment.mint(1)
        # The next event loop opens connections of its own.
        self.environment.issuer.close()
        return token


@contextmanager
def running(entries: int, make_gateway: MakeGateway) -> Iterator[NativeSite]:
    """Run an issuer with so many entries for the length of the block.

    The caller starts the others; all of it is stopped at the end.

    Args:
        entries: that are in force.
        make_gateway: makes the gateway.
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
        gateway = make_gateway(factory, folder)
        gateway.link.path.symlink_to(gateway.link.socket)
        yield NativeSite(environment, gateway)
