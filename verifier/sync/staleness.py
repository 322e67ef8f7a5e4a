"""The age of the revocations (fresh, late or stale), and the state of the sources.

Late is a warning and changes no answer; stale is answered 503 (docs/revocation.md). The
bounds are the same in every worker.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from shared.log import event

_LOG: Final = logging.getLogger(__name__)
#: Seconds of age up to which revocations are fresh. The issuer holds a feed request for
#: 5 s, and an age counts from the send time, so an idle verifier reaches 10 s.
FRESH_FOR: Final = 12


class Staleness(IntEnum):
    """How old the revocations are; the greater, the worse."""

    FRESH = 0
    LATE = 1  #: older than they get with a working feed; still good to decide by
    STALE = 2  #: too old to decide by

    @property
    def word(self) -> str:
        """The word for it in logs and `/status`."""
        return self.name.lower()


_LEVELS: Final = {
    Staleness.FRESH: logging.INFO,
    Staleness.LATE: logging.WARNING,
    Staleness.STALE: logging.ERROR,
}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt failed.

    Attributes:
        at: boot-time seconds.
        kind: one word.
        error: what went wrong, in one line.
        url: the URL without credentials; empty when it does not matter.
        setting: the setting to check; empty when the fault is elsewhere.
        status: HTTP status; None without an answer.
    """

    at: float
    kind: str
    error: str
    url: str = ""
    setting: str = ""
    status: int | None = None


@dataclass(slots=True)
class SourceStatus:
    """The state of one source, for `/status` and the metrics.

    Attributes:
        last_success: boot-time seconds at which the request for the last good answer
            was sent.
        failures: failed attempts since then.
        failures_total: failed attempts since the start.
        last_error: why the last attempt failed; empty when it succeeded.
        last_failure: the last failure, also after later successes.
    """

    last_success: float | None = None
    failures: int = 0
    failures_total: int = 0
    last_error: str = ""
    last_failure: Failure | None = None

    def succeeded(self, sent_at: float) -> None:
        """Note a good answer to a request sent at `sent_at`."""
        self.last_success, self.failures, self.last_error = sent_at, 0, ""

    def failed(self, failure: Failure) -> None:
        """Note a failed attempt."""
        self.failures += 1
        self.failures_total += 1
        self.last_error, self.last_failure = failure.error, failure


def staleness_of(
    status: SourceStatus, fresh_until: float, boottime: float
) -> Staleness:
    """Return how old the revocations are.

    Args:
        status: of the feed.
        fresh_until: as in the trust snapshot.
        boottime: the time now.
    """
    if boottime >= fresh_until:
        return Staleness.STALE
    last = status.last_success
    if last is None or boottime - last > FRESH_FOR:
        return Staleness.LATE
    return Staleness.FRESH


class StalenessWatch:
    """Logs each change between the three states once.

    Attributes:
        state: the last known state; at the start, stale.
    """

    def __init__(self) -> None:
        self.state = Staleness.STALE

    def update(self, state: Staleness) -> None:
        """Log the state if it is another one."""
        if state is not self.state:
            was, self.state = self.state, state
            event(
                _LOG,
                _LEVELS[state],
                "staleness.changed",
                state=state.word,
                was=was.word,
            )
