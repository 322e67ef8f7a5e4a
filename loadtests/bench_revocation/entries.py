"""Puts live entries straight into the feed's tables."""

from __future__ import annotations

import time

from sqlalchemy import text

from issuer.storage.db import Database

# A session's id is a UUID: keys of the same length.
_POSTGRES = """
    INSERT INTO feed_entries (seq, kind, key, minimum_generation, prune_at)
    SELECT n, 'sid', gen_random_uuid()::text, 0, :end FROM generate_series(1, :count) n
"""
_SQLITE = """
    WITH RECURSIVE numbers (n) AS (
        SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count
    )
    INSERT INTO feed_entries (seq, kind, key, minimum_generation, prune_at)
    SELECT n, 'sid', lower(hex(randomblob(18))), 0, :end FROM numbers
"""


async def fill(url: str, count: int) -> None:
    """Write `count` entries that live for an hour, and set the head to the last."""
    database = Database(url, pool_size=1)
    try:
        async with database.write() as db:
            insert = _SQLITE if database.is_sqlite else _POSTGRES
            given = {"count": count, "end": int(time.time()) + 3_600}
            await db.execute(text(insert), given)
            await db.execute(text("UPDATE feed_head SET seq = :count"), given)
    finally:
        await database.close()
