"""The signing keys as administrators see them: never a private part."""

from __future__ import annotations

from typing import Final, NamedTuple

from sqlalchemy import select

from issuer.clock import Clock, seconds
from issuer.keys.follower_keys import FollowerKeyReports, KeysAwaited
from issuer.keys.store import PUBLISHED, PUBLISHED_ORDER, KeyState, build_jwks, read_jwk
from issuer.storage.db import Database
from issuer.storage.tables.keys import SigningKey

#: The newest keys of those that are gone are listed, this many.
_GONE_SHOWN: Final = 100


class KeyView(NamedTuple):
    """One key; times are Unix seconds.

    Attributes:
        kid: its id.
        state: its state.
        age: seconds since it was made.
        kek_id: id of the key that encrypts its private half; None when that is erased.
    """

    kid: str
    state: KeyState
    age: int
    created_at: int
    activated_at: int | None
    retired_at: int | None
    gone_at: int | None
    kek_id: str | None


class KeyListing(NamedTuple):
    """The keys, newest first, and the verifiers that lack a published one."""

    keys: list[KeyView]
    awaited: KeysAwaited


class KeyList:
    """Lists the keys.

    Args:
        database: has the keys.
        clock: gives the time in milliseconds.
    """

    def __init__(self, database: Database, *, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def read(self) -> KeyListing:
        """Return every key that is published, and the newest of those that are gone.

        Raises:
            UnavailableError: when the database is away.
        """
        published = select(SigningKey).where(SigningKey.state.in_(PUBLISHED))
        gone = select(SigningKey).where(SigningKey.state == KeyState.GONE)
        newest = gone.order_by(SigningKey.created_at.desc(), SigningKey.kid)
        async with self._database.read() as db:
            rows = (await db.scalars(published.order_by(*PUBLISHED_ORDER))).all()
            etag = build_jwks([read_jwk(row) for row in rows]).etag
            awaited = await FollowerKeyReports.read_awaited(db, etag)
            old = (await db.scalars(newest.limit(_GONE_SHOWN))).all()
        now = seconds(self._clock)
        return KeyListing([_view(row, now) for row in (*reversed(rows), *old)], awaited)


def _view(row: SigningKey, now: int) -> KeyView:
    return KeyView(
        kid=row.kid,
        state=KeyState(row.state),
        age=max(0, now - row.created_at),
        created_at=row.created_at,
        activated_at=row.activated_at,
        retired_at=row.retired_at,
        gone_at=row.gone_at,
        kek_id=row.kek_id if row.private_encrypted is not None else None,
    )
