"""Deletes rows of logins that are no longer needed."""

from __future__ import annotations

from typing import Final

from sqlalchemy import delete, select, update

from issuer.clock import seconds
from issuer.credentials.known_sources import KNOWN_FOR
from issuer.credentials.throttle import FORGET_MANY
from issuer.foundation import Foundation
from issuer.login.login_challenges import CHALLENGE_TTL
from issuer.storage.lifetimes import is_living, lies_ahead
from issuer.storage.tables.login import (
    KnownSource,
    LoginChallenge,
    LoginThrottle,
    PasswordResetRow,
)

#: Rows of failures that are kept. Each needed a hash, so a flood of names takes hours
#: to displace the others.
MAX_THROTTLES: Final = 100_000


class LoginUpkeep:
    """Keeps the login tables small.

    Args:
        base: gives the database, the clock, the time to prune by and the settings.
        max_throttles: rows of failures that are kept.
    """

    def __init__(self, base: Foundation, *, max_throttles: int = MAX_THROTTLES) -> None:
        self._database = base.database
        self._clock = base.clock
        self._prune_time = base.prune_time
        self._max_throttles = max_throttles
        self._password_reset_ttl = base.settings.password_reset_ttl

    async def prune(self) -> None:
        """Delete expired rows, and the oldest failures past the bound.

        Raises:
            UnavailableError: when the database is away.
        """
        now = seconds(self._clock)
        # A source known from months ago would not come back (R53).
        unknown_since = min(self._prune_time(), now) - KNOWN_FOR
        # The start of the rows past the bound, if there are any.
        last_kept = (
            select(LoginThrottle.prune_at)
            .order_by(LoginThrottle.prune_at.desc())
            .offset(self._max_throttles)
            .limit(1)
            .scalar_subquery()
        )
        async with self._database.write() as db:
            for statement in (
                # Rows written while the clock was ahead are not kept longer (R53).
                update(LoginThrottle)
                .where(LoginThrottle.prune_at > now + FORGET_MANY)
                .values(prune_at=now + FORGET_MANY),
                update(KnownSource)
                .where(lies_ahead(KnownSource.last_used_at, now))
                .values(last_used_at=now),
                delete(LoginThrottle).where(LoginThrottle.prune_at <= now),
                delete(LoginThrottle).where(LoginThrottle.prune_at <= last_kept),
                delete(KnownSource).where(KnownSource.last_used_at <= unknown_since),
                delete(LoginChallenge).where(
                    ~is_living(LoginChallenge.expires_at, now, CHALLENGE_TTL)
                ),
                delete(PasswordResetRow).where(
                    ~is_living(
                        PasswordResetRow.expires_at, now, self._password_reset_ttl
                    )
                ),
            ):
                await db.execute(statement.execution_options(synchronize_session=False))
