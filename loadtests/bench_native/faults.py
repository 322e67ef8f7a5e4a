"""Confirmed revocations through a gateway with four workers, under load and faults.

Each revocation that the issuer answers `confirmed` is tried at once, over connections
that were there before, over new ones, and with a request that was begun before it. None
of them may pass.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar

from tqdm import tqdm

from loadtests.bench.servers import BenchError
from loadtests.bench_native.gateways import MakeGateway
from loadtests.bench_native.probes import Prober
from loadtests.bench_native.relay import Relay
from loadtests.bench_native.site import NativeSite, running
from loadtests.bench_revocation.measures import Figure, figures_of
from loadtests.support.processes import eventually

Result = TypeVar("Result")

_CALLERS: Final = 12
#: Seconds of a call, at most.
_WAIT: Final = 10
#: Connections of the load.
_LOAD: Final = 8
#: Seconds between two faults, at least.
_REST: Final = 2.0
#: Seconds of the short faults, and of those that outlast the window of 13 s.
_SHORT, _LONG = 2.0, 16.0
#: Seconds of one run for a thousand revocations, at most.
_MAX_SECONDS: Final = 1_200.0
#: Tokens that are made at one time.
_TOKENS: Final = 200


@dataclass
class Outcome:
    """What came of the revocations.

    Attributes:
        confirmed: seconds of each confirmed call.
        pending: calls answered without a confirmation.
        unseen: confirmed ones whose token was not seen to pass before.
        probes: requests after a confirmation.
        passes: those that were let through.
        by_fault: confirmed and pending calls that were sent in each fault.
    """

    confirmed: list[float] = field(default_factory=list)
    pending: int = 0
    unseen: int = 0
    probes: int = 0
    passes: list[str] = field(default_factory=list)
    by_fault: defaultdict[str, list[int]] = field(
        default_factory=lambda: defaultdict(lambda: [0, 0])
    )


class Trial:
    """One run.

    Args:
        site: all programs.
        wanted: confirmed revocations.
        faults: seconds of the short and of the long ones.
    """

    def __init__(
        self, site: NativeSite, wanted: int, faults: tuple[float, float]
    ) -> None:
        self._site = site
        self._wanted = wanted
        self._short, self._long = faults
        self._gateway = site.gateway
        self._current = "none"
        self._is_stopped = False
        self._rounds = 0
        self.outcome = Outcome()

    async def run(self) -> Outcome:
        """Revoke, and break things, until all is done.

        Raises:
            BenchError: there are too few confirmations in the time.
        """
        try:
            async with asyncio.timeout(_MAX_SECONDS), self._under_load():
                breaking = asyncio.create_task(self._break())
                callers = [asyncio.create_task(self._call()) for _ in range(_CALLERS)]
                try:
                    await asyncio.gather(breaking, *callers)
                finally:
                    for task in (breaking, *callers):
                        task.cancel()
        except TimeoutError:
            raise BenchError(
                f"{len(self.outcome.confirmed)} confirmed in {_MAX_SECONDS} s"
            ) from None
        return self.outcome

    @property
    def _is_done(self) -> bool:
        return len(self.outcome.confirmed) >= self._wanted and self._rounds > 0

    # --- revocations -----------------------------------------------------------------

    async def _call(self) -> None:
        """Revoke one token after the other."""
        prober = Prober(self._gateway.port)
        while not self._is_done:
            mint = partial(self._site.environment.mint, _TOKENS // _CALLERS)
            for token in await self._asked(mint):
                if not self._is_done:
                    await self._revoke(prober, token)
        prober.close()

    async def _revoke(self, prober: Prober, token: str) -> None:
        outcome, fault = self.outcome, self._current
        # A stopped gateway answers later; its connections are to be kept until then.
        was_seen = not self._is_stopped and await prober.is_let_through(token)
        begun = await prober.begin(token)
        answer = await self._asked(
            partial(self._site.environment.revoke, token, wait=_WAIT)
        )
        is_confirmed = answer.json()["confirmed"]
        outcome.by_fault[fault][not is_confirmed] += 1
        if not is_confirmed:
            outcome.pending += 1
            return
        outcome.confirmed.append(answer.seconds)
        outcome.unseen += not was_seen
        during = self._current
        for kind, statuses in (await prober.ask(token, begun)).items():
            outcome.probes += len(statuses)
            place = f"{fault}, then {during}, on a connection {kind}"
            outcome.passes += [place] * statuses.count(200)

    async def _asked(self, call: Callable[[], Awaitable[Result]]) -> Result:
        """Return what the issuer answers.

        It closes connections that idle while the gateway stands still. Both calls may
        be repeated.
        """
        try:
            return await call()
        except ConnectionError:
            # The others that are free idle as long.
            self._site.environment.issuer.close()
            return await call()

    @asynccontextmanager
    async def _under_load(self) -> AsyncIterator[None]:
        """Ask without a pause, over some connections, while the block runs."""
        (token,) = await self._site.environment.mint(1)
        prober = Prober(self._gateway.port)

        async def ask() -> None:
            while True:
                if not await prober.is_let_through(token):
                    await asyncio.sleep(0.01)

        asking = [asyncio.create_task(ask()) for _ in range(_LOAD // 4)]
        try:
            yield
        finally:
            for task in asking:
                task.cancel()
            prober.close()

    # --- faults ----------------------------------------------------------------------

    async def _break(self) -> None:
        """Make each fault in turn, again and again, with rests between."""
        name, short, long = self._gateway.name, self._short, self._long
        kills = self._gateway.ways_to_kill().items()
        faults: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            *((f"{way} and started", partial(self._kill, act)) for way, act in kills),
            (f"{name} stopped", partial(self._stop, short)),
            (f"{name} stopped for long", partial(self._stop, long)),
            ("native stopped", partial(self._stop_native, short)),
            ("native stopped for long", partial(self._stop_native, long)),
            ("native killed and started", self._kill_native),
            ("connection cut", self._cut),
            ("connection silent for long", partial(self._silence, long)),
            (f"{name} reloaded", self._reload),
        ]
        while not self._is_done:
            for name, fault in faults:
                self._current = name
                await fault()
                await self._recovery()
            self._rounds += 1

    async def _recovery(self) -> None:
        """Return when calls are confirmed again."""
        await asyncio.sleep(_REST)
        wanted = len(self.outcome.confirmed) + _CALLERS

        async def is_well() -> bool:
            # At the end nothing more is revoked.
            return self._is_done or len(self.outcome.confirmed) >= wanted

        await eventually(is_well, what="calls are confirmed again")

    async def _kill(self, kill: Callable[[], None]) -> None:
        await asyncio.to_thread(kill)
        await asyncio.to_thread(self._gateway.start)

    async def _stop(self, seconds: float) -> None:
        self._is_stopped = True
        # What is under way is answered first.
        await asyncio.sleep(_REST / 10)
        with self._gateway.stopped():
            await asyncio.sleep(seconds)
        self._is_stopped = False

    async def _stop_native(self, seconds: float) -> None:
        with self._site.native.paused():
            await asyncio.sleep(seconds)

    async def _kill_native(self) -> None:
        process = self._site.native.process
        assert process is not None
        process.kill()
        await asyncio.to_thread(self._site.fleet.start_gate, self._site.native)

    async def _cut(self) -> None:
        async with self._relayed() as relay:
            relay.cut()

    async def _silence(self, seconds: float) -> None:
        async with self._relayed() as relay:
            relay.hold()
            await asyncio.sleep(seconds)
            relay.release()

    @asynccontextmanager
    async def _relayed(self) -> AsyncIterator[Relay]:
        """Pass the connections between gateway and `native` on in the block.

        Elsewhere they are direct: HAProxy's master is known by its process id.
        """
        path, socket = self._gateway.link
        relay = Relay(path, socket)
        await relay.start()
        try:
            await asyncio.to_thread(self._gateway.reconnect)
            await self._recovery()
            yield relay
            await self._recovery()
        finally:
            await relay.stop()
            path.unlink(missing_ok=True)
            path.symlink_to(socket)

    async def _reload(self) -> None:
        await asyncio.to_thread(self._gateway.reload)
        # The one before ends by itself.
        await asyncio.sleep(self._short)


def confirmations(
    entries: int,
    wanted: int,
    make_gateway: MakeGateway,
    faults: tuple[float, float] = (_SHORT, _LONG),
) -> list[Figure]:
    """Revoke until so many are confirmed and each fault was there.

    Args:
        entries: that are in force.
        wanted: confirmed revocations.
        make_gateway: makes the gateway.
        faults: seconds of the short and of the long ones.

    Raises:
        BenchError: a revoked token passed after its confirmation.
    """
    with running(entries, make_gateway) as site:
        site.start()
        began = time.monotonic()
        outcome = asyncio.run(Trial(site, wanted, faults).run())
        took = time.monotonic() - began
        name = f"confirmed through {site.gateway.name} under faults"
    for fault, (confirmed, pending) in outcome.by_fault.items():
        tqdm.write(f"{fault}: {confirmed} confirmed, {pending} pending")
    if outcome.passes:
        raise BenchError(
            f"passed after `confirmed`: {len(outcome.passes)}, in "
            f"{sorted(set(outcome.passes))}"
        )
    return [
        Figure(f"{name}, passes", len(outcome.passes), ""),
        Figure(f"{name}, calls confirmed", len(outcome.confirmed), ""),
        Figure(f"{name}, calls pending", outcome.pending, ""),
        Figure(f"{name}, token not seen to pass before", outcome.unseen, ""),
        Figure(f"{name}, requests after a confirmation", outcome.probes, ""),
        *figures_of(name, outcome.confirmed),
        Figure(f"{name}, whole run", took, "s"),
    ]
