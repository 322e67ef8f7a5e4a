"""The tasks that keep the trust snapshot true, each for ever and at its own pace.

Back-off with jitter and a circuit breaker for what may fail; a sweep for what expires.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple

from circuitbreaker import CircuitBreaker

from shared.feed import FeedError
from verifier.check.trust import JwksError, Trust
from verifier.disk.disk_copy import CopyError
from verifier.sync.fetch import FetchError
from verifier.sync.source_report import SourceReport
from verifier.sync.sync import FeedFollower, KeysRefresher, Sleep

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


class Pace(NamedTuple):
    """How a task waits.

    Attributes:
        sleep: waits that many seconds.
        random: gives a number from 0 to 1, for the jitter.
    """

    sleep: Sleep
    random: Random


async def follow(
    source: FeedFollower | KeysRefresher,
    breaker: CircuitBreaker,
    pace: Pace,
    rest: Callable[[], Awaitable[None]],
    report: SourceReport,
) -> None:
    """Step for ever: rest after success, back off after failure; never gives up."""
    while True:
        if breaker.opened:
            # `call_async` itself does not look: only the decorated form does.
            await pace.sleep(breaker.open_remaining)
            continue
        try:
            await breaker.call_async(source.step)
        except (FetchError, FeedError, JwksError, CopyError) as error:
            report.failed(source.status, error)
            await pace.sleep(back_off(source.status.failures, pace.random))
        except Exception as error:
            # A fault of ours must not end the task: the gate would go stale for good.
            report.crashed(source.status, error)
            await pace.sleep(BACK_OFF[1])
        else:
            report.worked()
            await rest()


async def prune(trust: Trust, now: Callable[[], int], sleep: Sleep) -> None:
    """Drop expired revocations for ever, one slice a second."""
    while True:
        await sleep(1.0)
        trust.prune(now())
