"""The issuer behind Debian's PgBouncer in transaction mode.

Each transaction gets another of three server connections: what belongs to a connection
(a prepared statement, a lock, LISTEN, a SET) is gone or another client's in the next
one.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from sqlalchemy import make_url, text

from issuer import migrations
from issuer.storage.db import Database
from tests.support.following import FakeVerifier, confirm, log_out
from tests.support.issuer_harness import (
    FEED_TOKEN,
    FakeClock,
    IssuerHarness,
    make_settings,
    running_issuer,
)
from tests.support.issuer_story import (
    PASSWORD,
    is_accepted,
    is_invalid_grant,
    log_in,
    post_refresh,
    refresh,
)
from tests.support.login_story import begin_login, end_login, enrol, log_in_admin
from tests.support.pgbouncer import PgBouncer, running_pgbouncer
from tests.support.postgres import PostgresServer
from tests.support.processes import eventually

pytestmark = pytest.mark.postgres
FEED = {"Authorization": f"Bearer {FEED_TOKEN}"}
#: How many revocations the delays are taken of.
SAMPLES = 20


@pytest.fixture(scope="module")
def pgbouncer(postgres: PostgresServer) -> Iterator[PgBouncer]:
    with running_pgbouncer(postgres) as running:
        yield running


@pytest.fixture
def database(postgres_url: str) -> str:
    """The name of a migrated database of this test's own."""
    return str(make_url(postgres_url).database)


@asynccontextmanager
async def running_issuers(
    url: str, count: int, **changes: object
) -> AsyncIterator[list[IssuerHarness]]:
    """Run several issuers on one database, as several workers or replicas are."""
    settings, clock = make_settings(url, **changes), FakeClock()
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(running_issuer(settings, clock))
            for _ in range(count)
        ]


async def test_a_pooler_is_found_out_and_a_server_is_not_taken_for_one(
    postgres: PostgresServer, pgbouncer: PgBouncer, database: str
) -> None:
    for url, is_pooled in (
        (postgres.url(database), False),
        (pgbouncer.url(database), True),
    ):
        opened = Database(url)
        async with opened.read() as db:
            await db.execute(text("SELECT 1"))
        assert opened.connector is not None
        assert opened.connector.is_pooled is is_pooled
        query = text("SELECT count(*) FROM pg_prepared_statements WHERE name <> :none")
        async with opened.read() as db:
            named = [await db.scalar(query, {"none": ""}) for _ in range(3)]
        # Directly each statement is planned once; behind a pooler none has a name.
        await opened.close()
        assert len(set(named)) == 1
        assert (named[0] == 0) is is_pooled


def test_the_migrations_run_through_it(
    postgres: PostgresServer, pgbouncer: PgBouncer
) -> None:
    name = postgres.create_database()
    migrations.upgrade(pgbouncer.url(name))
    migrations.upgrade(pgbouncer.url(name))
    postgres.drop_database(name)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"server_reset_query_always": "1"},
        {"pool_mode": "session", "default_pool_size": "60"},
        {"ignore_startup_parameters": "statement_timeout,extra_float_digits"},
    ],
    ids=["transaction", "reset-always", "session", "ignoring-parameters"],
)
async def test_whole_flows_pass_on_several_issuers_at_once(
    postgres: PostgresServer, database: str, options: dict[str, str]
) -> None:
    """Login, second factor, refresh, reuse, revocation, introspection, the feed."""
    with running_pgbouncer(postgres, options) as bouncer:
        async with running_issuers(bouncer.url(database), 2) as (one, other):
            await asyncio.gather(
                *(one.create_user(f"user{i}", PASSWORD) for i in range(8))
            )
            for _ in range(3):
                lives = (live_through(one, other, f"user{i}") for i in range(8))
                await asyncio.gather(*lives)
            await use_second_factor(one, other)
            admin = await log_in_admin(one)
            audit = await other.client.get("/audit", headers=admin.bearer)
            assert audit.status_code == 200, audit.text
            snapshot = await other.client.get("/revocations/snapshot", headers=FEED)
            # A logout and a reuse each, in each round.
            assert len(snapshot.json()["entries"]) == 2 * 3 * 8
            for issuer in (one, other):
                metrics = issuer.issuer.base.metrics.render()
                assert b"gatehouse_issuer_unexpected_errors_total 0.0" in metrics
                assert (await issuer.operators.get("/readyz")).status_code == 200
    # Nothing was left on a server connection that the next client would meet.
    left = await asyncio.to_thread(
        postgres.run_sql, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
    )
    assert left == "0"


async def live_through(one: IssuerHarness, other: IssuerHarness, username: str) -> None:
    """Log in, refresh here and there, be found out at a reuse, log out."""
    tokens = await log_in(one, username)
    assert await is_accepted(other, tokens)
    first = tokens.refresh_token
    for issuer in (other, one, other):
        tokens = await refresh(issuer, tokens.refresh_token)
    assert is_invalid_grant(await post_refresh(one, first)), "it is spent"
    assert is_invalid_grant(await post_refresh(other, tokens.refresh_token))
    assert not await is_accepted(one, tokens)
    tokens = await log_in(other, username)
    assert (await log_out(one, tokens)).json()["revoked"] is True
    assert not await is_accepted(other, tokens)


