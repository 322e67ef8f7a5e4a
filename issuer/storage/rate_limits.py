"""Limits on acts of one person that leave rows: sessions, refreshes, keys.

A limit of N acts in a period allows N at once, and then one each period/N. Only one
time is stored: when the whole limit is available again (GCRA, the generic cell rate
algorithm). It is in the database, so workers and replicas share it.

Refreshes store it in the session's row, which they write anyway. The other acts store
it in the table here, within their transaction: a refused or rolled back act does not
count. Revoking has no limit: a first revocation is never refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import BigInteger, ColumnElement, String, case, delete, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute, Mapped, mapped_column

from issuer.clock import Clock
from issuer.errors import TooManyRequestsError
from issuer.settings.issuer_settings import IssuerSettings
from issuer.storage.db import Database
from issuer.storage.tables.base import Base
from shared.claims import CLOCK_ALLOWANCE

_MINUTE: Final = 60
_HOUR: Final = 3_600


class RateLimitRow(Base):
    """The time at which a person has the whole limit again, in Unix milliseconds."""

    __tablename__ = "rate_limits"

    bucket: Mapped[str] = mapped_column(String(64), primary_key=True)
    spent_until: Mapped[int] = mapped_column(BigInteger, index=True)


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A number of acts in a period of seconds; `count` 0: no limit."""

    count: int
    period: int

    @property
    def interval_ms(self) -> int:
        """Milliseconds after which one more act is allowed."""
        return -(-self.period * 1_000 // self.count) if self.count else 0

    @property
    def window_ms(self) -> int:
        """Milliseconds after which all acts are allowed again."""
        return self.interval_ms * self.count

    @property
    def horizon_ms(self) -> int:
        """Milliseconds from now beyond which a stored time is not plausible.

        A time stored by another replica may exceed the period by the difference of the
        clocks. At most half a period is allowed: otherwise a clock that was set back
        would make people wait.
        """
        return self.window_ms + min(CLOCK_ALLOWANCE * 1_000, self.window_ms // 2)

    def take(self, spent_until: int | None, now_ms: int) -> int:
        """Return the time to store after one more act.

        A time beyond the horizon is ignored (requirement R53).
        """
        end = now_ms + self.horizon_ms
        is_spent = spent_until is not None and now_ms < spent_until <= end
        return (spent_until if is_spent and spent_until else now_ms) + self.interval_ms

    def taken(
        self, spent_until: InstrumentedAttribute[Any], now_ms: int
    ) -> ColumnElement[int]:
        """Return `take` in SQL, for a column that may be NULL."""
        is_spent = spent_until.between(now_ms + 1, now_ms + self.horizon_ms)
        return case((is_spent, spent_until), else_=now_ms) + self.interval_ms

    def require(self, taken: int, now_ms: int) -> None:
        """Return when the act that leads to this stored time is allowed.

        Raises:
            TooManyRequestsError: when it is not; nothing may be written.
        """
        over = taken - self.window_ms - now_ms
        if over > 0:
            # At most one interval and the difference of the clocks.
            raise TooManyRequestsError(
                -(-over // 1_000), "Too many requests of one user."
            )


class RateLimiter:
    """Counts one kind of act of each person.

    Args:
        database: keeps the counts.
        name: of the kind of act; at most 16 characters.
        limit: the number of acts and the period.
        clock: gives the time in milliseconds.
        on_limited: called with the name once per refused act.
    """

    def __init__(
        self,
        database: Database,
        name: str,
        limit: RateLimit,
        *,
        clock: Clock,
        on_limited: Callable[[str], None],
    ) -> None:
        self._name = name
        self._limit = limit
        self._clock = clock
        self._on_limited = on_limited
        self._insert = sqlite.insert if database.is_sqlite else postgresql.insert

    async def take(self, db: AsyncSession, user_id: str) -> None:
        """Count one act of a user in the caller's transaction.

        Raises:
            TooManyRequestsError: when the user has to wait; the caller rolls back.
        """
        if not self._limit.count:
            return
        now = self._clock()
        bucket = f"{self._name}:{user_id}"
        spent = RateLimitRow.spent_until
        end = now + self._limit.window_ms
        statement = self._insert(RateLimitRow).values(
            bucket=bucket, spent_until=self._limit.take(None, now)
        )
        taken = await db.scalar(
            statement.on_conflict_do_update(
                index_elements=["bucket"],
                set_={"spent_until": self._limit.taken(spent, now)},
                where=or_(
                    spent <= end - self._limit.interval_ms,
                    spent > now + self._limit.horizon_ms,
                ),
            ).returning(spent)
        )
        if taken is None:
            self._on_limited(self._name)
            kept = await db.scalar(select(spent).where(RateLimitRow.bucket == bucket))
            self._limit.require(self._limit.take(kept, now), now)
            raise TooManyRequestsError(1)  # given back just now


class RateLimits:
    """All limits.

    Args:
        database: keeps the counts.
        clock: gives the time in milliseconds.
        refreshes: of one session in a minute; 0: no limit, also below.
        sessions: that one user may open in an hour.
        keys: personal keys that one user may make in an hour.
        exchanges: of all personal keys of one user in a minute.
        on_limited: called with the kind once per refused act.

    Attributes:
        refreshes: of one session.
        sessions: counts the sessions that users open.
        keys: counts the personal keys that users make.
        exchanges: counts the exchanges of users' keys.
    """

    def __init__(
        self,
        database: Database,
        *,
        clock: Clock,
        refreshes: int,
        sessions: int,
        keys: int,
        exchanges: int,
        on_limited: Callable[[str], None],
    ) -> None:
        self._database = database
        self._clock = clock

        def count(name: str, limit: RateLimit) -> RateLimiter:
            return RateLimiter(
                database, name, limit, clock=clock, on_limited=on_limited
            )

        self.refreshes = RateLimit(refreshes, _MINUTE)
        self.sessions = count("session", RateLimit(sessions, _HOUR))
        self.keys = count("key", RateLimit(keys, _HOUR))
        self.exchanges = count("exchange", RateLimit(exchanges, _MINUTE))

    async def prune(self) -> None:
        """Delete the counts that have expired, and those of a clock that was ahead.

        Raises:
            UnavailableError: when the database is away.
        """
        now = self._clock()
        spent = RateLimitRow.spent_until
        # Rounding lengthens a period by less than this.
        latest = now + 2 * _HOUR * 1_000
        async with self._database.write() as db:
            await db.execute(
                delete(RateLimitRow).where(or_(spent <= now, spent > latest))
            )


def compose_limits(
    settings: IssuerSettings,
    database: Database,
    *,
    clock: Clock,
    on_limited: Callable[[str], None],
) -> RateLimits:
    """Return the limits of the settings.

    Args:
        settings: as read at the start.
        database: keeps the counts.
        clock: gives the time in milliseconds.
        on_limited: called with the kind once per refused act.
    """
    return RateLimits(
        database,
        clock=clock,
        refreshes=settings.refresh_limit,
        sessions=settings.session_limit,
        keys=settings.personal_key_limit,
        exchanges=settings.personal_key_exchange_limit,
        on_limited=on_limited,
    )
