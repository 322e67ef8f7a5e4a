"""The background tasks that keep the trust up to date.

Requests to the sources have back-off with jitter and a circuit breaker. Another task
prunes expired revocations.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from circuitbreaker import CircuitBreaker

from shared.feed import FeedError
from shared.jose.verification_keys import JwksError
from verifier.check.trust import Trust
from verifier.disk.disk_copy import CopyError
from verifier.sync.feed import FeedFollower, Sleep
from verifier.sync.fetch import FetchError
from verifier.sync.keys import KeysRefresher
from verifier.sync.source_report import SourceReport

BACK_OFF: Final = (0.2, 3.0)

Random = Callable[[], float]


def new_breaker(name: str) -> CircuitBreaker:
    """Return a breaker for one source: open for 2 s after 5 failures in a row."""
    return CircuitBreaker(
        failure_threshold=5,
        recovery_timeout=2,
        expected_exception=(FetchError, FeedError, JwksError),
        name=name,
    )


def back_off(failures: int, random: Random) -> float:
    """Return seconds to wait after this many failures: doubling, jittered, capped."""
    least, most = BACK_OFF
    doubled: float = least * 2 ** min(failures - 1, 10)
    return min(most, doubled) * (0.5 + random() / 2)


class TaskTiming(NamedTuple):
    """The means by which a task waits.

    Attributes:
        sleep: waits that many seconds.
        random: gives a number from 0 to 1, for the jitter.
    """

    sleep: Sleep
    random: Random


async def follow(
    source: FeedFollower | KeysRefresher,
    breaker: CircuitBreaker,
    timing: TaskTiming,
    rest: Callable[[], Awaitable[None]],
    report: SourceReport,
) -> None:
    """Step forever: rest after a success, back off after a failure."""
    while True:
        if breaker.opened:
            # Only the decorated form checks this; `call_async` does not.
            await timing.sleep(breaker.open_remaining)
            continue
        try:
            await breaker.call_async(source.step)
        except (FetchError, FeedError, JwksError, CopyError) as error:
            report.failed(source.status, error)
            await timing.sleep(back_off(source.status.failures, timing.random))
        except Exception as error:
            # A fault in this program must not end the task: the gate would stay stale.
            report.crashed(source.status, error)
            await timing.sleep(BACK_OFF[1])
        else:
            report.worked()
            await rest()


async def prune(trust: Trust, now: Callable[[], int], sleep: Sleep) -> None:
    """Drop expired revocations forever, one slice a second."""
    while True:
        await sleep(1.0)
        trust.prune(now())
