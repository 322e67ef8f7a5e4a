"""Deletes what logins leave behind once nobody needs it any more."""

from __future__ import annotations

from typing import Final

from sqlalchemy import delete, select

from issuer.accounts.login_tables import (
    KnownSource,
    LoginChallenge,
    LoginThrottle,
    PasswordResetRow,
)
from issuer.accounts.throttle import KNOWN_FOR
from issuer.clock import Clock, seconds
from issuer.db import Database

#: Rows of failures that are kept. Each cost its sender a hash, so a flood of names takes
#: hours to push others' out.
MAX_THROTTLES: Final = 100_000


class LoginUpkeep:
    """Keeps the tables of logging in small.

    Args:
        database: where they are.
        clock: gives the time in milliseconds.
        max_throttles: rows of failures that are kept.
    """

    def __init__(
        self,
        database: Database,
        *,
        clock: Clock,
        max_throttles: int = MAX_THROTTLES,
    ) -> None:
        self._database = database
        self._clock = clock
        self._max_throttles = max_throttles

    async def prune(self) -> None:
        """Delete what has expired, and the failures soonest forgotten past the bound.

        Raises:
            UnavailableError: when the database is away.
        """
        now = seconds(self._clock)
        # Where the rows past the bound begin, if there are any.
        last_kept = (
            select(LoginThrottle.prune_at)
            .order_by(LoginThrottle.prune_at.desc())
            .offset(self._max_throttles)
            .limit(1)
            .scalar_subquery()
        )
        async with self._database.write() as db:
            for statement in (
                delete(LoginThrottle).where(LoginThrottle.prune_at <= now),
                delete(LoginThrottle).where(LoginThrottle.prune_at <= last_kept),
                delete(KnownSource).where(KnownSource.last_used_at <= now - KNOWN_FOR),
                delete(LoginChallenge).where(LoginChallenge.expires_at <= now),
                delete(PasswordResetRow).where(PasswordResetRow.expires_at <= now),
            ):
                await db.execute(statement.execution_options(synchronize_session=False))
