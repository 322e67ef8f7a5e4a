"""State that the connections of one port share: limits, sums, counts of refusals."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any, Final

from uvicorn.config import Config
from uvicorn.server import ServerState

from shared.log import event
from shared.serving.connection import Connection
from shared.serving.limits import Limits
from shared.serving.requests import Requests
from shared.serving.workers.places import Places

_LOG: Final = logging.getLogger(__name__)
#: Seconds between two log lines about refusals.
_LOG_PERIOD: Final = 10.0


class Port:
    """Makes the connections of one port; uvicorn takes it as its `http`.

    Args:
        name: of the port, for the log.
        limits: what its connections may cost.

    Attributes:
        read_into: the buffer of every read; only one read is under way at a time.
        refused: requests and connections that were refused or ended, by reason.
    """

    def __init__(self, name: str, limits: Limits) -> None:
        self._name = name
        self.limits = limits
        self.places = Places(limits.connections, limits.share_for_others)
        self.read_into = memoryview(bytearray(limits.read_bytes))
        self.refused: Counter[str] = Counter()
        self._next_line_at = float("-inf")
        self._bodies = 0
        # Both in the order in which they came.
        self._ending: dict[Connection, None] = {}
        self._unread: dict[Connection, float] = {}

    def __call__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> Connection:
        """Return the protocol of a new connection."""
        loop = _loop or asyncio.get_running_loop()

        def make_requests(connection: Connection) -> Requests:
            return Requests(
                connection, self.limits, config, server_state, app_state, loop
            )

        return Connection(self, make_requests, loop)

    def note(self, reason: str, now: float) -> None:
        """Count a refusal; log the counts at a bounded rate.

        Args:
            reason: one word.
            now: monotonic seconds.
        """
        self.refused[reason] += 1
        if now >= self._next_line_at:
            self._next_line_at = now + _LOG_PERIOD
            event(
                _LOG,
                logging.WARNING,
                "serving.refused",
                port=self._name,
                reason=reason,
                refused=self.refused.total(),
            )

    def add_body(self, size: int) -> bool:
        """Count bytes of a body that the application holds; return whether they fit."""
        self._bodies += size
        return self._bodies <= self.limits.bodies_in_all

    def remove_body(self, size: int) -> None:
        """Subtract bytes that `add_body` counted."""
        self._bodies -= size

    def add_ending(self, connection: Connection) -> None:
        """Record a connection that is being ended; beyond the limit abort the
        oldest.
        """
        if len(self._ending) >= self.limits.ending:
            oldest = next(iter(self._ending))
            # The answer was sent, so nothing is lost.
            (next((c for c in self._ending if not c.unread), oldest)).abort("ending")
        self._ending[connection] = None

    def add_unread(self, connection: Connection, now: float) -> None:
        """Record a peer that does not read; abort some when too much is unread."""
        self._unread.pop(connection, None)
        limits = self.limits
        total = self._weigh(connection) + sum(map(self._weigh, self._unread))
        if total > limits.unread_in_all:
            self._put_readers_last(now)
        for oldest, since in list(self._unread.items()):
            is_patient = now - since < limits.unread_patience
            if total <= (1 + is_patient) * limits.unread_in_all:
                break
            total -= self._weigh(oldest)
            oldest.abort("unread_in_all")
        self._unread[connection] = now

    def _weigh(self, connection: Connection) -> int:
        return connection.unread + self.limits.unread_beside

    def _put_readers_last(self, now: float) -> None:
        """Restart the wait of peers that have read meanwhile.

        Otherwise peers that read nothing could get steady readers aborted.
        """
        for each in [each for each in self._unread if each.has_taken_some()]:
            del self._unread[each]
            self._unread[each] = now

    def remove_unread(self, connection: Connection) -> None:
        """Record that its peer reads."""
        self._unread.pop(connection, None)

    def forget(self, connection: Connection) -> None:
        """Record that a connection has ended."""
        self._ending.pop(connection, None)
        self._unread.pop(connection, None)
