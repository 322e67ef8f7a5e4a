"""Makes the changes of the signing keys; one process at a time.

A requested rotation publishes the next key. The first scheduled check after all
verifiers are assumed to have it activates it. `key_changes.py` decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from sqlalchemy import case, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.acts import Act, Caller
from issuer.clock import seconds
from issuer.errors import NotFoundError
from issuer.foundation import Foundation
from issuer.keys.encryption import reencrypt_private_key
from issuer.keys.follower_keys import FollowerKeyReports, KeysAwaited
from issuer.keys.key_changes import (
    KeyChange,
    KeyFacts,
    KeyRotationTimes,
    decide_key_change,
)
from issuer.keys.store import (
    PUBLISHED,
    PUBLISHED_ORDER,
    KeyState,
    KeyStore,
    build_jwks,
    read_jwk,
)
from issuer.settings.issuer_settings import KeyRing
from issuer.storage.advisory_locks import AdvisoryLock, take_lock
from issuer.storage.lifetimes import lies_ahead
from issuer.storage.tables.keys import SigningKey

_SYSTEM: Final = "system"


class KeyRotation:
    """Changes the keys.

    Args:
        base: gives the database, the clock, the audit, the settings and the
            metrics.
        store: makes new keys, and drops its snapshot after a change.
    """

    def __init__(self, base: Foundation, store: KeyStore) -> None:
        self._database = base.database
        self._store = store
        self._limits = KeyRotationTimes(
            base.settings.key_rotation_interval, base.settings.key_publish_ahead
        )
        self._clock = base.clock
        self._audit = base.audit
        self._on_look = base.metrics.signing_keys

    async def keep_schedule(self) -> KeyChange:
        """Make the changes that are due by the schedule, often none, and return them.

        Raises:
            UnavailableError: when the database is away.
        """
        return await self._change(is_wanted=False, is_immediate=False, actor=_SYSTEM)

    async def rotate(self, *, actor: str, is_immediate: bool = False) -> KeyChange:
        """Publish the next key, or activate it if all verifiers have it.

        Args:
            actor: the subject that requested it, for the audit log.
            is_immediate: make the next key sign at once.

        Returns:
            The changes made. Neither published nor activated: a next key is published
            already, and the schedule will activate it.

        Raises:
            UnavailableError: when the database is away.
        """
        return await self._change(
            is_wanted=True, is_immediate=is_immediate, actor=actor
        )

    async def make_successor(self, kid: str) -> SigningKey | None:
        """Return a key that signs after `kid` is withdrawn; None when none is needed.

        Call it before the transaction that withdraws: finding primes takes time.

        Raises:
            NotFoundError: when there never was such a key.
            UnavailableError: when the database is away.
        """
        async with self._database.read() as db:
            state = await _read_state(db, kid)
        if state in {KeyState.RETIRING, KeyState.GONE}:
            return None
        return await self._store.generate(KeyState.ACTIVE)

    async def withdraw(
        self, db: AsyncSession, kid: str, successor: SigningKey | None, *, actor: str
    ) -> None:
        """Remove a key from the JWKS and erase its private half; another signs at once.

        The other is the published next key if there is one, else `successor`.

        Args:
            db: the caller's write transaction; call `forget` after its commit.
            kid: of the key, in any state.
            successor: from `make_successor`.
            actor: for the audit.

        Raises:
            NotFoundError: when there never was such a key.
        """
        await self._lock(db)
        now = seconds(self._clock)
        state = await _read_state(db, kid)
        if state is KeyState.GONE:
            return
        await db.execute(
            update(SigningKey)
            .where(SigningKey.kid == kid)
            .values(state=KeyState.GONE.value, gone_at=now, private_encrypted=None)
        )
        if state is KeyState.ACTIVE and not await self._activate_next(db, now, actor):
            # For an active key `make_successor` has returned a key.
            assert successor is not None  # noqa: S101
            db.add(successor)
            await db.flush()
            await self._record(db, "key.activated", successor.kid, actor)

    def forget(self) -> None:
        """Drop the snapshot: a transaction has changed the keys."""
        self._store.forget()

    async def reencrypt(self, key_ring: KeyRing, *, actor: str) -> int:
        """Encrypt every private half under the ring's current key; return how many.

        Raises:
            UnavailableError: when one does not open (nothing is changed then), or the
                database is away.
        """
        async with self._database.write() as db:
            await self._lock(db)
            rows = await db.scalars(
                select(SigningKey).where(
                    SigningKey.private_encrypted.is_not(None),
                    SigningKey.kek_id != key_ring.current_id,
                )
            )
            count = 0
            for row in rows.all():
                row.private_encrypted = reencrypt_private_key(
                    row.private_encrypted or b"",
                    kid=row.kid,
                    kek_id=row.kek_id,
                    key_ring=key_ring,
                )
                row.kek_id = key_ring.current_id
                await self._record(db, "key.reencrypted", row.kid, actor)
                count += 1
        return count

    async def _change(
        self, *, is_wanted: bool, is_immediate: bool, actor: str
    ) -> KeyChange:
        now = seconds(self._clock)

        async def decide(db: AsyncSession) -> KeyChange:
            keys, awaited = await _read_facts(db)
            self._on_look(_find_ages(keys, now), *awaited)
            return decide_key_change(
                keys,
                now,
                self._limits,
                awaited,
                is_wanted=is_wanted,
                is_immediate=is_immediate,
            )

        async with self._database.read() as db:
            change = await decide(db)
        if change == KeyChange():
            return change
        # Generated before the transaction: finding primes takes time.
        made = await self._store.generate(KeyState.NEXT) if change.publish else None
        async with self._database.write() as db:
            await self._lock(db)
            # Another process may have rotated meanwhile, so the decision is repeated.
            change = await decide(db)
            if change.publish and made is None:
                return KeyChange()  # the reason is new; the next check publishes
            await self._apply(db, change, made, now, actor)
        self._store.forget()
        return change

    async def _lock(self, db: AsyncSession) -> None:
        """Wait for other rotators."""
        await take_lock(self._database, db, AdvisoryLock.KEY_ROTATION)

    async def _apply(
        self,
        db: AsyncSession,
        change: KeyChange,
        made: SigningKey | None,
        now: int,
        actor: str,
    ) -> None:
        if change.redate:
            await self._redate(db, change.redate, now, actor)
        if change.publish and made is not None:
            db.add(made)
            await db.flush()
            await self._record(db, "key.published", made.kid, actor)
        if change.activate:
            await self._activate_next(db, now, actor)
        for kid in change.remove:
            await db.execute(
                update(SigningKey)
                .where(SigningKey.kid == kid)
                .values(state=KeyState.GONE.value, gone_at=now)
            )
            await self._record(db, "key.removed", kid, actor)

    async def _redate(
        self, db: AsyncSession, kids: Sequence[str], now: int, actor: str
    ) -> None:
        """Date keys from now that were dated while the clock was ahead."""
        columns = (
            SigningKey.created_at,
            SigningKey.activated_at,
            SigningKey.retired_at,
        )
        dates = {
            column.key: case((lies_ahead(column, now), now), else_=column)
            for column in columns
        }
        await db.execute(
            update(SigningKey).where(SigningKey.kid.in_(kids)).values(dates)
        )
        for kid in kids:
            await self._record(db, "key.redated", kid, actor)

    async def _activate_next(self, db: AsyncSession, now: int, actor: str) -> bool:
        """Activate the next key; return whether there is one."""
        kid = await db.scalar(
            select(SigningKey.kid)
            .where(SigningKey.state == KeyState.NEXT.value)
            .order_by(*PUBLISHED_ORDER)
            .limit(1)
        )
        if kid is None:
            return False
        # The old key retires first: the index allows one active key at any time. Its
        # private half is not needed any more.
        await db.execute(
            update(SigningKey)
            .where(SigningKey.state == KeyState.ACTIVE.value)
            .values(
                state=KeyState.RETIRING.value, retired_at=now, private_encrypted=None
            )
        )
        await db.execute(
            update(SigningKey)
            .where(SigningKey.kid == kid)
            .values(state=KeyState.ACTIVE.value, activated_at=now)
        )
        await self._record(db, "key.activated", kid, actor)
        return True

    async def _record(self, db: AsyncSession, event: str, kid: str, actor: str) -> None:
        await self._audit(db, Act(event, actor=actor, subject=kid), Caller())


def _find_ages(keys: Sequence[KeyFacts], now: int) -> Mapping[str, int]:
    return {
        state.value: max(
            (key.age(now) for key in keys if key.state is state), default=0
        )
        for state in PUBLISHED
    }


async def _read_state(db: AsyncSession, kid: str) -> KeyState:
    query = select(SigningKey.state).where(SigningKey.kid == kid)
    state = await db.scalar(query)
    if state is None:
        raise NotFoundError
    return KeyState(state)


async def _read_facts(db: AsyncSession) -> tuple[list[KeyFacts], KeysAwaited]:
    """Return the published keys and the verifiers that lack exactly these."""
    query = select(SigningKey).where(SigningKey.state.in_(PUBLISHED))
    rows = (await db.scalars(query.order_by(*PUBLISHED_ORDER))).all()
    etag = build_jwks([read_jwk(row) for row in rows]).etag
    awaited = await FollowerKeyReports.read_awaited(db, etag)
    facts = [
        KeyFacts(
            row.kid,
            KeyState(row.state),
            row.created_at,
            row.activated_at,
            row.retired_at,
        )
        for row in rows
    ]
    return facts, awaited
