"""Every change of the audit log behind the issuer's back is found.

The attacker owns the database file and has this program; the keys of the settings
are missing.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from issuer import migrations
from issuer.acts import Act, Caller
from issuer.audit.chain import GENESIS, Head, link
from issuer.audit.verification import AuditBrokenError, AuditVerifier, Verified
from issuer.composition import Issuer, compose
from issuer.storage.tables.audit import AuditEvent
from tests.support.issuer_harness import make_settings
from tests.support.proofs import examples

pytestmark = pytest.mark.proof

EVENTS = 8
COLUMNS = ("at", "event", "actor", "subject", "address", "correlation_id", "facts")


def composed(path: Path) -> Issuer:
    return compose(make_settings(f"sqlite+aiosqlite:///{path}"))


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Head]:
    """A database with some linked events, and the head an operator noted."""
    path = tmp_path_factory.mktemp("audit") / "issuer.db"
    migrations.upgrade(f"sqlite+aiosqlite:///{path}")

    async def fill() -> Head:
        issuer = composed(path)
        for number in range(EVENTS):
            async with issuer.base.database.write() as db:
                act = Act("thing.done", f"actor-{number}", "subject", {"n": number})
                await issuer.base.audit(db, act, Caller())
        await issuer.audit.linker.link()
        head = await issuer.audit.linker.head()
        await issuer.close()
        return head

    return path, asyncio.run(fill())


def verify(path: Path, expected: Head | None) -> Verified:
    async def run() -> Verified:
        issuer = composed(path)
        try:
            return await AuditVerifier(
                issuer.base.database, issuer.audit.log.sealer
            ).verify(expected)
        finally:
            await issuer.close()

    return asyncio.run(run())


@contextmanager
def tampering(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the file as its owner can, without the triggers."""
    with closing(sqlite3.connect(path)) as db:
        query = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        for (name,) in db.execute(query).fetchall():
            db.execute(f"DROP TRIGGER {name}")
        yield db
        db.commit()


def relink(db: sqlite3.Connection) -> None:
    """Make every digest fit again; the seals cannot be made."""
    head = Head(0, GENESIS)
    names = ", ".join(f"e.{name}" for name in ("id", *COLUMNS, "seal"))
    rows = db.execute(
        f"SELECT {names}, l.seq FROM audit_links AS l JOIN audit_events AS e "
        "ON e.id = l.event_id ORDER BY l.seq"
    ).fetchall()
    for *values, seq in rows:
        row = AuditEvent(**dict(zip(("id", *COLUMNS, "seal"), values, strict=True)))
        head = link(head, row)
        change = "UPDATE audit_links SET digest = ? WHERE seq = ?"
        db.execute(change, (head.digest, seq))


def change_column(db: sqlite3.Connection, one: int, other: int) -> None:
    name = COLUMNS[other % len(COLUMNS)]
    text = 1 if name == "at" else '{"n":99}' if name == "facts" else "x"
    db.execute(f"UPDATE audit_events SET {name} = ? WHERE id = ?", (text, one))


def remove(db: sqlite3.Connection, one: int, _other: int) -> None:
    db.execute("DELETE FROM audit_links WHERE seq = ?", (one,))
    db.execute("DELETE FROM audit_events WHERE id = ?", (one,))


def remove_and_close_up(db: sqlite3.Connection, one: int, other: int) -> None:
    remove(db, one, other)
    # One after the other, for the numbers are unique at every moment.
    for seq in range(one + 1, EVENTS + 1):
        db.execute("UPDATE audit_links SET seq = ? WHERE seq = ?", (seq - 1, seq))


def swap(db: sqlite3.Connection, one: int, other: int) -> None:
    if one == other:
        other = one % EVENTS + 1
    for event_id, seq in ((0, one), (one, other), (other, one)):
        change = "UPDATE audit_links SET event_id = ? WHERE seq = ?"
        db.execute(change, (event_id, seq))


def swap_contents(db: sqlite3.Connection, one: int, other: int) -> None:
    if one == other:
        other = one % EVENTS + 1
    for old, new in ((one, 0), (other, one), (0, other)):
        db.execute("UPDATE audit_events SET id = ? WHERE id = ?", (new, old))


def insert(db: sqlite3.Connection, one: int, _other: int) -> None:
    """A row with the seal of another, linked behind the last."""
    names = ", ".join((*COLUMNS, "seal"))
    made = db.execute(
        f"INSERT INTO audit_events ({names}) SELECT {names} FROM audit_events "
        "WHERE id = ?",
        (one,),
    )
    db.execute(
        "INSERT INTO audit_links SELECT ?, ?, digest, seal FROM audit_links "
        "WHERE seq = ?",
        (EVENTS + 1, made.lastrowid, one),
    )


def cut_off(db: sqlite3.Connection, one: int, _other: int) -> None:
    db.execute("DELETE FROM audit_links WHERE seq >= ?", (one,))
    db.execute("DELETE FROM audit_events WHERE id >= ?", (one,))


def empty(db: sqlite3.Connection, _one: int, _other: int) -> None:
    for table in ("audit_links", "audit_events", "audit_unlinked"):
        db.execute(f"DELETE FROM {table}")


ACTS = [
    change_column,
    remove,
    remove_and_close_up,
    swap,
    swap_contents,
    insert,
    cut_off,
    empty,
]
#: Changes that leave a chain that is whole in itself.
ONLY_AGAINST_A_NOTED_HEAD = {cut_off, empty}


def test_an_intact_log_is_in_order(intact: tuple[Path, Head]) -> None:
    path, head = intact
    assert verify(path, head).head == head


@settings(
    max_examples=examples(60),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    act=st.sampled_from(ACTS),
    one=st.integers(1, EVENTS),
    other=st.integers(1, EVENTS),
    relinks=st.booleans(),
    expects=st.booleans(),
)
def test_every_tampering_is_found(
    intact: tuple[Path, Head],
    tmp_path: Path,
    act: object,
    one: int,
    other: int,
    relinks: bool,
    expects: bool,
) -> None:
    """Also when all digests were made to fit again."""
    source, head = intact
    path = tmp_path / "tampered.db"
    shutil.copyfile(source, path)
    with tampering(path) as db:
        assert callable(act)
        act(db, one, other)
        if relinks:
            relink(db)
    is_whole_in_itself = act in ONLY_AGAINST_A_NOTED_HEAD
    # The last one removed is an end cut off.
    is_whole_in_itself |= act in {remove, remove_and_close_up} and one == EVENTS
    expected = head if expects or is_whole_in_itself else None
    with pytest.raises(AuditBrokenError):
        verify(path, expected)
