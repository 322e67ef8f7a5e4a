"""Notices that policy file or issuers file changed, without a signal (R65).

It looks at the status of each. This sees a write in place, a rename over the file, and
another target of a link on the way to it (Kubernetes replaces the link `..data`), on
any file system; a notification of the kernel would miss changes that another machine
makes. A file is read when two looks in a row saw the same one, because a file that is
written in place is half there for a moment.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from shared.log import event
from shared.thread_switching import call_detached
from verifier.reloading.policy_file import Identity, look
from verifier.reloading.reload import Reloader
from verifier.sync.feed import Sleep

_LOG: Final = logging.getLogger(__name__)
#: Seconds after which a look that does not return is logged.
SLOW_LOOK: Final = 10.0


class PolicyWatch:
    """Has policy file and issuers file of one worker read when one changed.

    Args:
        paths: of policy file and issuers file; empty for a file that is not named.
        period: seconds between two looks.
        reloader: reads it.
        look: returns the identity of the file at a path; it may hang.
        sleep: waits that many seconds.
        patience: seconds after which a look that does not return is logged.
    """

    def __init__(
        self,
        paths: Sequence[str],
        period: float,
        reloader: Reloader,
        *,
        look: Callable[[str], Identity] = look,
        sleep: Sleep = asyncio.sleep,
        patience: float = SLOW_LOOK,
    ) -> None:
        self._paths = paths
        self._period = period
        self._reloader = reloader
        self._look = look
        self._sleep = sleep
        self._patience = patience
        self._before: Identity | None = None

    async def run(self) -> None:
        """Look at the files forever."""
        while True:
            await self._sleep(self._period)
            try:
                await self.step()
            except Exception:
                # A fault in this program, or no thread could be started.
                _LOG.exception("policy_watch.crashed")

    async def step(self) -> None:
        """Look at the files once, and have them read if that is due."""
        found = await self._look_detached()
        is_stable, self._before = found == self._before, found
        if is_stable and self._reloader.is_policy_file_due(found):
            await self._reloader.renew_policies(found)

    async def _look_detached(self) -> Identity:
        # A network file system may hang, and with it the thread. There is one at most,
        # because no other look begins before.
        looking = asyncio.create_task(call_detached(self._look_at_all))
        done, _ = await asyncio.wait({looking}, timeout=self._patience)
        if not done:
            event(
                _LOG,
                logging.WARNING,
                "policy_watch.waiting",
                path=", ".join(filter(None, self._paths)),
                detail="the file system does not answer; the policies stay in force",
            )
        return await looking

    def _look_at_all(self) -> Identity:
        return tuple(part for path in self._paths for part in self._look(path))
