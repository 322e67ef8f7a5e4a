"""Failed logins slow the next ones down (requirement R34).

Failures are counted in the database, so all replicas share them, in buckets:

- `account`: those for one name, whoever sends them. The name counts as it was typed, in
  its normal form, whether or not there is such an account: a 429 tells nothing.
- `known source`: those for one name from a network that has logged in to it before. They
  count here and nowhere else, and others' failures do not: a stranger can make an
  account slow for strangers, never for the network its owner uses.
- `source`: those of one network for all names it is not known to.

From a bucket's free failures on, each one doubles the wait for the next attempt, up to a
limit: nobody is locked out for good. While a bucket has failures to wait for, attempts
pass one at a time, each counted before it is made: what comes at once with it waits too.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from sqlalchemy import ColumnElement, case, delete, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.accounts.login_tables import KnownSource, LoginThrottle
from issuer.accounts.sources import find_source, tells_callers_apart
from issuer.db import Database
from issuer.errors import TooManyRequestsError
from issuer.forwarded_for import Hop
from issuer.lifetimes import lies_ahead
from issuer.models import User

#: Seconds until a few failures are forgotten; mistyping happens.
_FORGET_FEW: Final = 3_600
#: Seconds until failures are forgotten that made the next attempt wait.
FORGET_MANY: Final = 86_400
#: Seconds for which a source stays known after a login.
KNOWN_FOR: Final = 90 * 86_400
#: How old the note of a known source's last login may be, seconds: saves writes.
_NOTE_AGE: Final = 86_400
_LONGEST_DOUBLING: Final = 30


class Proof(StrEnum):
    """What is being guessed; failures of each count apart."""

    PASSWORD = "password"  # noqa: S105
    CODE = "code"


@dataclass(frozen=True, slots=True)
class ThrottleLimits:
    """How many failures are free, per account and per source; delays in seconds."""

    free_failures: int
    source_free_failures: int
    max_delay: int

    def delay_after(self, failures: int, free: int) -> int:
        """Return the wait after so many failures, of which `free` would cost nothing."""
        if failures < free:
            return 0
        return min(1 << min(failures - free, _LONGEST_DOUBLING), self.max_delay)

    def wait(self, blocked_until: int, now: int) -> int:
        """Return the seconds to wait: at most `max_delay` (requirement R53).

        A later moment was set while the clock was ahead, and counts no more.
        """
        left = blocked_until - now
        return left if 0 < left <= self.max_delay else 0


@dataclass(frozen=True, slots=True)
class Bucket:
    """Failures that count together: their key, what it is called, how many are free."""

    key: bytes
    word: str
    free: int


class _Count(NamedTuple):
    failures: int
    blocked_until: int


@dataclass(frozen=True, slots=True)
class Standing:
    """What counts for one attempt, as it was read.

    Attributes:
        buckets: in which a failure would count, in the order of their keys.
        counts: by key, of those that have failures.
        proof: what is tried.
        source: the caller's network.
        noted_at: when the account's last login from there was noted; None: unknown.
    """

    buckets: tuple[Bucket, ...]
    counts: Mapping[bytes, _Count]
    proof: Proof
    source: str
    noted_at: int | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that may be made; `counted` holds the buckets that count it already."""

    standing: Standing
    counted: frozenset[bytes] = frozenset()


