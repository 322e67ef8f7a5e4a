"""The background tasks go on for ever, with any failure of their sources."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from shared.feed import EntryKind
from tests.support.gatehouse_verifier import unstarted
from tests.support.issuer_simulator import FEED_URL, answering, truncated
from verifier.check.trust import PRUNE_PARTS, Trust
from verifier.sync.feed import FEED_REST, FeedFollower
from verifier.sync.fetch import Fetched
from verifier.sync.keys import KeysRefresher
from verifier.sync.source_report import Source, SourceReport
from verifier.sync.staleness import Failure
from verifier.sync.sync_tasks import (
    BACK_OFF,
    TaskTiming,
    back_off,
    follow,
    new_breaker,
    prune,
)

SOURCE = Source("feed", FEED_URL, "VERIFIER_FEED_URL", "VERIFIER_FEED_TOKEN")


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_back_off_doubles_with_jitter_between_its_bounds(chance: float) -> None:
    least, most = BACK_OFF
    waits = [back_off(failures, lambda: chance) for failures in range(1, 2_000)]
    assert waits[0] == pytest.approx(least * (0.5 + chance / 2))
    assert waits == sorted(waits)
    assert all(least / 2 <= wait <= most for wait in waits)
    assert waits[-1] == pytest.approx(most * (0.5 + chance / 2))


class FakeSleep:
    """Keeps how long was slept; ends the task after so many sleeps."""

    def __init__(self, limit: int) -> None:
        self.slept: list[float] = []
        self._limit = limit

    async def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)
        if len(self.slept) >= self._limit:
            raise asyncio.CancelledError


async def run(
    source: FeedFollower | KeysRefresher,
    *,
    sleeps: int,
    rest: Callable[[], Awaitable[None]] | None = None,
) -> list[float]:
    """Follow until so many sleeps, or a rest, have ended it."""
    sleep = FakeSleep(sleeps)
    timing = TaskTiming(sleep, lambda: 1.0)

    async def cancelling_rest() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await follow(
            source,
            new_breaker("test"),
            timing,
            rest or cancelling_rest,
            SourceReport(SOURCE, lambda: 17.0),
        )
    return sleep.slept


async def test_a_failing_source_is_retried_forever() -> None:
    verifier = unstarted()
    verifier.issuer.is_down = True
    slept = await run(verifier.feed, sleeps=4)
    assert slept == pytest.approx([0.2, 0.4, 0.8, 1.6])
    assert verifier.feed.status.failures == verifier.feed.status.failures_total == 4
    assert verifier.feed.status.last_error == "the issuer is down"


async def test_the_breaker_opens_after_five_failures() -> None:
    """No clock of ours moves here: while it is open the source is not asked."""
    verifier = unstarted()
    verifier.issuer.is_down = True
    slept = await run(verifier.keys, sleeps=20)
    assert len(verifier.issuer.fetches) == 5
    assert verifier.keys.status.failures == 5
    assert all(0 <= seconds <= 5 for seconds in slept[5:])


@pytest.mark.parametrize("source", ["feed", "keys"])
async def test_a_source_that_lies_is_backed_off_from(source: str) -> None:
    verifier = unstarted()
    verifier.issuer.lie = truncated
    await run(getattr(verifier, source), sleeps=3)
    assert getattr(verifier, source).status.failures == 3


async def test_a_crash_of_ours_does_not_end_the_task(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Else the gate would go stale for good."""
    verifier = unstarted()

    def crash(answer: Fetched) -> Fetched:
        raise ZeroDivisionError("a fault of ours")

    verifier.issuer.lie = crash
    slept = await run(verifier.feed, sleeps=7)
    assert slept == [BACK_OFF[1]] * 7
    assert verifier.feed.status.failures == 7
    crashes = [r for r in caplog.records if r.getMessage() == "sync.crashed"]
    assert len(crashes) == 7
    assert all(record.levelno == logging.ERROR for record in crashes)


