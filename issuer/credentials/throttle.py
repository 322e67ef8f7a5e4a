"""Failed logins delay the next ones (requirement R34).

Failures are counted in the database, so all replicas share them, in buckets:

- `account`: failures for one name, from anywhere. The name counts in its normal form,
  whether or not the account exists: a 429 reveals nothing.
- `known source`: failures for one name from a network that has logged in to it before.
  They count only here, and failures from elsewhere do not count here.
- `source`: failures of one network for all names that it has not logged in to.
- `device`: failures of one device that has logged in to the account before.

After a bucket's free failures, each further one doubles the wait for the next attempt,
up to a limit: no account is locked permanently. Every attempt counts before the hash,
and is uncounted when it succeeds: a burst gets the free attempts, and the rest waits.

A device does not wait for the other buckets. It has only the free failures, for a day;
after that it counts as unknown. Each of its failures is charged to the buckets it did
not wait for: as one of their free failures or, when these are used up, as a debt that
uses the next attempt there. So devices add no guesses to those that an account allows.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, case, delete, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.credentials.failure_counts import (
    NO_FAILURES,
    Bucket,
    Count,
    FailureCounts,
    LoginAttempt,
    Proof,
)
from issuer.credentials.known_sources import find_known_source
from issuer.credentials.sources import find_source, tells_callers_apart
from issuer.errors import TooManyRequestsError
from issuer.http.forwarded_for import trust_proxies
from issuer.settings.issuer_settings import IssuerSettings
from issuer.storage.db import Database
from issuer.storage.tables.login import KnownSource, LoginThrottle
from shared.claims import CLOCK_ALLOWANCE

#: Seconds until a few failures are deleted, such as typing errors.
_FORGET_FEW: Final = 3_600
#: Seconds until failures that caused a wait are deleted.
FORGET_MANY: Final = 86_400
#: Seconds for which a known source is not updated, which saves writes.
_NOTE_AGE: Final = 86_400
_LONGEST_DOUBLING: Final = 30


@dataclass(frozen=True, slots=True)
class ThrottleLimits:
    """The free failures per account and per source; delays in seconds."""

    free_failures: int
    source_free_failures: int
    max_delay: int

    def delay_after(self, failures: int, free: int) -> int:
        """Return the wait after this many failures, of which `free` cause none."""
        if failures < free:
            return 0
        return min(1 << min(failures - free, _LONGEST_DOUBLING), self.max_delay)

    def wait(self, blocked_until: int, now: int) -> int:
        """Return the seconds to wait: at most `max_delay` (requirement R53).

        A later time was set while the clock was ahead and is ignored. Another replica's
        clock may be slightly ahead: its waits count, otherwise guesses that alternate
        between replicas would be doubled.
        """
        is_set = now < blocked_until <= now + self.longest_wait
        return min(blocked_until - now, self.max_delay) if is_set else 0

    @property
    def longest_wait(self) -> int:
        """The seconds from now beyond which no correct clock has set a wait."""
        return self.max_delay + CLOCK_ALLOWANCE


class LoginThrottling:
    """Counts failures and computes waits.

    Args:
        database: keeps the counts.
        settings: the limits, the pepper that names the buckets, and the addresses of
            gateways, shared by all their clients.
    """

    def __init__(self, database: Database, settings: IssuerSettings) -> None:
        self._database = database
        pepper = settings.password_peppers.current
        self._key = hmac.digest(pepper, b"gatehouse login throttle", hashlib.sha256)
        self._limits = ThrottleLimits(
            settings.login_free_failures,
            settings.login_source_free_failures,
            settings.login_max_delay,
        )
        self._is_proxy = trust_proxies(settings.trusted_proxies)
        self._insert = sqlite.insert if database.is_sqlite else postgresql.insert

    async def look(
        self,
        db: AsyncSession,
        username: str,
        *,
        address: str,
        now: int,
        typed: str | None = None,
        proof: Proof = Proof.PASSWORD,
        device: str | None = None,
    ) -> FailureCounts:
        """Return the buckets of an attempt; the query is the same for every name.

        Args:
            db: an open transaction.
            username: in normal form; empty when the typed text has none.
            address: of the caller.
            now: Unix seconds.
            typed: counts as the name if it has no normal form.
            proof: the kind of secret.
            device: id of a device that has logged in to this account before.
        """
        source = find_source(address)
        noted_at = await find_known_source(db, username, source, now)
        name = username or f"\0{typed}"
        if noted_at is not None:
            buckets = [self._bucket("known source", proof, name, source)]
        else:
            buckets = [self._bucket("account", proof, name)]
            if tells_callers_apart(address, self._is_proxy):
                buckets.append(self._bucket("source", source))
        own = None if device is None else self._bucket("device", proof, device)
        asked = buckets if own is None else [*buckets, own]
        counts = await _read_counts(db, asked, now)
        # In the same order for all, so that two attempts do not deadlock.
        ordered = tuple(sorted(buckets, key=lambda bucket: bucket.key))
        return FailureCounts(ordered, counts, proof, source, noted_at, own)

    async def admit(self, recorded: FailureCounts, now: int) -> LoginAttempt:
        """Count an attempt, committed, and return it for `fail` or `succeed`.

        Raises:
            TooManyRequestsError: while it has to wait.
            UnavailableError: when the database is away.
        """
        device = recorded.device
        if device is not None and recorded.count(device).failures < device.free:
            async with self._database.write() as db:
                count = await self._count(db, device, now, only_free=True)
            if count is not None:
                return LoginAttempt(recorded, {device.key: count}, is_of_device=True)
        counts = [recorded.count(bucket) for bucket in recorded.buckets]
        waits = (self._limits.wait(count.blocked_until, now) for count in counts)
        wait = max(waits, default=0)
        if wait:
            raise TooManyRequestsError(wait)
        counted = {}
        async with self._database.write() as db:
            for bucket in recorded.buckets:
                count = await self._count(db, bucket, now, only_unblocked=True)
                if count is None:
                    # Another attempt was first. Nothing is counted for this one.
                    raise TooManyRequestsError(1)
                counted[bucket.key] = count
        # A device's debt uses this attempt. The count stays.
        if any(count.debt < 0 for count in counted.values()):
            until = max(count.blocked_until for count in counted.values())
            raise TooManyRequestsError(max(until - now, 1))
        return LoginAttempt(recorded, counted)

    async def fail(
        self, db: AsyncSession, attempt: LoginAttempt, now: int
    ) -> list[str]:
        """Record a failure, and return the buckets that have to wait."""
        if attempt.is_of_device:
            for bucket in attempt.recorded.buckets:
                await self._charge(db, bucket, now)
        recorded = attempt.recorded
        own = () if recorded.device is None else (recorded.device,)
        return [
            bucket.word
            for bucket in (*recorded.buckets, *own)
            if attempt.counted.get(bucket.key, NO_FAILURES).failures >= bucket.free
        ]

    async def succeed(self, db: AsyncSession, attempt: LoginAttempt) -> None:
        """Delete the failures of the account, or of the device; the source's stay.

        Otherwise an attacker with one account could guess for other accounts without
        limit, by logging in to it now and then. Only this attempt is uncounted there.
        """
        recorded = attempt.recorded
        forgotten = [] if attempt.is_of_device else list(recorded.buckets)
        if recorded.device is not None:
            forgotten.append(recorded.device)
        for bucket in sorted(forgotten, key=lambda bucket: bucket.key):
            if bucket.word == "source":
                await self._take_back(db, attempt, bucket)
            elif bucket.key in attempt.counted or bucket.key in recorded.counts:
                await db.execute(
                    delete(LoginThrottle).where(LoginThrottle.key == bucket.key)
                )

    async def remember_source(
        self, db: AsyncSession, recorded: FailureCounts, user_id: str, now: int
    ) -> None:
        """Store that the user has logged in from this network."""
        if recorded.noted_at is not None and 0 <= now - recorded.noted_at < _NOTE_AGE:
            return
        statement = self._insert(KnownSource).values(
            user_id=user_id, source=recorded.source, last_used_at=now
        )
        await db.execute(
            statement.on_conflict_do_update(
                index_elements=["user_id", "source"], set_={"last_used_at": now}
            )
        )

    async def forget_account(self, db: AsyncSession, username: str) -> None:
        """Delete an account's failures after a reset of its password."""
        keys = [self._bucket("account", proof, username).key for proof in Proof]
        await db.execute(delete(LoginThrottle).where(LoginThrottle.key.in_(keys)))

    async def _count(
        self,
        db: AsyncSession,
        bucket: Bucket,
        now: int,
        *,
        only_unblocked: bool = False,
        only_free: bool = False,
    ) -> Count | None:
        """Count one failure and return the new count; it pays a debt.

        The debt of the returned count is -1 when one was paid. None: another attempt
        has blocked the bucket since, or has used the free failures, and nothing is
        counted.
        """
        where = None
        if only_unblocked:
            where = self._is_unblocked(now)
        elif only_free:
            is_forgotten = LoginThrottle.prune_at <= now
            where = or_(LoginThrottle.failures < bucket.free, is_forgotten)
        forget_after = FORGET_MANY if only_free else _FORGET_FEW
        counted = self._count_one(bucket, now, now + forget_after, where)
        row = (
            await db.execute(
                counted.returning(LoginThrottle.failures, LoginThrottle.debt)
            )
        ).one_or_none()
        if row is None:
            return None
        if only_free:
            return Count(row.failures, 0)
        return await self._block(db, bucket, row.failures, -row.debt, now)

    def _count_one(
        self,
        bucket: Bucket,
        now: int,
        prune_at: int,
        where: ColumnElement[bool] | None,
    ) -> sqlite.Insert | postgresql.Insert:
        """Return the statement that counts one failure if `where` holds."""
        is_forgotten = LoginThrottle.prune_at <= now
        statement = self._insert(LoginThrottle).values(
            key=bucket.key, failures=1, blocked_until=0, prune_at=prune_at, debt=0
        )
        return statement.on_conflict_do_update(
            index_elements=["key"],
            set_={
                "failures": case((is_forgotten, 1), else_=LoginThrottle.failures + 1),
                "prune_at": prune_at,
                # Negative until this transaction ends: it was paid.
                "debt": case(
                    (is_forgotten, 0),
                    (LoginThrottle.debt > 0, -LoginThrottle.debt),
                    else_=0,
                ),
            },
            where=where,
        )

    async def _block(
        self, db: AsyncSession, bucket: Bucket, failures: int, debt: int, now: int
    ) -> Count:
        """Set the wait after this many failures, and pay one of the debt."""
        delay = self._limits.delay_after(failures, bucket.free)
        if not delay and not debt:
            return Count(failures, 0)
        await db.execute(
            update(LoginThrottle)
            .where(LoginThrottle.key == bucket.key)
            .values(
                blocked_until=now + delay,
                prune_at=now + FORGET_MANY,
                debt=max(debt - 1, 0),
            )
            .execution_options(synchronize_session=False)
        )
        return Count(failures, now + delay, -1 if debt else 0)

    async def _charge(self, db: AsyncSession, bucket: Bucket, now: int) -> None:
        """Charge a device's failure to a bucket: as a free failure, or as a debt."""
        limits, free = self._limits, bucket.free
        is_last = free == 1
        statement = self._insert(LoginThrottle).values(
            key=bucket.key,
            failures=1,
            blocked_until=now + limits.delay_after(1, free) if is_last else 0,
            prune_at=now + (FORGET_MANY if is_last else _FORGET_FEW),
            debt=0,
        )
        row = LoginThrottle
        after = case((row.prune_at <= now, 1), else_=row.failures + 1)
        blocked_until = now + limits.delay_after(free, free)
        await db.execute(
            statement.on_conflict_do_update(
                index_elements=["key"],
                set_={
                    "failures": case((after <= free, after), else_=row.failures),
                    "blocked_until": case(
                        (after == free, blocked_until), else_=row.blocked_until
                    ),
                    "prune_at": case(
                        (after >= free, now + FORGET_MANY), else_=now + _FORGET_FEW
                    ),
                    "debt": case(
                        (row.prune_at <= now, 0),
                        (after > free, row.debt + 1),
                        else_=row.debt,
                    ),
                },
            )
        )

    async def _take_back(
        self, db: AsyncSession, attempt: LoginAttempt, bucket: Bucket
    ) -> None:
        """Uncount a successful attempt, and its wait unless a later attempt set it."""
        mine = attempt.counted[bucket.key].blocked_until
        before = attempt.recorded.count(bucket).blocked_until
        row = LoginThrottle
        await db.execute(
            update(row)
            .where(row.key == bucket.key, row.failures > 0)
            .values(
                failures=row.failures - 1,
                blocked_until=case(
                    (row.blocked_until == mine, before), else_=row.blocked_until
                ),
            )
            .execution_options(synchronize_session=False)
        )
        await db.execute(
            delete(row).where(row.key == bucket.key, row.failures <= 0, row.debt == 0)
        )

    def _is_unblocked(self, now: int) -> ColumnElement[bool]:
        until = LoginThrottle.blocked_until
        return or_(until <= now, until > now + self._limits.longest_wait)

    def _bucket(self, word: str, *parts: str) -> Bucket:
        free = (
            self._limits.source_free_failures
            if word == "source"
            else self._limits.free_failures
        )
        text = "\0".join((word, *parts)).encode("utf-8", "surrogatepass")
        return Bucket(hmac.digest(self._key, text, hashlib.sha256), word, free)


async def _read_counts(
    db: AsyncSession, buckets: Sequence[Bucket], now: int
) -> dict[bytes, Count]:
    rows = await db.execute(
        select(
            LoginThrottle.key,
            LoginThrottle.failures,
            LoginThrottle.blocked_until,
            LoginThrottle.debt,
        ).where(
            LoginThrottle.key.in_([bucket.key for bucket in buckets]),
            LoginThrottle.prune_at > now,
        )
    )
    return {key: Count(*count) for key, *count in rows}
