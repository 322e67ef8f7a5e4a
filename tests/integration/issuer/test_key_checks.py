"""The settings' keys are those the database was written with, or nothing starts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection, delete, func, inspect, select

from issuer.keys.check_values import WrongKeyError
from issuer.migrations.versions import r0008_key_checks
from issuer.settings.issuer_settings import IssuerSettings, KeyRing
from issuer.startup.key_checks import require_right_keys, warn_of_removed_keys
from issuer.storage.db import Database
from issuer.storage.tables.keys import KeyCheck
from tests.support.issuer_harness import make_settings, running_issuer
from tests.support.issuer_story import PASSWORD, log_in, post_login
from tests.support.login_story import enrol
from tests.support.processes import eventually

NOW = 1_795_353_633
RINGS = ("key_encryption_keys", "password_peppers", "refresh_keys")
#: The harness's ids, and other keys under them.
WRONG: Mapping[str, KeyRing] = {
    "key_encryption_keys": KeyRing(k1=b"\x11" * 32),
    "password_peppers": KeyRing(p1=b"\x12" * 32),
    "refresh_keys": KeyRing(r1=b"\x13" * 32),
}


class Used(NamedTuple):
    """A database that an issuer was at work on until now."""

    database: Database
    settings: IssuerSettings


@pytest.fixture
async def used(database_url: str) -> AsyncIterator[Used]:
    """Two users with passwords and a session each, one of them with a second factor.

    It has no check values, as an older program leaves it.
    """
    settings = make_settings(database_url)
    async with running_issuer(settings) as issuer:
        await issuer.create_user("alice", PASSWORD)
        await issuer.create_user("bob", PASSWORD)
        await enrol(issuer, await log_in(issuer, "alice"))
        await log_in(issuer, "bob")
    database = Database(database_url)
    async with database.write() as db:
        await db.execute(delete(KeyCheck))
    yield Used(database, settings)
    await database.close()


async def read_checked(database: Database) -> set[tuple[str, str]]:
    async with database.read() as db:
        rows = await db.execute(select(KeyCheck.ring, KeyCheck.key_id))
        return {(row.ring, row.key_id) for row in rows}


async def refused(database: Database, settings: IssuerSettings) -> str:
    with pytest.raises(WrongKeyError) as caught:
        await require_right_keys(database, settings, now=NOW)
    return str(caught.value)


async def test_a_new_database_takes_every_key_down(database_url: str) -> None:
    settings, database = make_settings(database_url), Database(database_url)
    for _ in range(2):
        await require_right_keys(database, settings, now=NOW)
    assert await read_checked(database) == {
        ("key_encryption_keys", "k1"),
        ("password_peppers", "p1"),
        ("refresh_keys", "r1"),
    }
    await database.close()


@pytest.mark.parametrize("ring", RINGS)
async def test_another_key_under_a_known_id_is_refused_by_its_setting(
    database_url: str, ring: str
) -> None:
    settings, database = make_settings(database_url), Database(database_url)
    await require_right_keys(database, settings, now=NOW)
    wrong = make_settings(database_url, **{ring: WRONG[ring]})
    shown = await refused(database, wrong)
    assert shown.startswith(f"ISSUER_{ring.upper()}: the key with id ")
    assert len(shown.splitlines()) == 1
    await require_right_keys(database, settings, now=NOW)
    await database.close()


async def test_several_wrong_keys_are_a_line_each(database_url: str) -> None:
    database = Database(database_url)
    await require_right_keys(database, make_settings(database_url), now=NOW)
    shown = await refused(database, make_settings(database_url, **WRONG))
    lines = shown.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        f"ISSUER_{ring.upper()}" for ring in RINGS
    ]
    await database.close()


@pytest.mark.parametrize("ring", RINGS)
async def test_a_ring_can_be_rotated(database_url: str, ring: str) -> None:
    """A key is put in front, and the old one leaves later; each is compared from
    then.
    """
    database = Database(database_url)
    old: KeyRing = getattr(make_settings(database_url), ring)
    fresh = KeyRing(n1=b"\x21" * 32)
    for keys in (old, KeyRing(fresh | old), KeyRing(old | fresh), fresh):
        settings = make_settings(database_url, **{ring: keys})
        if keys is fresh and ring == "key_encryption_keys":
            # The signing key moves first, as reencrypt-keys does.
            both = make_settings(database_url, **{ring: KeyRing(fresh | old)})
            async with running_issuer(both) as issuer:
                ring_of_both = both.key_encryption_keys
                await issuer.issuer.keys.rotation.reencrypt(ring_of_both, actor="test")
        await require_right_keys(database, settings, now=NOW)
    assert (ring, "n1") in await read_checked(database)
    wrong = make_settings(database_url, **{ring: KeyRing(n1=b"\x22" * 32)})
    assert "id n1" in await refused(database, wrong)
    await database.close()


async def test_one_of_two_first_starts_with_different_keys_is_refused(
    database_url: str,
) -> None:
    database = Database(database_url)
    outcomes = await asyncio.gather(
        require_right_keys(database, make_settings(database_url), now=NOW),
        require_right_keys(
            database,
            make_settings(database_url, refresh_keys=WRONG["refresh_keys"]),
            now=NOW,
        ),
        return_exceptions=True,
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == [
        "NoneType",
        "WrongKeyError",
    ]
    await database.close()


# --- a database of an older program, which has no check values ------------------------


@pytest.mark.parametrize("ring", ["key_encryption_keys", "refresh_keys"])
async def test_a_key_without_check_values_must_decrypt_the_stored_secrets(
    used: Used, ring: str
) -> None:
    wrong = make_settings(used.settings.database_url, **{ring: WRONG[ring]})
    assert f"ISSUER_{ring.upper()}: " in await refused(used.database, wrong)
    assert not await read_checked(used.database), "a wrong key was taken down"
    await require_right_keys(used.database, used.settings, now=NOW)
    assert (ring, WRONG[ring].current_id) in await read_checked(used.database)


async def test_a_pepper_without_check_values_is_proved_by_a_right_password(
    used: Used,
) -> None:
    """A wrong pepper must not be taken down for the right one."""
    url = used.settings.database_url
    pepper = ("password_peppers", "p1")
    wrong = make_settings(url, password_peppers=WRONG["password_peppers"])
    await require_right_keys(used.database, wrong, now=NOW)
    assert pepper not in await read_checked(used.database)
    async with running_issuer(wrong) as issuer:
        assert (await post_login(issuer, "bob")).status_code == 401
        await issuer.issuer.keys.proofs.write()
        assert pepper not in await read_checked(used.database)
    async with running_issuer(used.settings) as issuer:
        await log_in(issuer, "bob")

        async def is_taken_down() -> bool:
            return pepper in await read_checked(issuer.database)

        await eventually(is_taken_down)
    assert "ISSUER_PASSWORD_PEPPERS: " in await refused(used.database, wrong)


# --- keys that left their ring --------------------------------------------------------


@pytest.mark.parametrize(
    ("ring", "key_id", "count"),
    [
        ("password_peppers", "p1", 2),
        ("key_encryption_keys", "k1", 1),
        ("refresh_keys", "", 2),
    ],
)
async def test_removal_of_a_needed_key_gives_a_warning(
    used: Used,
    ring: str,
    key_id: str,
    count: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Unverifiable hashes, factors that cannot be decrypted, ended sessions."""
    await require_right_keys(used.database, used.settings, now=NOW)
    await warn_of_removed_keys(used.database, used.settings, now=NOW)
    assert "keys.still_needed" not in caplog.messages
    without = make_settings(
        used.settings.database_url, **{ring: KeyRing(n1=b"\x21" * 32)}
    )
    await require_right_keys(used.database, without, now=NOW)
    await warn_of_removed_keys(used.database, without, now=NOW)
    (record,) = (r for r in caplog.records if r.getMessage() == "keys.still_needed")
    assert record.fields["setting"] == f"ISSUER_{ring.upper()}"
    assert (record.fields["key_id"], record.fields["count"]) == (key_id, count)


# --- beside older programs ------------------------------------------------------------


async def test_revision_0008_adds_two_tables_and_changes_no_other(
    database_url: str,
) -> None:
    """A program of revision 0007 goes on beside it, during a rolling upgrade."""
    database = Database(database_url)

    def describe(connection: Connection) -> dict[str, list[str]]:
        inspector = inspect(connection)
        return {
            table: [str(column) for column in inspector.get_columns(table)]
            for table in inspector.get_table_names()
        }

    def drop_and_create(connection: Connection) -> tuple[object, object]:
        after = describe(connection)
        operations = Operations(MigrationContext.configure(connection))
        for table in ("key_checks", "write_probes"):
            operations.drop_table(table)
        before = describe(connection)
        with Operations.context(MigrationContext.configure(connection)):
            r0008_key_checks.upgrade()
        assert describe(connection) == after
        return before, after

    async with database.write() as db:
        connection = await db.connection()
        before, after = await connection.run_sync(drop_and_create)
    assert set(after) - set(before) == {"key_checks", "write_probes"}
    assert all(after[table] == before[table] for table in before)
    async with database.read() as db:
        assert await db.scalar(select(func.count()).select_from(KeyCheck)) == 0
    await database.close()
