"""The life of the signing keys: next, active, retiring, gone.

A key is published some time before it signs, so that every verifier knows it by then,
and stays published until the last token it signed has expired. Wanting a rotation means
publishing the next key; whoever looks once it has stood long enough activates it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.acts import Act, AuditWriter, Caller
from issuer.clock import Clock, seconds
from issuer.db import Database
from issuer.keys.store import PUBLISHED, KeyState, KeyStore
from issuer.models import SigningKey
from issuer.settings import LONGEST_ACCESS_TTL
from shared.claims import MAX_LEEWAY

#: Seconds a key stays published after it last signed.
RETIRE_AFTER: Final = LONGEST_ACCESS_TTL + MAX_LEEWAY

#: Rotators of all processes go one after the other.
_ADVISORY_LOCK: Final = 0x6761_7465 + 1


class KeyFacts(NamedTuple):
    """What a decision about a key needs; times are Unix seconds."""

    kid: str
    state: KeyState
    created_at: int
    activated_at: int | None = None
    retired_at: int | None = None


@dataclass(frozen=True, slots=True)
class RotationLimits:
    """When keys change, in seconds.

    Attributes:
        interval: how long a key stays active; 0: until a rotation is asked for.
        publish_ahead: how long a key is published before it signs.
        retire_after: how long a key is published after it last signed.
    """

    interval: int
    publish_ahead: int
    retire_after: int = RETIRE_AFTER


class KeyChange(NamedTuple):
    """What is to be done to the keys.

    Attributes:
        publish: whether a next key is to be made and published.
        activate: whether the next key is to take over; with `publish`, the new one.
        remove: the kids whose last token has expired.
    """

    publish: bool = False
    activate: bool = False
    remove: tuple[str, ...] = ()


def decide_key_change(
    keys: Sequence[KeyFacts],
    now: int,
    limits: RotationLimits,
    *,
    is_wanted: bool = False,
    is_immediate: bool = False,
) -> KeyChange:
    """Decide what is due; pure.

    Args:
        keys: all published keys.
        now: Unix seconds.
        limits: when keys change.
        is_wanted: a rotation was asked for, whatever the interval says.
        is_immediate: the next key takes over now, published long enough or not; the
            verifiers refuse its tokens until they have fetched it.
    """
    remove = tuple(
        key.kid
        for key in keys
        if key.state is KeyState.RETIRING
        and now >= (key.retired_at or 0) + limits.retire_after
    )
    following = [key for key in keys if key.state is KeyState.NEXT]
    if following:
        age = now - min(key.created_at for key in following)
        is_due = is_immediate or age >= limits.publish_ahead
        return KeyChange(activate=is_due, remove=remove)
    active = next((key for key in keys if key.state is KeyState.ACTIVE), None)
    lead = max(limits.interval - limits.publish_ahead, 0)
    is_old = (
        limits.interval > 0
        and active is not None
        and now >= (active.activated_at or 0) + lead
    )
    publish = is_wanted or is_immediate or is_old
    return KeyChange(publish=publish, activate=is_immediate, remove=remove)


class KeyRotation:
    """Carries key changes out, alone among all processes.

    Args:
        database: where the keys are kept.
        store: makes new keys; told to forget what it read.
        limits: when keys change.
        clock: gives the time in milliseconds.
        audit: records each change with the change.
    """

    def __init__(
        self,
        database: Database,
        store: KeyStore,
        limits: RotationLimits,
        *,
        clock: Clock,
        audit: AuditWriter,
    ) -> None:
        self._database = database
        self._store = store
        self._limits = limits
        self._clock = clock
        self._audit = audit

    async def keep_schedule(self) -> KeyChange:
        """Do what is due by the schedule and return it; often nothing.

        Raises:
            UnavailableError: when the database is away.
        """
        return await self._change(is_wanted=False, is_immediate=False, actor="system")

    async def rotate(self, *, actor: str, is_immediate: bool = False) -> KeyChange:
        """Publish the next key, or activate the one that has stood long enough.

        Args:
            actor: who asked, for the audit.
            is_immediate: make the next key sign at once.

        Returns:
            What was done. Neither published nor activated: a next key stands already,
            not yet long enough; the schedule activates it in time.

        Raises:
            UnavailableError: when the database is away.
        """
        return await self._change(
            is_wanted=True, is_immediate=is_immediate, actor=actor
        )

    async def _change(
        self, *, is_wanted: bool, is_immediate: bool, actor: str
    ) -> KeyChange:
        now = seconds(self._clock)
        async with self._database.read() as db:
            keys = await _read_facts(db)

        def decide(keys: Sequence[KeyFacts]) -> KeyChange:
            return decide_key_change(
                keys,
                now,
                self._limits,
                is_wanted=is_wanted,
                is_immediate=is_immediate,
            )

        change = decide(keys)
        if change == KeyChange():
            return change
        # Generated before the transaction: nobody waits for prime numbers.
        made = await self._store.generate(KeyState.NEXT) if change.publish else None
        async with self._database.write() as db:
            if not self._database.is_sqlite:
                await db.execute(
                    text("SELECT pg_advisory_xact_lock(:id)"), {"id": _ADVISORY_LOCK}
                )
            # Another process may have rotated meanwhile: the reason is checked again.
            change = decide(await _read_facts(db))
            if change.publish and made is None:
                return KeyChange()  # its reason came up just now; the next look does it
            await self._apply(db, change, made, now, actor)
        self._store.forget()
        return change

    async def _apply(
        self,
        db: AsyncSession,
        change: KeyChange,
        made: SigningKey | None,
        now: int,
        actor: str,
    ) -> None:
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

    async def _activate_next(self, db: AsyncSession, now: int, actor: str) -> None:
        # First the old one steps down: the index allows one active key at any moment.
        # Its private half has no further use, so it is not kept.
        await db.execute(
            update(SigningKey)
            .where(SigningKey.state == KeyState.ACTIVE.value)
            .values(
                state=KeyState.RETIRING.value, retired_at=now, private_encrypted=None
            )
        )
        kid = (
            await db.scalars(
                select(SigningKey.kid)
                .where(SigningKey.state == KeyState.NEXT.value)
                .order_by(SigningKey.created_at, SigningKey.kid)
                .limit(1)
            )
        ).one()
        await db.execute(
            update(SigningKey)
            .where(SigningKey.kid == kid)
            .values(state=KeyState.ACTIVE.value, activated_at=now)
        )
        await self._record(db, "key.activated", kid, actor)

    async def _record(self, db: AsyncSession, event: str, kid: str, actor: str) -> None:
        await self._audit(db, Act(event, actor=actor, subject=kid), Caller())


async def _read_facts(db: AsyncSession) -> list[KeyFacts]:
    rows = await db.execute(
        select(
            SigningKey.kid,
            SigningKey.state,
            SigningKey.created_at,
            SigningKey.activated_at,
            SigningKey.retired_at,
        ).where(SigningKey.state.in_([state.value for state in PUBLISHED]))
    )
    return [
        KeyFacts(kid, KeyState(state), created_at, activated_at, retired_at)
        for kid, state, created_at, activated_at, retired_at in rows
    ]
