"""The costliest password hashes in the database, one row per family, for all replicas.

A failed login must take as long as the costliest of them (`hash_times.py`), and a query
of the users' table would read all of it. So a separate table has each family's largest
amount: raised when hashes are stored and at each start, lowered by a count once a day.
The count is one pass over the users; it also fills the table at first.

A row's version rises whenever hashes of its family are stored, so that a count that
began before cannot lower the row below them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, NamedTuple

from sqlalchemy import case, delete, func, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.clock import seconds
from issuer.errors import OverloadedError
from issuer.foundation import Foundation
from issuer.hashing.hash_times import HashTimes
from issuer.hashing.hash_work import Family, Work, bcrypt_work
from issuer.hashing.hashing_pool import HashingPool
from issuer.hashing.passwords import (
    AMOUNT_DIGITS,
    BCRYPT_SCHEMES,
    PasswordHasher,
    name_foreign,
)
from issuer.storage.db import Database
from issuer.storage.tables.login import StoredWork
from issuer.storage.tables.users import User

_COUNT_EVERY: Final = 86_400
#: The last characters of a bcrypt string, from the cost: `12$` and 53 more.
_BCRYPT_TAIL: Final = 56
_COST_DIGITS: Final = 2


class _Row(NamedTuple):
    amount: int
    version: int
    counted_at: int


_Rows = Mapping[Family, _Row]


class CostliestHashes:
    """Reads the costliest stored hashes, and measures those without logins.

    Args:
        base: gives the database and the clock.
        hasher: computes hashes.
        pool: runs the hasher.
        times: gets the costliest hashes.
    """

    def __init__(
        self,
        base: Foundation,
        hasher: PasswordHasher,
        pool: HashingPool,
        times: HashTimes,
    ) -> None:
        self._database = base.database
        self._hasher = hasher
        self._pool = pool
        self._times = times
        self._clock = base.clock

    async def refresh(self) -> None:
        """Read the costliest hashes, count them daily, and measure missing durations.

        Raises:
            UnavailableError: when the database is away.
        """
        now = seconds(self._clock)
        present = self._times.present
        async with self._database.read() as db:
            rows = await _read(db)
        own = rows.get(present.family)
        if own is None or own.amount < present.amount:
            async with self._database.write() as db:
                await note_stored(self._database, db, present)
                rows = await _read(db)
        counted_at = rows[present.family].counted_at
        if not 0 <= now - counted_at < _COUNT_EVERY:
            rows = await self._count(rows, now)
        self._times.expect(Work(family, row.amount) for family, row in rows.items())
        for work in self._times.unmeasured():
            try:
                await self._pool.run(partial(self._hasher.run_reference, work))
            except OverloadedError:
                return  # the next round tries again

    async def note(self, db: AsyncSession, work: Work | None) -> None:
        """Store the work of a hash that exceeds the known ones.

        A program of an older version, or with other settings, has stored it.
        """
        if work is not None and not self._times.is_expected(work):
            await note_stored(self._database, db, work)

    async def _count(self, before: _Rows, now: int) -> _Rows:
        """Set each row to the costliest hash stored now, and return the rows."""
        async with self._database.read() as db:
            found = await _count_stored(db)
        present = self._times.present
        found[present.family] = max(found.get(present.family, 0), present.amount)
        async with self._database.write() as db:
            for family, row in before.items():
                is_unchanged = (
                    StoredWork.family == family,
                    StoredWork.version == row.version,
                )
                if family in found:
                    values = {"amount": found[family], "counted_at": now}
                    await db.execute(
                        update(StoredWork).where(*is_unchanged).values(values)
                    )
                else:
                    await db.execute(delete(StoredWork).where(*is_unchanged))
            for family in found.keys() - before.keys():
                await note_stored(self._database, db, Work(family, found[family]))
            return await _read(db)


async def note_stored(database: Database, db: AsyncSession, work: Work) -> None:
    """Record the work of a hash that this transaction stores.

    Args:
        database: has the record.
        db: a write transaction.
        work: of the hash.
    """
    insert = sqlite.insert if database.is_sqlite else postgresql.insert
    statement = insert(StoredWork).values(
        family=work.family.value, amount=work.amount, version=1, counted_at=0
    )
    larger = case(
        (StoredWork.amount < work.amount, work.amount), else_=StoredWork.amount
    )
    await db.execute(
        statement.on_conflict_do_update(
            index_elements=["family"],
            set_={"amount": larger, "version": StoredWork.version + 1},
        )
    )


async def _read(db: AsyncSession) -> _Rows:
    query = select(
        StoredWork.family,
        StoredWork.amount,
        StoredWork.version,
        StoredWork.counted_at,
    ).where(StoredWork.family.in_([family.value for family in Family]))
    rows = await db.execute(query)
    return {Family(family): _Row(*counts) for family, *counts in rows}


async def _count_stored(db: AsyncSession) -> dict[Family, int]:
    """Return the largest amount of each family in the users' table, in one pass."""
    stored = User.password_hash
    is_bcrypt = or_(*(stored.startswith(scheme) for scheme in BCRYPT_SCHEMES))
    cost = func.substr(stored, func.length(stored) - (_BCRYPT_TAIL - 1), _COST_DIGITS)
    columns = [func.max(case((is_bcrypt, cost)))]
    readers: list[tuple[Family, Callable[[int], int]]] = [
        (Family.BCRYPT, lambda cost: bcrypt_work(cost).amount)
    ]
    for family in Family:
        if family is not Family.BCRYPT:
            prefix = name_foreign(family)
            amount = func.substr(stored, len(prefix) + 1, AMOUNT_DIGITS)
            columns.append(func.max(case((stored.startswith(prefix), amount))))
            readers.append((family, lambda amount: amount))
    row = (await db.execute(select(*columns).select_from(User))).one()
    found = {}
    for (family, read), text in zip(readers, row, strict=True):
        # A damaged row can have any text there; every login with it is refused.
        if text is not None and text.isascii() and text.isdigit():
            found[family] = read(int(text))
    return found
