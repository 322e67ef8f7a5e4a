"""Refresh families in the database: the single owner of their rows.

There is one row per family, and a rotation is one compare-and-swap of `current_digest`.
With a row per token, a replay during a rotation can leave a live token; here both
change the same row (requirement R28). `quick_rotation.py` does most rotations under the
same conditions; refusals are decided here.

Every method works in the caller's transaction. Lock order, here and in `sessions.py`:
users, refresh_families, sessions, personal_keys, feed_head.

`exchange` is over 40 lines: it documents its arguments and errors.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Final, NamedTuple, cast

from sqlalchemy import ColumnElement, CursorResult, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.errors import InvalidGrantError, UnavailableError
from issuer.sessions.refresh import (
    Expired,
    FamilyRecord,
    PresentedToken,
    RefreshTimes,
    Repeat,
    Reuse,
    Revoked,
    Rotate,
    decide_rotation,
    find_token,
    make_token,
    parse_token,
    parse_unverified_token,
)
from issuer.settings.issuer_settings import KeyRing
from issuer.storage.tables.sessions import RefreshFamily
from issuer.tokens.opaque_tokens import digest_token

#: One swap can be lost to another bearer; more would be a bug.
_ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True)
class Exchanged:
    """A refresh token was exchanged.

    Attributes:
        sid: session of the family.
        scope: granted at sign-in, space-delimited.
        refresh_token: the successor.
        is_repeat: whether the same successor was returned before.
    """

    sid: str
    scope: str
    refresh_token: str
    is_repeat: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """A refresh token was not exchanged; nothing has been written.

    Attributes:
        decision: the reason.
        sid: session of the family; None when the family does not exist.
    """

    decision: Reuse | Expired | Revoked
    sid: str | None = None


class FamilyOwner(NamedTuple):
    """The owner of a family: session and client."""

    sid: str
    client_id: str


class RefreshFamilies:
    """Starts, exchanges and revokes families of refresh tokens.

    Attributes:
        keys: the first makes new tokens, all recognise old ones.
        limits: how long tokens count.
    """

    def __init__(self, keys: KeyRing, limits: RefreshTimes) -> None:
        self.keys = keys
        self.limits = limits

    def parse(self, token: str) -> PresentedToken:
        """Read a refresh token; only strings that the issuer made pass.

        Raises:
            InvalidGrantError: for everything else.
        """
        return parse_token(token, self.keys)

    async def start(
        self,
        db: AsyncSession,
        *,
        sid: str,
        client_id: str,
        scope: str,
        now: int,
        expires_at: int,
    ) -> str:
        """Start a family for a session and return its first refresh token.

        Args:
            db: an open write transaction.
            sid: the session.
            client_id: the only client that may rotate it.
            scope: what was granted, space-delimited.
            now: Unix seconds.
            expires_at: Unix seconds; rotation does not move it (ASVS 10.4.8).
        """
        family_id = str(uuid.uuid4())
        token = make_token(family_id, 0, self.keys.current)
        await db.execute(
            insert(RefreshFamily).values(
                id=family_id,
                sid=sid,
                client_id=client_id,
                scope=scope,
                generation=0,
                current_digest=digest_token(token),
                created_at=now,
                rotated_at=now,
                expires_at=expires_at,
            )
        )
        return token

    async def exchange(
        self, db: AsyncSession, presented: PresentedToken, now: int, *, client_id: str
    ) -> Exchanged | Refused:
        """Exchange a token for its successor, or return the reason for a refusal.

        Only one of several concurrent swaps of the same token succeeds. The others read
        the row again and are within the grace.

        Args:
            db: an open write transaction.
            presented: the parsed token.
            now: Unix seconds.
            client_id: the client that presents it.

        Raises:
            InvalidGrantError: when the client is another (the family does not change),
                or when the key of the successor has left the ring.
            UnavailableError: when swap and reading contradict each other repeatedly.
        """
        for _ in range(_ATTEMPTS):
            row = await _read(db, presented.family_id)
            if row is None:
                return Refused(Revoked())
            if row.client_id != client_id:
                # RFC 6749, section 6: bound to its client. This is not a reuse.
                raise InvalidGrantError(detail="another client's refresh token")
            decision = decide_rotation(row.record, presented, now, self.limits)
            if isinstance(decision, Rotate):
                token = make_token(
                    presented.family_id, decision.generation, self.keys.current
                )
                if await _swap(db, presented, decision, token, now):
                    return Exchanged(row.sid, row.scope, token, is_repeat=False)
                # Another exchange came first, or the family has ended: the next reading
                # leads to another decision.
            elif isinstance(decision, Repeat):
                token = _find_successor(presented.family_id, row.record, self.keys)
                return Exchanged(row.sid, row.scope, token, is_repeat=True)
            else:
                return Refused(decision, row.sid)
        raise UnavailableError(detail="a refresh family cannot be read as it is")

    async def find_owner(self, db: AsyncSession, token: str) -> FamilyOwner | None:
        """Return the owner of a token's family, also if it ended; None if deleted.

        A token whose key has left the ring is recognised by its digest while it is the
        current one of its family: it can still end its session.

        Raises:
            InvalidGrantError: when the token is not ours.
        """
        conditions = []
        try:
            presented = self.parse(token)
        except InvalidGrantError:
            presented = parse_unverified_token(token)
            conditions.append(RefreshFamily.current_digest == presented.digest)
        row = (
            await db.execute(
                select(RefreshFamily.sid, RefreshFamily.client_id).where(
                    RefreshFamily.id == presented.family_id, *conditions
                )
            )
        ).one_or_none()
        return None if row is None else FamilyOwner(*row)

    async def find_scope(self, db: AsyncSession, sid: str) -> str | None:
        """Return a session's granted scope, space-delimited; None without a family."""
        return await db.scalar(
            select(RefreshFamily.scope)
            .where(RefreshFamily.sid == sid)
            .order_by(RefreshFamily.created_at.desc())
            .limit(1)
        )

    async def revoke(
        self, db: AsyncSession, which: ColumnElement[bool], *, reason: str, now: int
    ) -> int:
        """Revoke the living families that `which` selects; return their number.

        Args:
            db: an open write transaction.
            which: a condition on `RefreshFamily`.
            reason: a word for the row.
            now: Unix seconds.
        """
        done = await db.execute(
            update(RefreshFamily)
            .where(which, RefreshFamily.revoked_at.is_(None))
            .values(revoked_at=now, revoked_reason=reason)
            .execution_options(synchronize_session=False)
        )
        return cast(CursorResult[None], done).rowcount


