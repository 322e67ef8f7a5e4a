"""Puts live entries straight into the feed's tables."""

from __future__ import annotations

import time

from sqlalchemy import text

from issuer.storage.db import Database

# A session's id is a UUID: keys of the same length.
_POSTGRES = """
    INSERT INTO feed_entries (seq, kind, key, minimum_generation, prune_at)
    SELECT :head + n, {kind}, gen_random_uuid()::text, {generation}, :end
    FROM generate_series(1, :count) n
"""
_SQLITE = """
    WITH RECURSIVE numbers (n) AS (
        SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < :count
    )
    INSERT INTO feed_entries (seq, kind, key, minimum_generation, prune_at)
    SELECT :head + n, {kind}, lower(hex(randomblob(18))), {generation}, :end
    FROM numbers
"""
_SESSIONS = {"kind": "'sid'", "generation": "0"}
#: Of ten entries one is a user with a generation of 1 to 3, and one a single token.
_MIXED = {
    "kind": "CASE n % 10 WHEN 0 THEN 'user' WHEN 1 THEN 'jti' ELSE 'sid' END",
    "generation": "CASE n % 10 WHEN 0 THEN 1 + n % 3 ELSE 0 END",
}


async def fill(url: str, count: int, *, is_mixed: bool = False) -> None:
    """Add `count` entries that live for an hour, and set the head to the last.

    Args:
        url: of the database; an issuer that runs may use it, and learns of them with
            its next entry.
        count: how many.
        is_mixed: of all kinds, not sessions only.
    """
    database = Database(url, pool_size=1)
    try:
        async with database.write() as db:
            insert = _SQLITE if database.is_sqlite else _POSTGRES
            insert = insert.format(**(_MIXED if is_mixed else _SESSIONS))
            head = await db.scalar(text("SELECT seq FROM feed_head"))
            end = int(time.time()) + 3_600
            given = {"head": head, "count": count, "end": end}
            await db.execute(text(insert), given)
            moved = {"head": head + count}
            await db.execute(text("UPDATE feed_head SET seq = :head"), moved)
    finally:
        await database.close()
