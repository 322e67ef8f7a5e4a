"""Confirmation: no verifier can answer 200 for the revoked tokens any more.

docs/revocation.md has the promise and the proof.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from issuer.errors import UnavailableError
from issuer.feed.continuity import Continuity
from issuer.feed.feed import Position
from issuer.feed.followers import FollowersReading, read_followers
from issuer.storage.db import Database
from issuer.storage.shared_reads import SharedReads

#: Pending: the database was restored, and verifiers without a row may answer 200 until
#: the longest lease is over.
DATABASE_CONTINUITY: Final = "database-continuity"
#: Pending: the database is away.
DATABASE_UNAVAILABLE: Final = "database-unavailable"
#: Seconds after which a waiter checks by itself: a notification may be lost.
_LOOK_SECONDS: Final = 0.1

#: Called with the outcome (`confirmed` or `pending`) and the seconds of each wait.
OnWaited = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The state of a revocation.

    Attributes:
        is_confirmed: from now on no verifier answers 200 for the revoked tokens, except
            by policies that allow stale answers, in the verifiers of `exempt`.
        confirmed: how many verifiers have applied it.
        pending: ids of the verifiers that have not, and words for other causes.
        exempt: ids of verifiers whose lease has run out and that may answer from stale
            revocations.
    """

    is_confirmed: bool
    confirmed: int
    pending: tuple[str, ...]
    exempt: tuple[str, ...]


class Confirmation:
    """Waits until every verifier has applied a revocation or refuses all requests.

    Args:
        database: has the followers.
        continuity: detects a restored database.
        on_waited: called after each wait.
        look_every: seconds after which a waiter checks by itself.
    """

    def __init__(
        self,
        database: Database,
        continuity: Continuity,
        on_waited: OnWaited,
        *,
        look_every: float = _LOOK_SECONDS,
    ) -> None:
        self._database = database
        self._continuity = continuity
        self._on_waited = on_waited
        self._look_every = look_every
        self._reads: SharedReads[None, FollowersReading] = SharedReads()
        self._changed = asyncio.Event()
        self._is_closed = False

    def look_again(self) -> None:
        """Wake all waiters: a follower has applied more, or has left."""
        self._changed.set()
        self._changed = asyncio.Event()

    def close(self) -> None:
        """Return the present state to all waiters: the process is about to stop."""
        self._is_closed = True
        self.look_again()

    async def wait(self, position: Position, seconds: float) -> Confirmed:
        """Wait until the revocation at `position`, which is committed, is confirmed.

        Database trouble does not raise: the revocation is committed, and the answer
        says that its confirmation is unknown.

        Args:
            position: from the feed.
            seconds: to wait at most; 0: check once.
        """
        began = time.monotonic()
        while True:
            changed = self._changed
            found = await self._look(position)
            left = began + seconds - time.monotonic()
            if found.is_confirmed or left <= 0 or self._is_closed:
                break
            with suppress(TimeoutError):
                # Not `wait_for`, as in `issuer/foundation.py`.
                async with asyncio.timeout(min(left, self._look_every)):
                    await changed.wait()
        outcome = "confirmed" if found.is_confirmed else "pending"
        self._on_waited(outcome, time.monotonic() - began)
        return found

    async def _look(self, position: Position) -> Confirmed:
        try:
            reading = await self._reads.get(None, self._read)
        except UnavailableError:
            return Confirmed(False, 0, (DATABASE_UNAVAILABLE,), ())
        head = reading.head
        # In another epoch the position may belong to another entry.
        if not head.settled or head.epoch != position.epoch:
            behind = (DATABASE_CONTINUITY, *reading.behind(position.seq))
        elif reading.least >= position.seq:
            behind = ()
        else:
            behind = reading.behind(position.seq)
        known = len(reading.awaited) - sum(
            name != DATABASE_CONTINUITY for name in behind
        )
        return Confirmed(not behind, known, behind, reading.exempt)

    async def _read(self) -> FollowersReading:
        while True:
            async with self._database.read() as db:
                reading = await read_followers(db, self._continuity)
            if await self._continuity.holds(reading.head):
                return reading
