"""The operators' port of a simulated verifier, without a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from shared.metrics.scrapes import Scrapes
from shared.serving.server import Lifecycle
from shared.shortages import Shortages
from tests.support.gatehouse_verifier import SimulatedVerifier
from verifier.operators.admin import AdminDependencies, build_admin
from verifier.operators.metrics import VerifierMetrics
from verifier.operators.worker_board import WorkerBoard, WorkerState
from verifier.reloading.reload import ReloadReport

#: Workers of the verifier; the one that is asked has slot 0.
WORKERS = 2


class Operator:
    """Asks the operators' port of a simulated verifier."""

    def __init__(
        self,
        verifier: SimulatedVerifier,
        client: httpx.AsyncClient,
        board: WorkerBoard,
    ) -> None:
        self.verifier = verifier
        self.client = client
        self.board = board

    async def ready(self) -> tuple[int, list[str]]:
        answer = await self.client.get("/readyz")
        return answer.status_code, answer.json()["reasons"]

    async def explain(self, **asked: Any) -> dict[str, Any]:
        answer = await self.client.post("/explain", json=asked)
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body


@asynccontextmanager
async def operating(
    verifier: SimulatedVerifier, host: str = "127.0.0.1"
) -> AsyncIterator[Operator]:
    """Give the operator of a verifier, whose port listens on this host."""
    board = WorkerBoard(WORKERS)
    admin = AdminDependencies(
        verifier.parts,
        scrapes_of(verifier),
        board,
        lambda: board.write(0, state_of(verifier)),
        Lifecycle(),
        verifier.clock.now,
        verifier.clock.monotonic,
        ReloadReport(),
        host,
    )
    transport = httpx.ASGITransport(build_admin(admin))
    async with httpx.AsyncClient(
        transport=transport, base_url="http://127.0.0.1:9100"
    ) as client:
        yield Operator(verifier, client, board)


def scrapes_of(verifier: SimulatedVerifier) -> Scrapes:
    metrics = VerifierMetrics(verifier.parts, verifier.clock.monotonic)
    return Scrapes(metrics.together, metrics.flush, beside=Shortages().look)


def state_of(verifier: SimulatedVerifier, pid: int = 1) -> WorkerState:
    snapshot = verifier.trust.snapshot
    return WorkerState(
        pid, verifier.feed.position, snapshot.own.fresh_until, snapshot.own.keys_until
    )
