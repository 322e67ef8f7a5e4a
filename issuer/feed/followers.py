"""The table of verifiers that may be answering 200, and the position each has applied.

Only the statements. `leases.py`, `lease_watch.py` and `confirmation.py` decide when
they run; docs/revocation.md has the proof.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import delete, or_, select, text, true, update
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.feed.continuity import Continuity, HeadReading
from issuer.feed.feed import Position
from issuer.feed.wake_ups import FOLLOWERS_CHANNEL
from issuer.storage.lifetimes import lies_ahead
from issuer.storage.tables.feed import FeedHead, FollowerRow

#: The position of a follower that has not reported one yet.
NOTHING_YET: Final = -1

# A report is valid for the present head only, not for another epoch or beyond the head.
# In order of the ids, so that replicas lock rows in the same order.
_RECORD: Final = """
    INSERT INTO followers (
        id, epoch, position, staleness_seconds, renewal, allows_stale, lapsed_at
    )
    SELECT r.id, h.epoch, r.position, r.staleness_seconds, r.renewal, r.allows_stale,
        NULL
    FROM {reports} JOIN feed_head AS h ON h.id = 1
    WHERE (r.epoch IS NULL OR r.epoch = h.epoch) AND r.position <= h.seq
        AND (r.renews OR EXISTS (
            SELECT 1 FROM followers AS f WHERE f.id = r.id AND f.lapsed_at IS NULL
        ))
    ORDER BY r.id
    ON CONFLICT (id) DO UPDATE SET
        epoch = excluded.epoch,
        position = CASE
            WHEN followers.epoch = excluded.epoch
                AND followers.position > excluded.position THEN followers.position
            ELSE excluded.position END,
        staleness_seconds = CASE
            WHEN followers.staleness_seconds > excluded.staleness_seconds
                THEN followers.staleness_seconds
            ELSE excluded.staleness_seconds END,
        renewal = excluded.renewal,
        allows_stale = excluded.allows_stale,
        lapsed_at = NULL
    RETURNING id, epoch, position
    """
_RECORD_POSTGRES: Final = text(
    _RECORD.format(
        reports="jsonb_to_recordset(CAST(:reports AS jsonb)) AS r (id text, "
        "epoch text, position bigint, staleness_seconds integer, renewal bigint, "
        "allows_stale boolean, renews boolean)"
    )
)
_RECORD_SQLITE: Final = text(_RECORD.format(reports="""(
            SELECT json_extract(value, '$.id') AS id,
                json_extract(value, '$.epoch') AS epoch,
                json_extract(value, '$.position') AS position,
                json_extract(value, '$.staleness_seconds') AS staleness_seconds,
                json_extract(value, '$.renewal') AS renewal,
                json_extract(value, '$.allows_stale') AS allows_stale,
                json_extract(value, '$.renews') AS renews
            FROM json_each(:reports)
        ) AS r"""))


class Follower(NamedTuple):
    """A verifier process as described by itself.

    Attributes:
        id: its UUID.
        staleness: seconds after its last complete answer until it answers 503.
        allows_stale: whether one of its policies still answers after that.
    """

    id: str
    staleness: int
    allows_stale: bool = False


class Report(NamedTuple):
    """The report in a follower's request.

    Attributes:
        follower: the sender.
        epoch: of `position`; None before the first answer: the present epoch.
        position: everything up to it is applied permanently; or `NOTHING_YET`.
        replaces: ids of ended processes whose copy it has taken over.
        renews: whether to insert a missing or lapsed row. Otherwise the report is only
            valid for an existing row that has not lapsed, because the process may have
            left since.
    """

    follower: Follower
    epoch: str | None
    position: int
    replaces: tuple[str, ...] = ()
    renews: bool = True

    @property
    def id(self) -> str:
        """The follower's UUID."""
        return self.follower.id


class Departure(NamedTuple):
    """A follower's departure: it answers no more checks, permanently.

    Attributes:
        id: its UUID.
        replaces: ids of ended processes whose copy it had taken over, and whose lease
            it may have used before it had its own.
    """

    id: str
    replaces: tuple[str, ...] = ()


async def record(
    db: AsyncSession, continuity: Continuity, reports: Collection[Report]
) -> dict[str, Position]:
    """Renew the rows of these followers and record what they have applied.

    The position of a follower only rises within an epoch, also when reports are late or
    repeated.

    Args:
        db: the caller's write transaction.
        continuity: prepared for new followers.
        reports: one per follower.

    Returns:
        The rows as written, by id. An id is missing when its report had another epoch
        or a position that was never assigned, or had no row and did not renew.
    """
    is_sqlite = db.get_bind().dialect.name == "sqlite"
    if is_sqlite:
        await _note_new(db, continuity, reports)
    rows = await db.execute(
        _RECORD_SQLITE if is_sqlite else _RECORD_POSTGRES,
        {"reports": orjson.dumps([_to_wire(report) for report in reports]).decode()},
    )
    recorded = {row.id: Position(row.epoch, row.position) for row in rows}
    replaced = [
        old
        for report in reports
        if report.follower.id in recorded
        for old in report.replaces
        if old not in recorded
    ]
    if replaced:
        await db.execute(delete(FollowerRow).where(FollowerRow.id.in_(replaced)))
    return recorded


async def notify_followers(db: AsyncSession) -> None:
    """Notify every replica on PostgreSQL, at the commit, of changed followers."""
    if db.get_bind().dialect.name != "sqlite":
        await db.execute(text(f"SELECT pg_notify('{FOLLOWERS_CHANNEL}', '')"))


class FollowerNow(NamedTuple):
    """One row of `followers`."""

    id: str
    epoch: str
    position: int
    staleness: int
    renewal: int
    allows_stale: bool
    lapsed_at: int | None