async def test_a_success_rests_and_forgets_the_failures() -> None:
    verifier = unstarted()
    verifier.issuer.is_down = True
    await run(verifier.feed, sleeps=3)
    verifier.issuer.is_down = False
    assert await run(verifier.feed, sleeps=1) == []
    assert verifier.feed.status.failures == 0
    assert verifier.feed.status.failures_total == 3
    assert verifier.feed.status.last_error == ""


async def test_r59_a_failure_is_logged_once_and_stays_in_the_status(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    verifier = unstarted()
    await verifier.feed.step()
    verifier.issuer.lie = answering(401)
    await run(verifier.feed, sleeps=4)
    lines = [r for r in caplog.records if r.message == "sync.failed"]
    assert [line.fields for line in lines] == [
        {
            "source": "feed",
            "kind": "status",
            "url": FEED_URL,
            "setting": "VERIFIER_FEED_TOKEN",
            "error": "the server refused: status 401",
            "failures": 1,
            "unlogged": 0,
        }
    ]
    verifier.issuer.lie = None
    await run(verifier.feed, sleeps=1)
    status = verifier.feed.status
    assert (status.failures, status.last_error) == (0, "")
    assert status.last_failure == Failure(
        17.0,
        "status",
        "the server refused: status 401",
        FEED_URL,
        "VERIFIER_FEED_TOKEN",
        401,
    )


async def test_a_source_that_answers_again_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    verifier = unstarted()
    verifier.issuer.is_down = True

    rests = 0

    async def rest() -> None:
        nonlocal rests
        rests += 1
        if rests == 2:
            raise asyncio.CancelledError

    async def sleep(_seconds: float) -> None:
        verifier.issuer.is_down = False

    report = SourceReport(SOURCE, lambda: 17.0)
    with pytest.raises(asyncio.CancelledError):
        await follow(
            verifier.feed,
            new_breaker("test"),
            TaskTiming(sleep, lambda: 1.0),
            rest,
            report,
        )
    shown = [r.message for r in caplog.records if r.message.startswith("sync.")]
    assert shown == ["sync.failed", "sync.failed_no_more"]


async def test_the_task_goes_on_after_a_rest() -> None:
    verifier = unstarted()
    rests = 0

    async def rest() -> None:
        nonlocal rests
        rests += 1
        verifier.issuer.is_down = rests == 3

    await run(verifier.feed, sleeps=1, rest=rest)
    assert rests == 3
    assert len(verifier.issuer.fetches) == 4


async def test_expired_revocations_are_pruned_in_slices() -> None:
    verifier = unstarted()
    for n in range(300):
        verifier.issuer.revoke(EntryKind.JTI, f"t-{n}")
    await verifier.feed.step()
    verifier.clock.advance(10_000)
    verifier.issuer.entries.clear()
    verifier.issuer.revoke(EntryKind.JTI, "new")
    await verifier.feed.step()
    trust: Trust = verifier.trust
    fresh_until = trust.snapshot.own.fresh_until
    sleep = FakeSleep(PRUNE_PARTS + 1)
    with pytest.raises(asyncio.CancelledError):
        await prune(trust, verifier.clock.now, sleep)
    assert sleep.slept == [1.0] * (PRUNE_PARTS + 1)
    assert len(trust.snapshot.own.revocations) == 1
    assert trust.snapshot.own.fresh_until == fresh_until


async def test_requests_to_an_issuer_that_does_not_hold_have_a_pause() -> None:
    verifier = unstarted()
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    await verifier.feed.step()
    await verifier.feed.pause(sleep)
    verifier.issuer.revoke(EntryKind.SID, "sid-1")
    await verifier.feed.step()
    await verifier.feed.pause(sleep)
    assert pauses == [FEED_REST]
    await verifier.feed.step()
    await verifier.feed.pause(sleep)
    verifier.issuer.restore_backup(0)
    await verifier.feed.step()
    await verifier.feed.pause(sleep)
    assert pauses == [FEED_REST] * 3
