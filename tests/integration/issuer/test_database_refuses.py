"""A database that refuses is 503 with Retry-After and not ready, for any SQLSTATE
(R58).

Never 500 and never 401 (R38). Each refusal is a real server's: a trigger raises what
takes two machines to bring about, everything else is done to the server itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
from sqlalchemy import make_url, text

from issuer import migrations
from issuer.acts import Caller
from issuer.errors import DatabaseTroubleError
from issuer.storage.database_attempts import retry_conflicts
from issuer.storage.db import Database
from tests.support.database_trouble import (
    is_unavailable,
    issuer_with_alice,
    name_of,
    readiness,
)
from tests.support.issuer_harness import (
    FEED_TOKEN,
    IssuerHarness,
    make_settings,
    running_issuer,
)
from tests.support.issuer_story import PASSWORD, log_in, post_login
from tests.support.postgres import PostgresServer, start_postgres
from tests.support.processes import eventually

pytestmark = pytest.mark.postgres
FEED = {"Authorization": f"Bearer {FEED_TOKEN}"}


def raise_at_each_session(server: PostgresServer, database: str, state: str) -> None:
    """Have PostgreSQL refuse each new session with this SQLSTATE."""
    server.run_sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"RAISE EXCEPTION 'refused by the test' USING ERRCODE = '{state}'; END $$",
        "CREATE TRIGGER refuse BEFORE INSERT ON sessions FOR EACH ROW "
        "EXECUTE FUNCTION refuse()",
        database=database,
    )


@pytest.mark.parametrize(
    "state",
    [
        *("08000", "08006", "25006", "25P03", "40001", "40P01", "42501", "53000"),
        *("53100", "53200", "53300", "55000", "55P03", "57014", "57P01", "57P02"),
        *("57P03", "57P04", "57P05", "58000", "58030", "XX000", "XX001"),
    ],
)
async def test_each_refusal_of_postgresql_is_503(
    postgres: PostgresServer, postgres_url: str, state: str
) -> None:
    async with issuer_with_alice(postgres_url) as issuer:
        raise_at_each_session(postgres, name_of(postgres_url), state)
        for _ in range(2):
            answer = await post_login(issuer)
            assert is_unavailable(answer), answer.text
            assert "refused by the test" not in answer.text


@pytest.mark.parametrize("state", ["22P02", "23505", "42601", "P0001"])
async def test_faulty_statements_of_ours_do_not_count_as_database_trouble(
    postgres: PostgresServer, postgres_url: str, state: str
) -> None:
    async with running_issuer(make_settings(postgres_url)) as issuer:
        await issuer.create_user("alice", PASSWORD)
        raise_at_each_session(postgres, name_of(postgres_url), state)
        answer = await post_login(issuer)
        assert answer.status_code == 500, answer.text
        assert not issuer.database.measure().is_away


# --- read-only after a failover -------------------------------------------------------


async def test_a_read_only_database_is_503_and_not_ready_until_it_takes_writes_again(
    postgres: PostgresServer, postgres_url: str
) -> None:
    """25006; the connection is dropped, so the next one may find the new primary."""
    name = name_of(postgres_url)
    alter = f'ALTER DATABASE "{name}" SET default_transaction_read_only = '
    async with issuer_with_alice(postgres_url, database_pool_size=2) as issuer:
        tokens = await log_in(issuer)
        assert (await readiness(issuer))[0] == 200
        before = await read_backends(issuer)
        # A connection's own default: as the server of an old one turned read-only.
        postgres.run_sql(f"{alter} on")
        await turn_read_only(issuer)
        assert (await readiness(issuer))[0] == 503, "found out before a request fails"
        await turn_read_only(issuer)
        answer = await post_login(issuer)
        assert is_unavailable(answer), answer.text
        status, reason = await readiness(issuer)
        assert status == 503
        assert reason.startswith("ISSUER_DATABASE_URL: PostgreSQL at ")
        assert "read-only" in reason
        after = await read_backends(issuer)
        assert not before & after, "the connections to the old primary are kept"
        # Reads go on.
        assert (
            await issuer.client.get("/auth/sessions", headers=tokens.bearer)
        ).status_code == 200
        postgres.run_sql(f"{alter} off")
        await post_login(issuer)

        async def is_ready() -> bool:
            return (await readiness(issuer))[0] == 200

        await eventually(is_ready)
        assert (await post_login(issuer)).status_code == 200


async def read_backends(issuer: IssuerHarness) -> set[int]:
    """Return the server processes of the pool's connections."""
    async with issuer.database.read() as one, issuer.database.read() as other:
        query = text("SELECT pg_backend_pid()")
        return {await one.scalar(query), await other.scalar(query)}


