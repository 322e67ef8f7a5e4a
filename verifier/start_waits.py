"""What a starting worker waits for before it serves, and how long."""

from __future__ import annotations

import asyncio
import os
from typing import Final

from shared.serving.server import Lifecycle
from verifier.check.trust import Trust
from verifier.operators.worker_board import WorkerBoard
from verifier.sync.clock import boottime
from verifier.sync.other_issuers import OtherIssuers

#: Seconds between two looks.
_PERIOD: Final = 0.02
#: Seconds at most for other issuers, and while another worker has keys and revocations;
#: less than the supervisor waits for a worker.
_LONGEST: Final = 60.0


class StartWaits:
    """The waits of one start, which begins now.

    Args:
        longest: seconds (VERIFIER_START_WAIT).
        board: the states of all workers.
        lifecycle: of this worker. Its `is_good` becomes false when keys or revocations
            are lacking after the wait.
    """

    def __init__(
        self, longest: float, board: WorkerBoard, lifecycle: Lifecycle
    ) -> None:
        self._longest = longest
        self._board = board
        self._lifecycle = lifecycle
        self._begun = boottime()

    async def for_trust(self, trust: Trust) -> None:
        """Wait for keys and a complete list, so that the first answer is not 503.

        They come from the disk or from the issuer. Without them this worker serves all
        the same after its time, and answers 503. It waits longer while another worker
        has them, because that worker can answer the checks.
        """
        ends_at = self._begun + self._longest
        while True:
            now, own = boottime(), trust.snapshot.own
            if now < own.fresh_until and now < own.keys_until:
                return
            if now < self._begun + _LONGEST and self._is_another_good(now):
                ends_at = max(ends_at, now)
            if now > ends_at or self._lifecycle.is_draining:
                self._lifecycle.is_good = False
                return
            await asyncio.sleep(_PERIOD)

    async def for_others(self, others: OtherIssuers) -> None:
        """Wait for the keys of other issuers, so that their tokens pass at once, too.

        One of them that is away costs a start this time, and its own tokens. The
        supervisor must not lose its patience with a worker for it.
        """
        ends_at = self._begun + min(self._longest, _LONGEST)
        while not others.have_keys(boottime()):
            if boottime() > ends_at or self._lifecycle.is_draining:
                return
            await asyncio.sleep(_PERIOD)

    def _is_another_good(self, now: float) -> bool:
        return any(
            now < state.fresh_until and now < state.keys_until
            for state in self._board.read()
            if state.pid != os.getpid()
        )