@dataclass(frozen=True, slots=True)
class _Row:
    sid: str
    client_id: str
    scope: str
    record: FamilyRecord


async def _read(db: AsyncSession, family_id: str) -> _Row | None:
    # Columns, not the mapped object: a second read in the same transaction must not
    # come from the identity map.
    row = (
        await db.execute(
            select(
                RefreshFamily.sid,
                RefreshFamily.client_id,
                RefreshFamily.scope,
                RefreshFamily.generation,
                RefreshFamily.current_digest,
                RefreshFamily.rotated_at,
                RefreshFamily.expires_at,
                RefreshFamily.revoked_at,
            ).where(RefreshFamily.id == family_id)
        )
    ).one_or_none()
    if row is None:
        return None
    record = FamilyRecord(
        generation=row.generation,
        current_digest=row.current_digest,
        rotated_at=row.rotated_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )
    return _Row(row.sid, row.client_id, row.scope, record)


async def _swap(
    db: AsyncSession,
    presented: PresentedToken,
    decision: Rotate,
    successor: str,
    now: int,
) -> bool:
    """Compare and swap; return whether it succeeded."""
    done = await db.execute(
        update(RefreshFamily)
        .where(
            RefreshFamily.id == presented.family_id,
            RefreshFamily.current_digest == presented.digest,
            RefreshFamily.revoked_at.is_(None),
        )
        .values(
            generation=decision.generation,
            current_digest=digest_token(successor),
            rotated_at=now,
        )
        .execution_options(synchronize_session=False)
    )
    return cast(CursorResult[None], done).rowcount == 1


def _find_successor(family_id: str, record: FamilyRecord, keys: KeyRing) -> str:
    return find_token(family_id, record.generation, record.current_digest, keys)
