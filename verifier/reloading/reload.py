"""Reads the files again while a worker serves (decision 0026).

A reload on HUP reads all of them, `watch.py` has the policy file read alone. Only one
reading runs at a time. Call both from the worker's event loop; no signal handler is
installed here.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple

from shared.configuration.reloading import OneAtATime
from shared.thread_switching import call_detached, frequent_switches
from verifier.check.gate import Gate
from verifier.check.policy import KnownIssuer
from verifier.disk.copy_format import derive_key
from verifier.disk.disk_copy import DiskCopy
from verifier.reloading.files import Files, ReadFiles
from verifier.reloading.policy_file import Identity
from verifier.sync.feed import FeedFollower, Sleep

_LOG: Final = logging.getLogger(__name__)
#: Seconds in which the issuer must answer a feed request that declares a new
#: `on_stale = "allow"`. The issuer holds a request for 5 s, and one may be under way.
ANNOUNCE_TIME: Final = 15.0
_LOOK_EVERY: Final = 0.1
_UNANNOUNCED: Final = (
    'a policy is on_stale = "allow" now, and the issuer did not answer; it is tried again '
    "when the feed is reached (without VERIFIER_POLICY_WATCH, reload again then)"
)


@dataclass
class ReloadReport:
    """Outcomes of reading the files, for operators.

    Attributes:
        outcomes: counts of `changed`, `unchanged` and `kept`.
        loaded_at: Unix seconds at which the policies in force were read.
        policy_error: why the policy file on disk is not in force; empty when it is.
    """

    loaded_at: int = 0
    policy_error: str = ""
    outcomes: Counter[str] = field(default_factory=Counter)


class ReloadedParts(NamedTuple):
    """The parts of a worker that a reload changes.

    Attributes:
        gate: gets the new policies.
        feed: sends the new feed token.
        copy: is sealed with a key derived from the feed token.
        renew_authorities: reads the CA file; returns whether it changed.
        follow_issuers: called with the other issuers that are followed from then on.
        on_policies: called when a changed policy file came into force without a reload.
    """

    gate: Gate
    feed: FeedFollower
    copy: DiskCopy
    renew_authorities: Callable[[], Awaitable[bool]]
    follow_issuers: Callable[[Iterable[KnownIssuer]], None]
    on_policies: Callable[[], None] = lambda: None


class Reloader:
    """Reads the files of one worker again.

    Args:
        files: the content in force.
        parts: the parts that a reload changes.
        report: updated after each reload.
        now: gives Unix seconds.
        boottime: gives boot-time seconds.
        sleep: waits that many seconds.
    """

    def __init__(
        self,
        files: Files,
        parts: ReloadedParts,
        report: ReloadReport,
        *,
        now: Callable[[], int],
        boottime: Callable[[], float],
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._files = files
        self._parts = parts
        self.report = report
        self._now = now
        self._boottime = boottime
        self._sleep = sleep
        report.loaded_at, report.policy_error = now(), files.policy_error
        self._run = OneAtATime(self._reload)
        self._is_whole_due = False
        self._identity: Identity = ()
        self._unannounced_at: float | None = None

    async def reload(self) -> None:
        """Read the files again and return when they are in force; never raise."""
        self._is_whole_due = True
        await self._run()

    def is_policy_file_due(self, identity: Identity) -> bool:
        """Return whether the policy file should be read again without a request.

        It should when it is another one than at the last reading, or when what kept it
        out of force may be over.

        Args:
            identity: of the file now.
        """
        seen, fed_at = self._files.seen, self._parts.feed.status.last_success
        if seen.identity != identity or not seen.is_read:
            return True
        begun = self._unannounced_at
        return begun is not None and fed_at is not None and fed_at > begun

    async def renew_policies(self, identity: Identity) -> None:
        """Read the policy file again, and nothing else; never raise.

        Args:
            identity: of the file that is to be read.
        """
        self._identity = identity
        await self._run()

    async def _reload(self) -> None:
        is_whole, self._is_whole_due = self._is_whole_due, False
        try:
            await (self._renew() if is_whole else self._renew_policies())
        except Exception:
            # A fault in this program; the present files stay in force.
            _LOG.exception("reload.crashed")
            self.report.outcomes["kept"] += 1

    async def _renew(self) -> None:
        files = self._files
        # A file of 1,000 rules takes 0.1 s to read.
        with frequent_switches():
            reading = await call_detached(files.read)
        is_new = await self._parts.renew_authorities()
        files.note_authorities(reading.outcome, is_new=is_new)
        await self._put_in_force(reading)

    async def _renew_policies(self) -> None:
        files = self._files
        with frequent_switches():
            reading = await call_detached(partial(files.read_policies, self._identity))
        if reading is None:
            return
        if reading.seen.content == files.seen.content:
            # Logged and counted already.
            files.seen = reading.seen
            return
        await self._put_in_force(reading)
        if reading.policies is files.policies:
            self._parts.on_policies()

    async def _put_in_force(self, reading: ReadFiles) -> None:
        files, parts = self._files, self._parts
        self._unannounced_at = None
        if not await self._announce(reading):
            self._unannounced_at = self._boottime()
            reading = files.refuse_policies(reading, _UNANNOUNCED)
        files.take(reading)
        if reading.policies is not None:
            parts.follow_issuers(reading.policies.issuers)
            parts.gate.adopt(reading.policies)
            self.report.loaded_at = self._now()
        token = files.settings.feed_token.get_secret_value()
        if "feed_token" in reading.values:
            parts.copy.rekey(derive_key(token))
        parts.feed.update_source(token, allows_stale=files.policies.allows_stale)
        self.report.policy_error = files.policy_error
        self.report.outcomes[reading.outcome.word] += 1
        reading.outcome.write(_LOG)

    async def _announce(self, reading: ReadFiles) -> bool:
        """Declare to the issuer that a policy will answer from stale revocations.

        The issuer's `confirmed` names a follower that may do so; for other followers it
        waits until they answer nothing any more (docs/revocation.md).
        """
        policies, feed = reading.policies, self._parts.feed
        if policies is None or not policies.allows_stale or feed.source.allows_stale:
            return True
        feed.update_source(self._files.feed_token_of(reading), allows_stale=True)
        begun = self._boottime()
        while self._boottime() < begun + ANNOUNCE_TIME:
            last = feed.status.last_success
            if last is not None and last > begun:
                return True
            await self._sleep(_LOOK_EVERY)
        return False
