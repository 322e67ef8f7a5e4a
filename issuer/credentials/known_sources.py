"""Known sources: networks from which the owner of an account has logged in."""

from __future__ import annotations

from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.storage.lifetimes import lies_ahead
from issuer.storage.tables.login import KnownSource
from issuer.storage.tables.users import User

#: Seconds for which a source stays known after a login.
KNOWN_FOR: Final = 90 * 86_400


async def find_known_source(
    db: AsyncSession, username: str, source: str, now: int
) -> int | None:
    """Return when the account's last login from a network was noted; None if unknown.

    Args:
        db: an open transaction.
        username: in normal form; the same query runs for every name.
        source: the network.
        now: Unix seconds.
    """
    noted_at: int | None = await db.scalar(
        select(KnownSource.last_used_at)
        .join(User, User.id == KnownSource.user_id)
        .where(
            User.username == username,
            KnownSource.source == source,
            KnownSource.last_used_at > now - KNOWN_FOR,
            ~lies_ahead(KnownSource.last_used_at, now),
        )
    )
    return noted_at