@dataclass(frozen=True)
class FollowersReading:
    """All followers at one time.

    Attributes:
        head: the counter row.
        followers: every row, in order of the ids.
    """

    head: HeadReading
    followers: tuple[FollowerNow, ...]

    @cached_property
    def awaited(self) -> tuple[FollowerNow, ...]:
        """The followers that may be answering 200 within their lease."""
        return tuple(f for f in self.followers if f.lapsed_at is None)

    @cached_property
    def exempt(self) -> tuple[str, ...]:
        """Ids of followers whose lease has run out and that may answer nevertheless."""
        return tuple(f.id for f in self.followers if f.lapsed_at is not None)

    @cached_property
    def least(self) -> int:
        """The position of the present epoch that every awaited follower has applied."""
        positions = (
            follower.position if follower.epoch == self.head.epoch else NOTHING_YET
            for follower in self.awaited
        )
        return min(positions, default=self.head.seq)

    def behind(self, position: int) -> tuple[str, ...]:
        """Return the ids of awaited followers that have not applied `position`."""
        return tuple(
            follower.id
            for follower in self.awaited
            if follower.epoch != self.head.epoch or follower.position < position
        )


async def read_followers(db: AsyncSession, continuity: Continuity) -> FollowersReading:
    """Return head and followers at one time, checked by `continuity`."""
    query = (
        select(
            *continuity.head_columns,
            FollowerRow.id,
            FollowerRow.epoch,
            FollowerRow.position,
            FollowerRow.staleness_seconds,
            FollowerRow.renewal,
            FollowerRow.allows_stale,
            FollowerRow.lapsed_at,
        )
        .select_from(FeedHead)
        .outerjoin(FollowerRow, true())
        .where(FeedHead.id == 1)
        .order_by(FollowerRow.id)
    )
    rows: Sequence[Any] = (await db.execute(query)).all()
    width = len(continuity.head_columns)
    return FollowersReading(
        HeadReading(*rows[0][:width]),
        tuple(FollowerNow(*row[width:]) for row in rows if row.id is not None),
    )


async def end_lease(db: AsyncSession, follower: FollowerNow, *, lapsed_at: int) -> bool:
    """End a lease that has run out, unless it was renewed meanwhile.

    Args:
        db: the caller's write transaction.
        follower: the unchanged row.
        lapsed_at: Unix seconds, kept when the follower allows stale answers.

    Returns:
        Whether this call ended it.
    """
    is_same = (
        FollowerRow.id == follower.id,
        FollowerRow.renewal == follower.renewal,
    )
    if follower.allows_stale:
        statement = (
            update(FollowerRow)
            .where(*is_same)
            .values(lapsed_at=lapsed_at)
            .returning(FollowerRow.id)
        )
        return await db.scalar(statement) is not None
    gone = delete(FollowerRow).where(*is_same).returning(FollowerRow.id)
    return await db.scalar(gone) is not None


async def leave(
    db: AsyncSession, departures: Collection[Departure], *, now: int
) -> dict[str, int]:
    """End the leases of followers that have left.

    A follower that allows stale answers stays listed as exempt, as when its lease runs
    out: its copy is on disk, and the next process may answer from it before it has a
    row. Ending a lease that does not exist changes nothing.

    Args:
        db: the caller's write transaction.
        departures: of the followers.
        now: Unix seconds.

    Returns:
        The positions of the followers whose leases ended here, by id.
    """
    ids = {departure.id for departure in departures}
    ids.update(old for departure in departures for old in departure.replaces)
    is_theirs = FollowerRow.id.in_(ids)
    what = (FollowerRow.id, FollowerRow.position)
    gone = await db.execute(
        delete(FollowerRow)
        .where(is_theirs, FollowerRow.allows_stale.is_(False))
        .returning(*what)
    )
    lapsed = await db.execute(
        update(FollowerRow)
        .where(is_theirs, FollowerRow.allows_stale, FollowerRow.lapsed_at.is_(None))
        .values(lapsed_at=now)
        .returning(*what)
    )
    return {row.id: row.position for row in (*gone, *lapsed)}


async def forget_lapsed(db: AsyncSession, before: int, now: int) -> None:
    """Delete rows that lapsed before this time, or in the future.

    Args:
        db: an open write transaction.
        before: Unix seconds.
        now: Unix seconds.
    """
    is_old = or_(FollowerRow.lapsed_at < before, lies_ahead(FollowerRow.lapsed_at, now))
    await db.execute(delete(FollowerRow).where(is_old))


async def settle(db: AsyncSession, epoch: str) -> bool:
    """Mark the epoch as settled; return whether it is the present one."""
    statement = (
        update(FeedHead)
        .where(FeedHead.epoch == epoch, FeedHead.settled.is_(False))
        .values(settled=True)
        .returning(FeedHead.id)
    )
    return await db.scalar(statement) is not None


async def _note_new(
    db: AsyncSession, continuity: Continuity, reports: Collection[Report]
) -> None:
    """Prepare for new followers: a restored database has no row for them.

    A follower with a lapsed row is new as well.
    """
    ids = {report.follower.id for report in reports if report.renews}
    is_awaited = FollowerRow.id.in_(ids) & FollowerRow.lapsed_at.is_(None)
    known = await db.scalars(select(FollowerRow.id).where(is_awaited))
    if ids - set(known):
        await continuity.change(db)


def _to_wire(report: Report) -> dict[str, object]:
    return {
        "id": report.follower.id,
        "epoch": report.epoch,
        "position": report.position,
        "staleness_seconds": report.follower.staleness,
        # Random, not a count: a row that was deleted and inserted again, or restored,
        # must never show a number that a replica has seen before.
        "renewal": secrets.randbits(62),
        "allows_stale": report.follower.allows_stale,
        "renews": report.renews,
    }