async def use_second_factor(one: IssuerHarness, other: IssuerHarness) -> None:
    """Enrol at one issuer, log in at the other."""
    device = await enrol(one, await log_in(other, "user0"))
    code = device.next_code()
    ended = await end_login(other, await begin_login(one, "user0"), code)
    assert ended.status_code == 200, ended.text
    spent = await end_login(one, await begin_login(other, "user0"), code)
    assert spent.status_code == 401, spent.text


async def test_concurrent_rotations_make_one_change(
    pgbouncer: PgBouncer, database: str
) -> None:
    """Advisory locks hold for a transaction: a pooler keeps those."""
    async with running_issuers(pgbouncer.url(database), 2) as (one, other):
        rotations = [
            issuer.issuer.keys.rotation.rotate(actor="test", is_immediate=False)
            for issuer in (one, other, one, other)
        ]
        await asyncio.gather(*rotations)
        published = await one.client.get("/.well-known/jwks.json")
        assert len(published.json()["keys"]) == 2


async def test_statements_that_time_out_do_not_spoil_the_next(
    pgbouncer: PgBouncer, database: str
) -> None:
    opened = Database(
        pgbouncer.url(database), pool_size=2, statement_timeout=0.3, pool_timeout=5
    )
    for _ in range(3):
        with pytest.raises(Exception, match="cannot answer"):
            async with opened.read() as db:
                await db.execute(text("SELECT pg_sleep(30)"))

        async def is_answered() -> bool:
            async with opened.read() as db:
                return await db.scalar(text("SELECT 1")) == 1

        assert await is_answered()
    await opened.close()


async def test_an_unreachable_database_behind_it_is_named(
    pgbouncer: PgBouncer,
) -> None:
    opened = Database(pgbouncer.url("no_such_database"), pool_size=1)
    with pytest.raises(Exception, match="cannot answer") as caught:
        async with opened.read() as db:
            await db.execute(text("SELECT 1"))
    assert "no_such_database" in str(getattr(caught.value, "detail", ""))
    await opened.close()


# --- confirmation: LISTEN past the pooler, or polling ---------------------------------


async def take_delays(one: IssuerHarness, other: IssuerHarness) -> list[float]:
    """Revoke at one replica; a verifier of the other one must confirm."""
    verifier = FakeVerifier(other)
    await verifier.catch_up()
    delays = []
    async with verifier.following():
        for _ in range(SAMPLES):
            tokens = await log_in(one)
            began = time.monotonic()
            found = await confirm(one, tokens, wait=20)
            delays.append(time.monotonic() - began)
            assert found["is_confirmed"], found
    return delays


@pytest.mark.parametrize("way", ["polling", "ISSUER_LISTEN_URL"])
async def test_confirmed_comes_by_polling_and_by_listening(
    postgres: PostgresServer,
    pgbouncer: PgBouncer,
    database: str,
    way: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The delays are printed; docs/database.md has them from a quiet machine."""
    listen_url = postgres.url(database) if way == "ISSUER_LISTEN_URL" else ""
    url = pgbouncer.url(database)
    async with running_issuers(url, 2, listen_url=listen_url) as (one, other):
        await one.create_user("alice", PASSWORD)
        await wait_for_listeners(postgres, database, 2 if listen_url else 0)
        delays = await take_delays(one, other)
    with capsys.disabled():
        middle, worst = statistics.median(delays) * 1e3, max(delays) * 1e3
        print(f"\nconfirmed, {way}: median {middle:.0f} ms, max {worst:.0f} ms")


async def test_a_pooler_in_the_listening_url_is_named(
    pgbouncer: PgBouncer, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = pgbouncer.url(database)
    async with running_issuer(make_settings(url, listen_url=url)):

        async def is_named() -> bool:
            return any(
                record.getMessage() == "wake_ups.polling"
                and record.fields["setting"] == "ISSUER_LISTEN_URL"
                for record in caplog.records
            )

        await eventually(is_named)


async def test_another_database_in_the_listening_url_is_named(
    postgres: PostgresServer,
    postgres_template: str,
    postgres_url: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = postgres.create_database(postgres_template)
    postgres.run_sql("UPDATE feed_head SET epoch = 'another'", database=other)
    settings = make_settings(postgres_url, listen_url=postgres.url(other))
    async with running_issuer(settings):

        async def is_named() -> bool:
            return "wake_ups.elsewhere" in caplog.messages

        await eventually(is_named)
    postgres.drop_database(other)


async def wait_for_listeners(
    postgres: PostgresServer, database: str, count: int
) -> None:
    query = (
        f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}' AND "
        "query LIKE 'LISTEN%'"
    )

    async def are_there() -> bool:
        return await asyncio.to_thread(postgres.run_sql, query) == str(count)

    await eventually(are_there)
