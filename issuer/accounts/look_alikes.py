"""Refuses new names that look like existing ones (requirement R36; UTS 39).

Each account stores the skeleton of its name, and the name it belongs to. An older
program that runs beside this one writes neither, so a row whose `skeleton_of` differs
from its name is due. These few rows are compared one by one until `fill` has written
their skeletons.

Existing names that look alike are not changed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from sqlalchemy import bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.accounts.skeletons import make_skeleton
from issuer.errors import ConflictError
from issuer.storage.advisory_locks import AdvisoryLock, take_lock
from issuer.storage.db import Database
from issuer.storage.tables.users import SKELETON_DUE, User

_BATCH: Final = 500
_TAKEN: Final = "The user name looks like one that is taken."
#: The rule in the refusal of an imported row.
LOOKS_TAKEN: Final = "looks like a name that is taken"


class LookAlikeError(ConflictError):
    """The name looks like that of another account."""

    code = "name_looks_taken"
    default_description = _TAKEN


def skeleton_values(name: str) -> dict[str, str]:
    """Return the columns to write with a name."""
    return {"name_skeleton": make_skeleton(name), "skeleton_of": name}


class LookAlikes:
    """Finds accounts whose names look like given ones.

    Args:
        database: has the accounts.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def require_distinct(
        self, db: AsyncSession, names: Collection[str], *, but: str = ""
    ) -> None:
        """Return when no account has a name that looks like one of these.

        A lock is held until the transaction ends, so only one of two concurrent
        look-alikes is accepted.

        Args:
            db: a write transaction that holds its roles and users already.
            names: in normal form.
            but: id of the account that is renamed.

        Raises:
            LookAlikeError: when one has.
        """
        await take_lock(self._database, db, AdvisoryLock.LOOK_ALIKES)
        if await self.find(db, names, but=but):
            raise LookAlikeError

    async def find(
        self, db: AsyncSession, names: Collection[str], *, but: str = ""
    ) -> set[str]:
        """Return the names that look like another existing one.

        An equal name is not returned: a taken name has its own answer.
        """
        wanted = {name: make_skeleton(name) for name in names}
        there: dict[str, set[str]] = {}
        kept = await db.execute(
            select(User.username, User.name_skeleton).where(
                User.name_skeleton.in_(set(wanted.values())),
                User.skeleton_of == User.username,
                User.id != but,
            )
        )
        for row in kept:
            there.setdefault(row.name_skeleton or "", set()).add(row.username)
        due = await db.scalars(
            select(User.username).where(SKELETON_DUE, User.id != but)
        )
        for username in due:
            there.setdefault(make_skeleton(username), set()).add(username)
        return {
            name for name, found in wanted.items() if there.get(found, set()) - {name}
        }

    async def fill(self) -> int:
        """Write the due skeletons and return their number.

        Raises:
            UnavailableError: when the database is away.
        """
        total = 0
        while True:
            # Read first: SQLite's write lock is not taken without need.
            async with self._database.read() as db:
                due = await _read_due(db)
            if not due:
                return total
            async with self._database.write() as db:
                await _write(db, due)
            total += len(due)


async def _read_due(db: AsyncSession) -> Mapping[str, str]:
    query = select(User.id, User.username).where(SKELETON_DUE)
    rows = await db.execute(query.order_by(User.id).limit(_BATCH))
    return {row.id: row.username for row in rows}


async def _write(db: AsyncSession, due: Mapping[str, str]) -> None:
    """Write the skeletons of names that have not changed."""
    statement = (
        update(User.__table__)  # type: ignore[arg-type]
        .where(
            User.__table__.c.id == bindparam("key"),
            User.__table__.c.username == bindparam("name"),
        )
        .values(name_skeleton=bindparam("skeleton"), skeleton_of=bindparam("name"))
    )
    rows: list[dict[str, Any]] = [
        {"key": key, "name": name, "skeleton": make_skeleton(name)}
        for key, name in due.items()
    ]
    await db.execute(statement, rows)