class LoginThrottling:
    """Counts failures and says who has to wait.

    Args:
        database: keeps the counts.
        secret: keys the digests under which they are kept.
        limits: how many failures are free, and the longest delay.
        is_proxy: tells whether an address is that of a gateway, which stands for all
            of its clients.
    """

    def __init__(
        self,
        database: Database,
        secret: bytes,
        limits: ThrottleLimits,
        is_proxy: Callable[[Hop], bool],
    ) -> None:
        self._database = database
        self._key = hmac.digest(secret, b"gatehouse login throttle", hashlib.sha256)
        self._limits = limits
        self._is_proxy = is_proxy
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
    ) -> Standing:
        """Return what counts for an attempt; asks the same for every name.

        Args:
            db: an open transaction.
            username: normal form; empty when what was typed has none.
            address: the caller's.
            now: Unix seconds.
            typed: what counts as the name when it has no normal form.
            proof: what is tried.
        """
        source = find_source(address)
        noted_at = await db.scalar(
            select(KnownSource.last_used_at)
            .join(User, User.id == KnownSource.user_id)
            .where(
                User.username == username,
                KnownSource.source == source,
                KnownSource.last_used_at > now - KNOWN_FOR,
                ~lies_ahead(KnownSource.last_used_at, now),
            )
        )
        name = username or f"\0{typed}"
        if noted_at is not None:
            buckets = [self._bucket("known source", proof, name, source)]
        else:
            buckets = [self._bucket("account", proof, name)]
            if tells_callers_apart(address, self._is_proxy):
                buckets.append(self._bucket("source", source))
        rows = await db.execute(
            select(
                LoginThrottle.key, LoginThrottle.failures, LoginThrottle.blocked_until
            ).where(
                LoginThrottle.key.in_([bucket.key for bucket in buckets]),
                LoginThrottle.prune_at > now,
            )
        )
        counts = {row.key: _Count(row.failures, row.blocked_until) for row in rows}
        # In one order for all, so that two attempts never wait for each other.
        ordered = tuple(sorted(buckets, key=lambda bucket: bucket.key))
        return Standing(ordered, counts, proof, source, noted_at)

    async def admit(self, standing: Standing, now: int) -> Attempt:
        """Return the attempt, to be told later how it ended.

        Raises:
            TooManyRequestsError: when it has to wait.
            UnavailableError: when the database is away.
        """
        blocked = (count.blocked_until for count in standing.counts.values())
        wait = max((self._limits.wait(until, now) for until in blocked), default=0)
        if wait:
            raise TooManyRequestsError(wait)
        # A guess at a code costs next to nothing, so each is counted first.
        first = [
            bucket
            for bucket in standing.buckets
            if standing.proof is Proof.CODE
            or standing.counts.get(bucket.key, _Count(0, 0)).failures >= bucket.free
        ]
        if not first:
            return Attempt(standing)
        async with self._database.write() as db:
            for bucket in first:
                if await self._count(db, bucket, now, only_unblocked=True) is None:
                    # Another was first. Nothing is counted for this one.
                    raise TooManyRequestsError(1)
        return Attempt(standing, frozenset(bucket.key for bucket in first))

    async def fail(self, db: AsyncSession, attempt: Attempt, now: int) -> list[str]:
        """Count a failure; return the buckets that make the next attempt wait by it."""
        slowed = []
        for bucket in attempt.standing.buckets:
            if bucket.key in attempt.counted:
                slowed.append(bucket.word)
                continue
            failures = await self._count(db, bucket, now)
            if failures is not None and failures >= bucket.free:
                slowed.append(bucket.word)
        return slowed

    async def succeed(self, db: AsyncSession, attempt: Attempt) -> None:
        """Forget the account's failures; the source's stay.

        Otherwise whoever has one account could guess at others' for ever, by logging in
        to it now and then. A success that was counted first is taken back.
        """
        standing = attempt.standing
        for bucket in standing.buckets:
            is_counted = bucket.key in attempt.counted
            if bucket.word != "source" and (
                is_counted or bucket.key in standing.counts
            ):
                await db.execute(
                    delete(LoginThrottle).where(LoginThrottle.key == bucket.key)
                )
            elif is_counted:
                await db.execute(
                    update(LoginThrottle)
                    .where(LoginThrottle.key == bucket.key)
                    .values(failures=LoginThrottle.failures - 1, blocked_until=0)
                )

    async def remember_source(
        self, db: AsyncSession, standing: Standing, user_id: str, now: int
    ) -> None:
        """Note that the user has logged in from there."""
        if standing.noted_at is not None and 0 <= now - standing.noted_at < _NOTE_AGE:
            return
        statement = self._insert(KnownSource).values(
            user_id=user_id, source=standing.source, last_used_at=now
        )
        await db.execute(
            statement.on_conflict_do_update(
                index_elements=["user_id", "source"], set_={"last_used_at": now}
            )
        )

    async def forget_account(self, db: AsyncSession, username: str) -> None:
        """Forget an account's failures of strangers, as its password was reset."""
        keys = [self._bucket("account", proof, username).key for proof in Proof]
        await db.execute(delete(LoginThrottle).where(LoginThrottle.key.in_(keys)))

    async def _count(
        self,
        db: AsyncSession,
        bucket: Bucket,
        now: int,
        *,
        only_unblocked: bool = False,
    ) -> int | None:
        """Count one failure and return how many there are.

        None: somebody blocked the bucket since it was read, and nothing is counted.
        """
        statement = self._insert(LoginThrottle).values(
            key=bucket.key, failures=1, blocked_until=0, prune_at=now + _FORGET_FEW
        )
        is_forgotten = LoginThrottle.prune_at <= now
        counted = statement.on_conflict_do_update(
            index_elements=["key"],
            set_={
                "failures": case((is_forgotten, 1), else_=LoginThrottle.failures + 1),
                "prune_at": now + _FORGET_FEW,
            },
            where=self._is_unblocked(now) if only_unblocked else None,
        ).returning(LoginThrottle.failures)
        failures = await db.scalar(counted)
        if failures is None:
            return None
        delay = self._limits.delay_after(failures, bucket.free)
        if delay:
            await db.execute(
                update(LoginThrottle)
                .where(LoginThrottle.key == bucket.key)
                .values(blocked_until=now + delay, prune_at=now + FORGET_MANY)
                .execution_options(synchronize_session=False)
            )
        return failures

    def _is_unblocked(self, now: int) -> ColumnElement[bool]:
        until = LoginThrottle.blocked_until
        return or_(until <= now, until > now + self._limits.max_delay)

    def _bucket(self, word: str, *parts: str) -> Bucket:
        free = (
            self._limits.source_free_failures
            if word == "source"
            else self._limits.free_failures
        )
        text = "\0".join((word, *parts)).encode("utf-8", "surrogatepass")
        return Bucket(hmac.digest(self._key, text, hashlib.sha256), word, free)
