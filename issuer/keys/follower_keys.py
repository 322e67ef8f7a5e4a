"""Which verifiers have the published keys, as they say themselves.

A verifier names itself when it asks for the JWKS, and shows by `If-None-Match` which one
it has: what it has is proven, not what was sent to it. Written in the background, many
in one statement; nobody waits for it, and it is said again with the next request.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import orjson
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.storage.db import Database
from issuer.storage.tables.feed import FollowerRow
from issuer.storage.tables.keys import FollowerKeys

_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
#: Followers remembered between two writes: anybody can name any.
_MOST: Final = 20_000
# Only who stands in `followers` is written. In order of the ids, so that replicas lock
# rows in the same order.
_RECORD: Final = """
    INSERT INTO follower_keys (follower_id, etag)
    SELECT f.id, r.etag FROM {reports} JOIN followers AS f ON f.id = r.id
    WHERE true ORDER BY f.id
    ON CONFLICT (follower_id) DO UPDATE SET etag = excluded.etag
    """
_RECORD_POSTGRES: Final = text(
    _RECORD.format(
        reports="jsonb_to_recordset(CAST(:reports AS jsonb)) AS r (id text, etag text)"
    )
)
_RECORD_SQLITE: Final = text(_RECORD.format(reports="""(
            SELECT json_extract(value, '$.id') AS id,
                json_extract(value, '$.etag') AS etag
            FROM json_each(:reports)
        ) AS r"""))


class KeysAwaited(NamedTuple):
    """How far the verifiers are that may be answering 200.

    Attributes:
        behind: how many have said that they do not have the published keys yet.
        silent: how many say nothing of keys: an older program, or a cache answers them.
    """

    behind: int = 0
    silent: int = 0


class FollowerKeyReports:
    """Takes down what verifiers say they have.

    Args:
        database: where it is kept.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[str, str] = {}

    def note(self, follower_id: str, etag: str) -> None:
        """Remember what a verifier has, to be written with the next `write`.

        Anybody can send anything here: what is no id of ours is dropped. Who knows an id
        can speak for that verifier, and so hasten or delay a rotation, no more.

        Args:
            follower_id: its UUID.
            etag: of the JWKS it has; empty: not the published one.
        """
        is_known = follower_id in self._waiting
        if _UUID.fullmatch(follower_id) and (is_known or len(self._waiting) < _MOST):
            self._waiting[follower_id] = etag

    async def write(self) -> None:
        """Write what was noted since the last time.

        Raises:
            UnavailableError: when the database is away; it is kept for the next time.
        """
        waiting = self._waiting
        if not waiting:
            return
        self._waiting = {}
        reports = [{"id": id, "etag": etag} for id, etag in waiting.items()]
        statement = _RECORD_SQLITE if self._database.is_sqlite else _RECORD_POSTGRES
        try:
            async with self._database.write() as db:
                await db.execute(statement, {"reports": orjson.dumps(reports).decode()})
        except BaseException:
            self._waiting = waiting | self._waiting
            raise

    @staticmethod
    async def read_awaited(db: AsyncSession, etag: str) -> KeysAwaited:
        """Return how far the verifiers are that revocations are confirmed by.

        Args:
            db: the caller's transaction.
            etag: of the JWKS as it is published now.
        """
        rows = await db.execute(
            select(FollowerKeys.etag)
            .select_from(FollowerRow)
            .outerjoin(FollowerKeys, FollowerKeys.follower_id == FollowerRow.id)
            .where(FollowerRow.lapsed_at.is_(None))
        )
        known = [row.etag for row in rows]
        silent = known.count(None)
        return KeysAwaited(len(known) - silent - known.count(etag), silent)
