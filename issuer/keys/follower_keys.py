"""Which verifiers have the published keys, by their own requests.

A verifier names itself when it requests the JWKS, and its `If-None-Match` proves which
JWKS it has. These reports are written in the background, many in one statement. A lost
report is repeated with the next request.
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
#: Followers remembered between two writes; bounded, because anyone can send ids.
_MOST: Final = 20_000
# Only rows of `followers` are written, in order of the ids, so that replicas lock rows
# in the same order.
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
    """How many of the verifiers that may be answering 200 lack the published keys.

    Attributes:
        behind: verifiers that have reported other keys than the published ones.
        silent: verifiers without reports: older programs, or those behind a cache.
    """

    behind: int = 0
    silent: int = 0


class FollowerKeyReports:
    """Stores the reports of verifiers.

    Args:
        database: has the reports.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[str, str] = {}

    def note(self, follower_id: str, etag: str) -> None:
        """Remember a verifier's report for the next `write`.

        Anyone can send a report: unknown ids are dropped. A sender that knows an id can
        report for that verifier, and can only hasten or delay a rotation.

        Args:
            follower_id: its UUID.
            etag: of the JWKS it has; empty when it is not the published one.
        """
        is_known = follower_id in self._waiting
        if _UUID.fullmatch(follower_id) and (is_known or len(self._waiting) < _MOST):
            self._waiting[follower_id] = etag

    async def write(self) -> None:
        """Write the reports since the last call.

        Raises:
            UnavailableError: when the database is away; the reports are kept.
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
        """Return the counts for the verifiers that confirm revocations.

        Args:
            db: the caller's transaction.
            etag: of the JWKS published now.
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