async def turn_read_only(issuer: IssuerHarness) -> None:
    """Turn the connections that are open read-only, as their server would."""
    statement = text("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY")
    async with issuer.database.read() as one, issuer.database.read() as other:
        await one.execute(statement)
        await other.execute(statement)


@pytest.fixture
def servers() -> Iterator[tuple[PostgresServer, PostgresServer]]:
    """A primary and its standby."""
    primary = start_postgres(has_port=True, options={"wal_level": "replica"})
    standby = None
    try:
        standby = primary.make_standby()
        yield primary, standby
    finally:
        if standby is not None:
            standby.stop()
        primary.stop()


async def test_the_new_primary_is_found_after_a_promotion(
    servers: tuple[PostgresServer, PostgresServer],
) -> None:
    """Two hosts in the URL, the standby first; the primary dies, the standby
    follows.
    """
    primary, standby = servers
    name = primary.create_database()
    await asyncio.to_thread(migrations.upgrade, primary.tcp_url(name))
    url = f"postgresql://postgres@127.0.0.1:{standby.port},127.0.0.1:{primary.port}/{name}"
    async with issuer_with_alice(url) as issuer:
        assert (await readiness(issuer))[0] == 200
        await asyncio.to_thread(primary.wait_for_standby)
        await asyncio.to_thread(primary.stop_immediately)
        answer = await post_login(issuer)
        assert is_unavailable(answer), answer.text
        status, reason = await readiness(issuer)
        assert status == 503
        for server in servers:
            assert f"127.0.0.1:{server.port}" in reason
        await asyncio.to_thread(standby.promote)

        async def is_served() -> bool:
            return (await post_login(issuer)).status_code == 200

        await eventually(is_served, deadline=60)
        assert (await readiness(issuer))[0] == 200


async def test_a_standby_alone_is_503_and_not_ready(
    servers: tuple[PostgresServer, PostgresServer],
) -> None:
    """55000: a function that only a primary has."""
    primary, standby = servers
    name = primary.create_database()
    await asyncio.to_thread(migrations.upgrade, primary.tcp_url(name))
    await asyncio.to_thread(primary.wait_for_standby)
    async with running_issuer(make_settings(standby.tcp_url(name))) as issuer:
        assert is_unavailable(
            await issuer.client.get("/revocations/snapshot", headers=FEED)
        )
        status, reason = await readiness(issuer)
        assert (status, "read-only" in reason) == (503, True)


