"""How old is what we know: fresh, late, or stale; and how its sources are doing.

Late is a warning and changes no answer; stale is 503 (docs/revocation.md). The bounds
are the same in every worker.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from shared.log import event

_LOG: Final = logging.getLogger(__name__)
#: Seconds of age up to which revocations are called fresh. The feed is held for 5 s and
#: an age counts from the sending, so an idle verifier reaches 10 s just before an answer.
FRESH_FOR: Final = 12


class Staleness(IntEnum):
    """How old the revocations are; the greater, the worse."""

    FRESH = 0
    LATE = 1  #: older than a working feed lets them become; still decided by
    STALE = 2  #: too old to decide by

    @property
    def word(self) -> str:
        """What logs and `/status` call it."""
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
        at: monotonic seconds.
        kind: one word.
        error: what went wrong, in one line.
        url: where, without credentials; empty when that is not the point.
        setting: the setting to look at; empty when the fault is elsewhere.
        status: of the answer; None when there was none.
    """

    at: float
    kind: str
    error: str
    url: str = ""
    setting: str = ""
    status: int | None = None


@dataclass(slots=True)
class SourceStatus:
    """How a source is doing, for `/status` and the metrics.

    Attributes:
        last_success: monotonic seconds when the last good answer was asked for.
        failures: failed attempts since then.
        failures_total: failed attempts since the start.
        last_error: why the last attempt failed; empty when it did not.
        last_failure: why an attempt failed last, also when those after it did not.
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
        state: as last seen; a start is stale.
    """

    def __init__(self) -> None:
        self.state = Staleness.STALE

    def see(self, state: Staleness) -> None:
        """Take note of the state now."""
        if state is not self.state:
            was, self.state = self.state, state
            event(
                _LOG,
                _LEVELS[state],
                "staleness.changed",
                state=state.word,
                was=was.word,
            )
