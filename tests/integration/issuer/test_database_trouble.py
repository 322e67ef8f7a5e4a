"""A database that goes away is 503 with Retry-After, never 401, never 500 (R38)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from issuer import migrations
from tests.support.issuer_harness import (
    FEED_TOKEN,
    IssuerHarness,
    make_settings,
    running_issuer,
)
from tests.support.postgres import PostgresServer, start_postgres
from tests.support.processes import PATIENCE, eventually

pytestmark = pytest.mark.postgres
#: Seconds for which requests ask to be held, and those within which one that is let go
#: must be answered: long for a busy machine, and before the wait is over.
HELD, EARLY = 60, 45
FEED = {"Authorization": f"Bearer {FEED_TOKEN}"}


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server of this test's own, for it is going to be stopped."""
    server = start_postgres()
    yield server
    server.stop()


@pytest.fixture
async def own_issuer(server: PostgresServer) -> AsyncIterator[IssuerHarness]:
    url = server.url(server.create_database())
    await asyncio.to_thread(migrations.upgrade, url)
    async with running_issuer(make_settings(url)) as harness:
        await harness.issuer.keys.store.ensure_active()
        yield harness


def is_unavailable(answer: httpx.Response) -> bool:
    return answer.status_code == 503 and answer.headers["Retry-After"] == "1"


async def test_everything_that_needs_the_database_is_503_while_it_is_away(
    server: PostgresServer, own_issuer: IssuerHarness
) -> None:
    client = own_issuer.client
    snapshot = await client.get("/revocations/snapshot", headers=FEED)
    query = {"epoch": snapshot.json()["epoch"], "after": 0, "wait": HELD}
    held = asyncio.create_task(client.get("/revocations", params=query, headers=FEED))
    waiting = b"gatehouse_issuer_feed_waiting 1.0"
    metrics = own_issuer.issuer.base.metrics

    async def is_held() -> bool:
        return waiting in metrics.render()

    await eventually(is_held)
    assert (await own_issuer.operators.get("/readyz")).status_code == 200

    await asyncio.to_thread(server.stop)
    own_issuer.clock.advance(2)
    async with asyncio.timeout(EARLY):
        assert is_unavailable(await held), "a held request must not stay silent"
    for _ in range(3):
        answer = await client.get("/revocations/snapshot", headers=FEED)
        assert is_unavailable(answer), answer.text
    ready = await own_issuer.operators.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (503, "unavailable")
    assert (await own_issuer.operators.get("/healthz")).status_code == 200
    assert b"gatehouse_issuer_unexpected_errors_total 0.0" in metrics.render()


async def test_connections_that_were_cut_are_replaced(postgres_url: str) -> None:
    async with running_issuer(make_settings(postgres_url)) as issuer:
        async with issuer.database.write() as db:
            others = text(
                "SELECT pid FROM pg_stat_activity WHERE "
                "datname = current_database() AND pid <> pg_backend_pid()"
            )
            pids = list(await db.scalars(others))
            end = text(
                "SELECT pg_terminate_backend(pid) FROM unnest(CAST(:pids AS int[])) AS pid"
            )
            await db.execute(end, {"pids": pids})
            await wait_until_ended(db, pids)
        answer = await issuer.client.get("/revocations/snapshot", headers=FEED)
        assert answer.status_code == 200


async def wait_until_ended(db: AsyncSession, pids: list[int]) -> None:
    """Return once the server has ended these connections: it only began to."""

    async def have_ended() -> bool:
        await db.execute(text("SELECT pg_stat_clear_snapshot()"))
        living = text("SELECT pid FROM pg_stat_activity WHERE pid = ANY(:pids)")
        return not (await db.scalars(living, {"pids": pids})).all()

    await eventually(have_ended)


async def test_a_pool_without_a_free_connection_is_503(postgres_url: str) -> None:
    settings = make_settings(
        postgres_url, database_pool_size=1, database_pool_timeout=0.2
    )
    async with running_issuer(settings) as issuer:
        async with issuer.database.read() as db:
            await db.execute(text("SELECT 1"))
            answer = await issuer.client.get("/revocations/snapshot", headers=FEED)
            assert is_unavailable(answer)
        # Background tasks use the one connection too.
        await eventually(lambda: is_served(issuer))


async def is_served(issuer: IssuerHarness) -> bool:
    """Return whether the snapshot is served; otherwise it must be 503."""
    answer = await issuer.client.get("/revocations/snapshot", headers=FEED)
    assert answer.status_code == 200 or is_unavailable(answer)
    return answer.status_code == 200


async def test_a_database_that_is_silent_is_503_in_bounded_time(
    server: PostgresServer,
) -> None:
    """Frozen it takes connections and never answers: every wait has an end."""
    url = server.url(server.create_database(), connect_timeout=5)
    await asyncio.to_thread(migrations.upgrade, url)
    settings = make_settings(
        url,
        database_pool_size=2,
        database_pool_timeout=0.5,
        database_statement_timeout=0.5,
    )
    async with running_issuer(settings) as issuer:
        path = "/revocations/snapshot"
        await eventually(lambda: is_served(issuer))
        with server.frozen():
            async with asyncio.timeout(PATIENCE):
                asked = [issuer.client.get(path, headers=FEED) for _ in range(10)]
                answers = await asyncio.gather(*asked)
            assert {answer.status_code for answer in answers} == {503}

            async def is_refused_at_once() -> bool:
                await issuer.client.get(path, headers=FEED)
                return issuer.database.measure().is_away

            await eventually(is_refused_at_once)
        await eventually(lambda: is_served(issuer))
        assert not issuer.database.measure().is_away
