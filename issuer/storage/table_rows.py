"""How many rows each table has, so that operators see a table that grows (R39)."""

from __future__ import annotations

from sqlalchemy import func, select, text

from issuer.storage.db import Database
from issuer.storage.tables import Base

#: Rows of one table that are counted in SQLite: it reads every one of them.
MOST_COUNTED = 1_000_000
# PostgreSQL keeps an estimate; a count would read each table.
_ESTIMATES = text(
    "SELECT relname, n_live_tup FROM pg_stat_user_tables"
    " WHERE relid = to_regclass(quote_ident(relname))"
)


async def count_rows(database: Database, most: int = MOST_COUNTED) -> dict[str, int]:
    """Return the rows of each of our tables, by its name.

    On PostgreSQL it is the server's estimate.

    Args:
        database: to look at.
        most: rows of one table that are counted in SQLite.

    Raises:
        UnavailableError: the database is away.
    """
    names = Base.metadata.tables.keys()
    async with database.read() as db:
        if not database.is_sqlite:
            rows = await db.execute(_ESTIMATES)
            return {name: count for name, count in rows if name in names}
        counts: dict[str, int] = {}
        for name, table in Base.metadata.tables.items():
            some = select(table.c[next(iter(table.primary_key)).name])
            counted = select(func.count()).select_from(some.limit(most).subquery())
            counts[name] = (await db.execute(counted)).scalar_one()
        return counts
