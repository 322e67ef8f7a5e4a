"""A database put back to an older state is found out: a new epoch, and no promise yet.

SQLite: the file is copied back. PostgreSQL: a database made from an older copy has
other object ids, as a restored dump has.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, make_url, text

from issuer import migrations
from issuer.acts import Caller
from issuer.errors import UnavailableError
from issuer.feed.lease_watch import term
from issuer.storage.db import Database
from tests.support.following import FakeVerifier
from tests.support.issuer_harness import (
    FakeClock,
    IssuerHarness,
    make_settings,
    running_issuer,
)
from tests.support.issuer_story import PASSWORD, Tokens, log_in
from tests.support.mounts import read_only
from tests.support.postgres import PostgresServer

MAX_STALENESS = 60
#: Seconds for which requests ask to be held, and those within which one that is let go
#: must be answered: long for a busy machine, and before the wait is over.
HELD, EARLY = 60, 45


async def confirm(issuer: IssuerHarness, tokens: Tokens) -> dict:
    answer = await issuer.client.post(
        "/auth/logout",
        json={"refresh_token": tokens.refresh_token},
        headers={"Prefer": "wait=0"},
    )
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def pending(answer: dict) -> list[str]:
    assert answer["confirmed"] is (answer["followers"]["pending"] == [])
    return list(answer["followers"]["pending"])


async def read_epoch(issuer: IssuerHarness) -> str:
    return (await issuer.issuer.feed.feed.head()).epoch


class BackUp:
    """A copy of a database, which is put in its place later."""

    def __init__(self, url: str, request: pytest.FixtureRequest) -> None:
        self.url = url
        self._server: PostgresServer | None = None
        if url.startswith("postgresql"):
            self._server = request.getfixturevalue("postgres")

    def take(self) -> None:
        """Copy the database as it is, without connections."""
        if self._server is not None:
            name = make_url(self.url).database
            self._copy = self._server.create_database(str(name))
            return
        path = Path(str(make_url(self.url).database))
        with (
            closing(sqlite3.connect(path)) as source,
            closing(sqlite3.connect(f"{path}.copy")) as target,
        ):
            source.backup(target)

    def put_back(self) -> None:
        """Make the copy the database, without connections."""
        if self._server is not None:
            name = str(make_url(self.url).database)
            self._server.drop_database(name)
            run_sql(self._server, f'ALTER DATABASE "{self._copy}" RENAME TO "{name}"')
            return
        path = Path(str(make_url(self.url).database))
        for left in (f"{path}-wal", f"{path}-shm"):
            Path(left).unlink(missing_ok=True)
        shutil.copyfile(f"{path}.copy", path)


def run_sql(server: PostgresServer, statement: str) -> None:
    async def run() -> None:
        database = Database(server.url("postgres"), pool_size=1)
        async with database.engine.connect() as connection:
            autocommit = await connection.execution_options(
                isolation_level="AUTOCOMMIT"
            )
            await autocommit.execute(text(statement))
        await database.close()

    asyncio.run(run())


@pytest.fixture
def back_up(database_url: str, request: pytest.FixtureRequest) -> BackUp:
    return BackUp(database_url, request)


async def test_a_restored_database_begins_a_new_epoch_and_promises_nothing(
    database_url: str, back_up: BackUp
) -> None:
    """A verifier that the restored table does not know may be answering 200."""
    settings, clock = make_settings(database_url), FakeClock()
    async with running_issuer(settings, clock) as issuer:
        await issuer.create_user("alice", PASSWORD)
        first, second = await log_in(issuer), await log_in(issuer)
        await confirm(issuer, first)
        epoch = await read_epoch(issuer)
    await asyncio.to_thread(back_up.take)
    async with running_issuer(settings, clock) as issuer:
        assert await read_epoch(issuer) == epoch, "a restart of ours changes nothing"
        lost = FakeVerifier(issuer)
        await lost.catch_up()
        await confirm(issuer, second)
        assert (await lost.follow()).head == 2
    await asyncio.to_thread(back_up.put_back)

    async with running_issuer(settings, clock) as issuer:
        assert pending(await confirm(issuer, first)) == ["database-continuity"]
        assert await read_epoch(issuer) != epoch
        lost.issuer = issuer
        assert (await lost.ask()).status_code == 409
        # Position 2 is given out again, for another entry.
        shown = await confirm(issuer, second)
        assert shown["position"] == 2
        assert pending(shown) == ["database-continuity"]

        look = issuer.issuer.feed.lease_watch.look
        await look()
        clock.advance(term(MAX_STALENESS) - 1)
        await look()
        assert pending(await confirm(issuer, second)) == ["database-continuity"]
        clock.advance(1.01)
        await look()
        assert pending(await confirm(issuer, second)) == []


@pytest.mark.parametrize(
    "change", ["a revocation", "a new follower", "a follower that came back"]
)
async def test_one_change_is_enough_to_detect_a_restored_database(
    database_url: str, back_up: BackUp, change: str
) -> None:
    settings, clock = make_settings(database_url), FakeClock()
    async with running_issuer(settings, clock) as issuer:
        await issuer.create_user("alice", PASSWORD)
        tokens = await log_in(issuer)
        epoch = await read_epoch(issuer)
        lapsed = FakeVerifier(issuer, allows_stale=True)
        await lapsed.catch_up()
        look = issuer.issuer.feed.lease_watch.look
        await look()
        clock.advance(term(30))
        await look()
    await asyncio.to_thread(back_up.take)
    async with running_issuer(settings, clock) as issuer:
        lapsed.issuer = issuer
        if change == "a revocation":
            await confirm(issuer, tokens)
        elif change == "a new follower":
            await FakeVerifier(issuer).take_snapshot()
        else:
            await lapsed.follow()
        assert await read_epoch(issuer) == epoch
    await asyncio.to_thread(back_up.put_back)
    async with running_issuer(settings, clock) as issuer:
        assert await read_epoch(issuer) != epoch


async def test_the_new_epoch_waits_for_followers_of_the_old_one(
    database_url: str,
) -> None:
    async with running_issuer(make_settings(database_url)) as issuer:
        await issuer.create_user("alice", PASSWORD)
        verifier = FakeVerifier(issuer)
        tokens = await log_in(issuer)
        await confirm(issuer, tokens)
        await verifier.catch_up()
        assert pending(await confirm(issuer, tokens)) == []
        assert await issuer.issuer.feed.continuity.begin_epoch()
        async with issuer.database.write() as db:
            await db.execute(text("UPDATE feed_head SET settled = true"))
        assert pending(await confirm(issuer, tokens)) == [verifier.id]
        assert (await verifier.ask()).status_code == 409
        await verifier.catch_up()
        assert pending(await confirm(issuer, tokens)) == []


async def test_a_new_epoch_lets_held_requests_take_the_snapshot(
    database_url: str,
) -> None:
    async with running_issuer(make_settings(database_url)) as issuer:
        verifier = FakeVerifier(issuer)
        await verifier.catch_up()
        held = asyncio.create_task(verifier.ask(wait=HELD))
        await asyncio.sleep(0)
        await issuer.issuer.feed.continuity.begin_epoch()
        async with asyncio.timeout(EARLY):
            assert (await held).status_code == 409


async def test_one_of_several_replicas_begins_the_new_epoch(database_url: str) -> None:
    async with running_issuer(make_settings(database_url)) as issuer:
        continuity = issuer.issuer.feed.continuity
        before = await continuity.read()
        begun = [
            await continuity.begin_epoch(instead_of=before.continuity) for _ in range(2)
        ]
        if not issuer.database.is_sqlite:
            # There the stored continuity is the same, and has not changed.
            assert None not in begun
            return
        assert begun[1] is None
        assert begun[0] == await read_epoch(issuer)


async def test_many_revocations_at_once_are_no_restored_database(
    database_url: str,
) -> None:
    """The witness of SQLite is always a little behind the database."""
    async with running_issuer(make_settings(database_url)) as issuer:
        await issuer.create_user("alice", PASSWORD)
        epoch = await read_epoch(issuer)
        verifiers = [FakeVerifier(issuer) for _ in range(5)]
        sessions = [await log_in(issuer) for _ in range(20)]
        await asyncio.gather(
            *(verifier.take_snapshot() for verifier in verifiers),
            *(confirm(issuer, tokens) for tokens in sessions),
            *(read_epoch(issuer) for _ in range(20)),
        )
        assert await read_epoch(issuer) == epoch


async def test_a_witness_that_was_lost_begins_a_new_epoch(sqlite_url: str) -> None:
    settings = make_settings(sqlite_url)
    witness = Path(f"{make_url(sqlite_url).database}-witness")
    async with running_issuer(settings) as issuer:
        epoch = await read_epoch(issuer)
    witness.unlink()
    async with running_issuer(settings) as issuer:
        # Of many concurrent detections one begins it, and none returns the old one.
        found = await asyncio.gather(*(read_epoch(issuer) for _ in range(8)))
        assert len(set(found)) == 1
        assert found[0] != epoch
        assert await read_epoch(issuer) == found[0]


async def test_witness_that_cannot_be_read_is_no_restored_database(
    sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """No descriptor left, say: the feed answers 503, and no epoch begins."""
    witness = Path(f"{make_url(sqlite_url).database}-witness")
    async with running_issuer(make_settings(sqlite_url)) as issuer:
        epoch = await read_epoch(issuer)
        witness.rename(kept := witness.with_name("kept"))
        witness.mkdir()
        with pytest.raises(UnavailableError):
            await read_epoch(issuer)
        answer = await issuer.operators.get("/readyz")
        assert answer.status_code == 503
        assert f"{witness} cannot be read: Is a directory" in answer.json()["reason"]
        assert "background.failed" not in caplog.text
        witness.rmdir()
        kept.rename(witness)
        assert await read_epoch(issuer) == epoch


async def test_witness_that_cannot_be_written_is_written_later(
    sqlite_url: str,
) -> None:
    """The revocation is committed: its request succeeds, and no epoch begins."""
    witness = Path(f"{make_url(sqlite_url).database}-witness")
    async with running_issuer(make_settings(sqlite_url)) as issuer:
        await issuer.create_user("alice", PASSWORD)
        first, second = await log_in(issuer), await log_in(issuer)
        epoch = await read_epoch(issuer)
        word = witness.read_text()
        with read_only(witness):
            await confirm(issuer, first)
            await confirm(issuer, second)
            assert await read_epoch(issuer) == epoch
            assert witness.read_text() == word
        assert await read_epoch(issuer) == epoch
        assert witness.read_text() != word
    async with running_issuer(make_settings(sqlite_url)) as issuer:
        assert await read_epoch(issuer) == epoch


@pytest.mark.parametrize("is_in_use", [True, False])
def test_only_a_database_never_used_is_settled_by_its_upgrade(
    tmp_path: Path, is_in_use: bool
) -> None:
    """Verifiers of before the upgrade stand in no row, and may be answering 200."""
    path = tmp_path / "issuer.db"
    upgrade_to("0001", path)
    with closing(sqlite3.connect(path)) as db:
        before = db.execute("SELECT epoch FROM feed_head").fetchone()
        if is_in_use:
            db.execute(
                "INSERT INTO signing_keys (kid, state, public_jwk, kek_id, created_at)"
                " VALUES ('k', 'gone', '{}', 'k1', 0)"
            )
        db.commit()
    upgrade_to("0002", path)
    with closing(sqlite3.connect(path)) as db:
        row = db.execute("SELECT epoch, settled, continuity FROM feed_head").fetchone()
    assert (row[0] == before[0], bool(row[1])) == (not is_in_use, not is_in_use)
    assert row[2] == Path(f"{path}-witness").read_text()


def upgrade_to(revision: str, path: Path) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.set_main_option("path_separator", "os")
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()


async def test_a_revocation_before_the_first_look_does_not_hide_the_restore(
    sqlite_url: str,
) -> None:
    """A new word over one without a witness would make the two agree again."""
    witness = Path(f"{make_url(sqlite_url).database}-witness")
    async with running_issuer(make_settings(sqlite_url)) as issuer:
        epoch = await read_epoch(issuer)
        witness.write_text("of another state")
        position = await issuer.issuer.revoking.revocations.revoke_token(
            "a-jti", Caller(), actor="system"
        )
        assert position.epoch != epoch
        reading = await issuer.issuer.feed.continuity.read()
        assert (reading.epoch, reading.settled) == (position.epoch, False)