async def test_a_silent_host_does_not_use_up_the_time_of_the_next(
    postgres: PostgresServer,
) -> None:
    """`connect_timeout` is each host's own, as with libpq."""

    is_over = asyncio.Event()

    async def stay_silent(_: object, writer: asyncio.StreamWriter) -> None:
        await is_over.wait()
        writer.close()

    silent = await asyncio.start_server(stay_silent, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    directory = postgres.socket_directory
    url = (
        f"postgresql:///postgres?host=127.0.0.1,{directory}&port={port},{postgres.port}"
        "&connect_timeout=1"
    )
    database = Database(url.replace("///", "//postgres@/"))
    async with database.read() as db:
        assert await db.scalar(text("SELECT 1")) == 1
    await database.close()
    is_over.set()
    silent.close()
    await silent.wait_closed()


# --- cancelled, deadlocked, not serialisable ------------------------------------------


@asynccontextmanager
async def other_client(url: str) -> AsyncIterator[asyncpg.Connection]:
    parsed = make_url(url)
    connection = await asyncpg.connect(
        host=parsed.query["host"], user="postgres", database=parsed.database
    )
    try:
        yield connection
    finally:
        await connection.close()


async def test_the_servers_own_statement_timeout_is_503(
    postgres: PostgresServer, postgres_url: str
) -> None:
    """57014."""
    name = name_of(postgres_url)
    postgres.run_sql(f"ALTER DATABASE \"{name}\" SET statement_timeout = '200ms'")
    async with (
        issuer_with_alice(postgres_url) as issuer,
        other_client(postgres_url) as other,
    ):
        await other.execute("SET statement_timeout = 0")
        await other.execute("BEGIN; SELECT * FROM users FOR UPDATE")
        answer = await post_login(issuer)
        assert is_unavailable(answer), answer.text
        await other.execute("ROLLBACK")
        assert (await post_login(issuer)).status_code == 200


async def test_a_deadlock_is_tried_again_and_its_client_sees_nothing_of_it(
    postgres_url: str,
) -> None:
    """40P01: the other client takes the rows in the opposite order and is not the
    victim.
    """
    async with (
        issuer_with_alice(postgres_url) as issuer,
        other_client(postgres_url) as other,
    ):
        tokens = await log_in(issuer)
        await other.execute("SET deadlock_timeout = '1h'")
        await other.execute("BEGIN; SELECT * FROM feed_head FOR UPDATE")
        logging_out = asyncio.create_task(
            issuer.client.post("/auth/logout", headers=tokens.bearer)
        )
        await wait_until_blocked(other)
        await other.execute("SELECT * FROM sessions FOR UPDATE")
        await other.execute("COMMIT")
        answer = await logging_out
        assert answer.status_code == 200, answer.text
        feed = await issuer.client.get("/revocations/snapshot", headers=FEED)
        assert len(feed.json()["entries"]) == 1


async def wait_until_blocked(other: asyncpg.Connection) -> None:
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND "
        "wait_event_type = 'Lock'"
    )

    async def is_blocked() -> bool:
        # Statistics are kept for a transaction: they are read anew.
        await other.execute("SELECT pg_stat_clear_snapshot()")
        return bool(await other.fetchval(query))

    await eventually(is_blocked)


def count_attempts(server: PostgresServer, database: str, refused: int) -> None:
    """Have the first attempts at a session fail to serialise; a sequence counts
    them.
    """
    server.run_sql(
        "CREATE SEQUENCE attempts",
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"IF nextval('attempts') <= {refused} THEN RAISE EXCEPTION 'no' USING ERRCODE "
        "= '40001'; END IF; RETURN NEW; END $$",
        "CREATE TRIGGER refuse BEFORE INSERT ON sessions FOR EACH ROW "
        "EXECUTE FUNCTION refuse()",
        database=database,
    )


@pytest.mark.parametrize(
    ("refused", "status", "attempts"), [(2, 200, 3), (100, 503, 3)]
)
async def test_a_failed_serialisation_is_tried_three_times(
    postgres: PostgresServer,
    postgres_url: str,
    refused: int,
    status: int,
    attempts: int,
) -> None:
    """40001; the body is there for each attempt."""
    name = name_of(postgres_url)
    async with issuer_with_alice(postgres_url) as issuer:
        count_attempts(postgres, name, refused)
        answer = await post_login(issuer)
        assert answer.status_code == status, answer.text
        assert postgres.run_sql(
            "SELECT last_value FROM attempts", database=name
        ) == str(attempts)
        assert not issuer.database.measure().is_away
        logins = issuer.issuer.base.metrics.render()
        assert b'route="/auth/login",status="%d"} 1.0' % status in logins


async def test_an_operation_that_committed_is_not_repeated(
    postgres: PostgresServer, postgres_url: str
) -> None:
    """A code of a second factor, say, would be spent at the second attempt: a 401."""
    name = name_of(postgres_url)
    async with issuer_with_alice(postgres_url) as issuer:
        count_attempts(postgres, name, 100)
        committed = []

        async def act() -> None:
            async with issuer.database.write() as db:
                await db.execute(text("SELECT 1"))
            committed.append(1)
            await issuer.issuer.login.login.log_in("alice", PASSWORD, Caller())

        with pytest.raises(DatabaseTroubleError):
            await retry_conflicts(act)
        assert committed == [1]
