"""Reads the files again while a worker serves (decision 0026).

Call it from the worker's event loop; it installs no signal handler.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from shared.configuration.reloading import OneAtATime
from shared.thread_switching import switch_often
from verifier.check.gate import Gate
from verifier.disk.copy_format import derive_key
from verifier.disk.disk_copy import DiskCopy
from verifier.reloading.files import Files, ReadFiles
from verifier.sync.sync import FeedFollower, Sleep

_LOG: Final = logging.getLogger(__name__)
#: Seconds in which the issuer must answer a feed request that declares a new
#: `on_stale = "allow"`. The issuer holds a request for 5 s, and one may be under way.
ANNOUNCE_TIME: Final = 15.0
_LOOK_EVERY: Final = 0.1


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
    """

    gate: Gate
    feed: FeedFollower
    copy: DiskCopy
    renew_authorities: Callable[[], Awaitable[bool]]


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
        #: Reads the files again and returns when they are in force; never raises.
        self.reload = OneAtATime(self._reload)

    async def _reload(self) -> None:
        try:
            await self._renew()
        except Exception:
            # A fault in this program; the present files stay in force.
            _LOG.exception("reload.crashed")
            self.report.outcomes["kept"] += 1

    async def _renew(self) -> None:
        files, parts = self._files, self._parts
        # A file of 1,000 rules takes 0.1 s to read.
        reading = await asyncio.to_thread(switch_often, files.read)
        is_new = await parts.renew_authorities()
        files.note_authorities(reading.outcome, is_new=is_new)
        if not await self._announce(reading):
            reading = files.refuse_policies(
                reading,
                'a policy is on_stale = "allow" now, and the issuer did not answer; '
                "reload again when the feed is reached",
            )
        files.take(reading)
        if reading.policies is not None:
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
