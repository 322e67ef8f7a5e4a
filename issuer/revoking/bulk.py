"""Bulk revocation, in chunks, so that other revocations do not wait.

Each chunk is one transaction. Between two chunks other revoking transactions get the
feed's counter row. Rows that are already revoked are skipped, so a run that broke off
can be started again.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from issuer.acts import Act, Caller
from issuer.clock import seconds
from issuer.errors import DatabaseConflictError, NotFoundError, UnavailableError
from issuer.feed.feed import Position, Revocation, RevocationFeed
from issuer.foundation import Foundation
from issuer.revoking.bulk_filter import SessionFilter
from issuer.revoking.bulk_items import BulkItem, BulkKind, RefusedItem
from issuer.revoking.bulk_rows import BulkRows, ChunkPlan
from issuer.revoking.revocations import Revocations
from issuer.sessions.ended import find_published
from issuer.sessions.session_ending import SessionEnding, SessionsToEnd
from issuer.tokens.access import last_expiry
from shared.claims import CLOCK_ALLOWANCE, MAX_LEEWAY
from shared.feed import EntryKind

#: Rows of one transaction: it holds the counter row for about 30 ms on PostgreSQL.
CHUNK: Final = 500
#: Seconds between two chunks. SQLite gives its one write lock to the next process that
#: tries, without a queue: the others need a longer gap.
_PAUSE: Final = 0.05
_SQLITE_PAUSE: Final = 0.25
_ATTEMPTS: Final = 5


@dataclass(frozen=True, slots=True)
class BulkOutcome:
    """The result of a chunk, or of all chunks together.

    Attributes:
        revoked: rows whose entries are in the feed now; with `is_trial`, would be.
        already: rows with nothing left to revoke, including repeated rows.
        refused: rows that were not used, each with its reason.
        position: the last position in the feed; None: nothing was written.
    """

    revoked: int = 0
    already: int = 0
    refused: tuple[RefusedItem, ...] = ()
    position: Position | None = None

    def __add__(self, later: BulkOutcome) -> BulkOutcome:
        """Return the sum; the position is the later one."""
        return BulkOutcome(
            self.revoked + later.revoked,
            self.already + later.already,
            self.refused + later.refused,
            self.position if later.position is None else later.position,
        )

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.revoked + self.already + len(self.refused)


@dataclass(frozen=True, slots=True)
class BulkRun:
    """The run, as it is recorded.

    Attributes:
        source: of the rows: `file`, `items` or the filter's text.
        actor: subject of the actor.
        caller: origin of the request.
        is_trial: whether nothing is changed.
        bulk_id: names the run in the audit log.
    """

    source: str
    actor: str
    caller: Caller
    is_trial: bool = False
    bulk_id: str = field(default_factory=lambda: str(uuid.uuid4()))


class BulkRevocation:
    """Revokes by list or by filter.

    Args:
        base: gives the database, the clock and the audit.
        rows: reads and changes the rows in the database.
        ending: ends sessions and personal keys.
        revocations: revoke signing keys, one by one.
        feed: carries the entries to the verifiers.
        chunk: rows of one transaction.
    """

    def __init__(
        self,
        base: Foundation,
        rows: BulkRows,
        ending: SessionEnding,
        revocations: Revocations,
        feed: RevocationFeed,
        *,
        chunk: int = CHUNK,
    ) -> None:
        self._database = base.database
        self._rows = rows
        self._ending = ending
        self._revocations = revocations
        self._feed = feed
        self._clock = base.clock
        self._audit = base.audit
        self._chunk = chunk
        self._pause = _SQLITE_PAUSE if base.database.is_sqlite else _PAUSE

    async def revoke(
        self, items: Iterable[BulkItem | RefusedItem], run: BulkRun
    ) -> AsyncIterator[BulkOutcome]:
        """Revoke what the rows name, and yield the result of each committed chunk.

        Raises:
            UnavailableError: when the database is away. The yielded chunks are
                committed; another run with the same rows does the rest.
        """
        for number, chunk in enumerate(_cut(items, self._chunk)):
            if number and not run.is_trial:
                await asyncio.sleep(self._pause)
            yield await self._revoke_chunk(chunk, run)

    async def revoke_matching(
        self, sessions: SessionFilter, run: BulkRun
    ) -> AsyncIterator[BulkOutcome]:
        """End the living sessions and personal keys that a filter finds, as `revoke`.

        Raises:
            UnavailableError: as `revoke`.
        """
        line = itertools.count(1)
        now = seconds(self._clock)
        async for sids in sessions.find_sids(self._database, now):
            items = [BulkItem(next(line), BulkKind.SID, sid) for sid in sids]
            async for outcome in self.revoke(items, run):
                yield outcome
            if not run.is_trial:
                await asyncio.sleep(self._pause)

    async def count_matching(self, sessions: SessionFilter) -> int:
        """Return the number of living sessions and personal keys that a filter finds.

        Raises:
            UnavailableError: when the database is away.
        """
        now = seconds(self._clock)
        pages = sessions.find_sids(self._database, now)
        return sum([len(sids) async for sids in pages])

    async def confirmable_position(self, outcome: BulkOutcome) -> Position:
        """Return a position at or past the entries of all rows, new and earlier ones.

        Args:
            outcome: of a whole run that was not a trial.

        Raises:
            UnavailableError: when the database is away, or has another epoch than at
                the last chunk: entries may be lost, and the rows must be sent again.
        """
        head = await self._feed.head_position()
        _require_same_epoch(outcome.position, head)
        return head

    async def _revoke_chunk(
        self, chunk: Sequence[BulkItem | RefusedItem], run: BulkRun
    ) -> BulkOutcome:
        refused = tuple(row for row in chunk if isinstance(row, RefusedItem))
        items = [row for row in chunk if isinstance(row, BulkItem)]
        kids = [item for item in items if item.kind is BulkKind.KID]
        others = [item for item in items if item.kind is not BulkKind.KID]
        outcome = BulkOutcome(refused=refused)
        if others:
            outcome += await self._revoke_rows(others, run)
        for item in kids:
            outcome += await self._revoke_key(item, run)
        return outcome

    async def _revoke_rows(
        self, items: Sequence[BulkItem], run: BulkRun
    ) -> BulkOutcome:
        for left in reversed(range(_ATTEMPTS)):
            try:
                return await self._revoke_rows_once(items, run)
            except DatabaseConflictError:
                # Another transaction ended several of these sessions in another order.
                # The whole chunk was rolled back. The chunks before it are committed,
                # so only the chunk is repeated and not the request.
                if not left:
                    raise
        raise AssertionError("unreachable")

    async def _revoke_rows_once(
        self, items: Sequence[BulkItem], run: BulkRun
    ) -> BulkOutcome:
        now = seconds(self._clock)
        if run.is_trial:
            async with self._database.read() as db:
                plan = await self._rows.plan(db, items, now)
            return _outcome_of(plan)
        async with self._database.write() as db:
            plan = await self._rows.plan(db, items, now)
            if not plan.size:
                return _outcome_of(plan)
            revocations = await self._end(db, plan, now)
            await self._record(db, revocations, run)
            position = await self._feed.append(db, *revocations)
        return _outcome_of(plan, position)

    async def _end(
        self, db: AsyncSession, plan: ChunkPlan, now: int
    ) -> list[Revocation]:
        """Carry out the plan; lock order: see `families.py`."""
        last = last_expiry(now)
        users = await self._rows.raise_users(db, plan.user_ids, now)
        clients = await self._rows.raise_clients(db, plan.client_ids)
        which = SessionsToEnd(sids=plan.sids, user_ids=plan.user_ids)
        await self._ending.end_sessions(db, which, reason="bulk", now=now)
        return [
            *(
                Revocation(EntryKind.JTI, jti, _keep_until(exp, last))
                for jti, exp in plan.jtis.items()
            ),
            *(Revocation(EntryKind.SID, sid, last) for sid in plan.sids),
            *(Revocation(EntryKind.USER, key, last, least) for key, least in users),
            *(Revocation(EntryKind.CLIENT, key, last, least) for key, least in clients),
        ]

    async def _record(
        self, db: AsyncSession, revocations: Sequence[Revocation], run: BulkRun
    ) -> None:
        """Write one audit row, which names every entry of the chunk."""
        keys = " ".join(f"{item.kind.value}:{item.key}" for item in revocations)
        facts: dict[str, str | int] = {
            "source": run.source,
            "revoked": len(revocations),
            "keys": keys,
        }
        act = Act("bulk.revoked", actor=run.actor, subject=run.bulk_id, facts=facts)
        await self._audit(db, act, run.caller)

    async def _revoke_key(self, item: BulkItem, run: BulkRun) -> BulkOutcome:
        """Revoke a signing key, in its own transaction and with its own audit row."""
        async with self._database.read() as db:
            if await find_published(db, EntryKind.KID, [item.key]):
                return BulkOutcome(already=1)
        if run.is_trial:
            return BulkOutcome(revoked=1)
        try:
            position = await self._revocations.revoke_key(
                item.key, run.caller, actor=run.actor
            )
        except NotFoundError:
            return _refuse(item, "there is no such key")
        return BulkOutcome(revoked=1, position=position)


def _keep_until(exp: int | None, last: int) -> int:
    """Return the `prune_at` of a token's entry, Unix seconds.

    The row's `exp` can only make it later, because the clock of another issuer may be
    ahead. It does so by no more than clocks may differ: verifiers refuse a token with a
    later `exp`.
    """
    return min(max(last, (exp or 0) + MAX_LEEWAY), last + CLOCK_ALLOWANCE)


def _outcome_of(plan: ChunkPlan, position: Position | None = None) -> BulkOutcome:
    return BulkOutcome(plan.size, plan.already, tuple(plan.refused), position)


async def collect(
    outcomes: AsyncIterator[BulkOutcome],
    on_chunk: Callable[[BulkOutcome], None] = lambda _: None,
) -> BulkOutcome:
    """Return the outcomes of all chunks together.

    Args:
        outcomes: as `BulkRevocation` yields them.
        on_chunk: called with each outcome.

    Raises:
        UnavailableError: as `BulkRevocation.revoke`, and when the database was restored
            during the run.
    """
    total = BulkOutcome()
    refused: list[RefusedItem] = []
    async for outcome in outcomes:
        on_chunk(outcome)
        _require_same_epoch(total.position, outcome.position)
        refused += outcome.refused
        total += BulkOutcome(outcome.revoked, outcome.already, (), outcome.position)
    return total + BulkOutcome(refused=tuple(refused))


def _require_same_epoch(earlier: Position | None, later: Position | None) -> None:
    if earlier is not None and later is not None and earlier.epoch != later.epoch:
        raise UnavailableError(
            description="The database was replaced or restarted meanwhile: send it again."
        )


def _refuse(item: BulkItem, rule: str) -> BulkOutcome:
    return BulkOutcome(refused=(RefusedItem(item.line, "key", rule),))


def _cut(
    items: Iterable[BulkItem | RefusedItem], size: int
) -> Iterator[list[BulkItem | RefusedItem]]:
    rest = iter(items)
    while chunk := list(itertools.islice(rest, size)):
        yield chunk
