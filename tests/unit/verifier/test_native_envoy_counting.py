"""Envoy's counters prove what its workers have; after a reset in a write, nothing."""

from __future__ import annotations

import asyncio

import pytest

from shared.feed import EntryKind, FeedEntry
from tests.support.fake_envoy import NAMES, OWN_RECENT, FakeEnvoy, Filter
from tests.support.native_site import NativeSite
from verifier.native.envoy import process as process_module
from verifier.native.envoy.names import SETTLED
from verifier.native.envoy.process import EnvoyProcess
from verifier.native.writer import WriteError

RESET = "restarted"


@pytest.fixture
def site() -> NativeSite:
    return NativeSite()


@pytest.fixture
def envoy() -> FakeEnvoy:
    return FakeEnvoy()


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a proof up after milliseconds."""
    monkeypatch.setattr(process_module, "PROOF_TIME", 0.05)


async def write_until_stuck(
    site: NativeSite, envoy: FakeEnvoy, process: EnvoyProcess, position: int
) -> None:
    """Write a new entry that a worker does not get."""
    envoy.has_workers = False
    site.reach(position, f"new-{position}")
    with pytest.raises(WriteError):
        await process.write(site.take())
    assert envoy.filters[OWN_RECENT].waiting


async def test_reset_while_a_content_is_on_its_way_proves_nothing(
    site: NativeSite, envoy: FakeEnvoy
) -> None:
    """Both counters are 0 and the version is right, and a worker stands still."""
    process = envoy.connect()
    await process.write(site.take())
    envoy.has_workers = False
    site.reach(2, "new")
    writing = asyncio.create_task(process.write(site.take()))
    while not envoy.filters[OWN_RECENT].waiting:
        await asyncio.sleep(0)
    envoy.reset_counters()
    with pytest.raises(WriteError, match=RESET):
        await writing


async def test_counters_that_are_off_by_one_prove_nothing_for_good(
    site: NativeSite, envoy: FakeEnvoy
) -> None:
    """A worker goes on after the reset: then the counters are equal while it lags."""
    process = envoy.connect()
    await process.write(site.take())
    await write_until_stuck(site, envoy, process, 2)
    envoy.reset_counters()
    envoy.let_workers_go_on()
    envoy.has_workers = False
    for position in range(3, 8):
        site.reach(position, f"new-{position}")
        with pytest.raises(WriteError, match=RESET):
            await process.write(site.take())
        if envoy.filters[OWN_RECENT].waiting > 1:
            # As with one worker that is a content behind all the time.
            envoy.filters[OWN_RECENT].waiting -= 1
            envoy.filters[OWN_RECENT].completed += 1
    envoy.let_workers_go_on()
    with pytest.raises(WriteError, match=RESET):
        await process.write(site.take())


@pytest.mark.parametrize("is_new_stream", [False, True])
async def test_reset_in_a_write_is_known_to_the_next_stream(
    site: NativeSite, envoy: FakeEnvoy, is_new_stream: bool
) -> None:
    process = envoy.connect()
    await process.write(site.take())
    await write_until_stuck(site, envoy, process, 2)
    envoy.reset_counters()
    if not is_new_stream:
        with pytest.raises(WriteError, match=RESET):
            await process.write(site.take())
    process = envoy.connect()
    with pytest.raises(WriteError, match=RESET):
        await process.write(site.take())
    # Nor is it forgotten when the workers have gone on.
    envoy.let_workers_go_on()
    with pytest.raises(WriteError, match=RESET):
        await envoy.connect().write(site.take())


async def test_reset_between_two_writes_costs_one_more(
    site: NativeSite, envoy: FakeEnvoy
) -> None:
    """Nothing was on its way: all that the counters count was sent since then."""
    process = envoy.connect()
    await process.write(site.take())
    envoy.reset_counters()
    envoy.sent.clear()
    site.reach(2, "new")
    with pytest.raises(WriteError, match="everything is sent again"):
        await process.write(site.take())
    await process.write(site.take())
    assert len(envoy.sent) == 1 + len(NAMES)
    # The numbers in the versions are right again for the next stream.
    await envoy.connect().write(site.take())


async def test_reset_between_two_writes_is_no_proof_while_a_worker_lags(
    site: NativeSite, envoy: FakeEnvoy
) -> None:
    process = envoy.connect()
    await process.write(site.take())
    envoy.reset_counters()
    await write_until_stuck(site, envoy, process, 2)
    with pytest.raises(WriteError, match="all workers"):
        await process.write(site.take())
    envoy.let_workers_go_on()
    with pytest.raises(WriteError, match="everything is sent again"):
        await process.write(site.take())
    await process.write(site.take())


async def test_next_stream_waits_for_what_the_one_before_sent(
    site: NativeSite, envoy: FakeEnvoy
) -> None:
    process = envoy.connect()
    await process.write(site.take())
    await write_until_stuck(site, envoy, process, 2)
    process = envoy.connect()
    with pytest.raises(WriteError, match="all workers"):
        await process.write(site.take())
    envoy.let_workers_go_on()
    await process.write(site.take())


@pytest.mark.parametrize("connects_again", [False, True])
async def test_refused_content_completes_no_other(
    site: NativeSite, envoy: FakeEnvoy, connects_again: bool
) -> None:
    """Envoy counts it as completed and not as taken, so the counters are equal while
    the next content is on its way to a worker.
    """
    process = envoy.connect()
    await process.write(site.take())
    envoy.refuses = {OWN_RECENT}
    site.reach(2, "new")
    with pytest.raises(WriteError, match="refused it"):
        await process.write(site.take())
    envoy.refuses.clear()
    if connects_again:
        process = envoy.connect()
    envoy.has_workers = False
    with pytest.raises(WriteError, match="it refused a filter"):
        await process.write(site.take())
    known = envoy.filters[OWN_RECENT]
    assert known.taken == known.completed
    assert known.waiting


async def test_filter_that_is_dropped_during_its_proof_is_not_proven(
    site: NativeSite, envoy: FakeEnvoy
) -> None:
    process = envoy.connect()
    envoy.has_workers = False
    writing = asyncio.create_task(process.write(site.take()))
    while envoy.reads < 2:
        await asyncio.sleep(0)
    envoy.ask([name for name in NAMES if name != SETTLED])
    envoy.let_workers_go_on()
    with pytest.raises(WriteError, match="all workers"):
        await writing


async def test_late_answer_for_a_filter_that_is_asked_for_anew_counts_once(
    site: NativeSite, envoy: FakeEnvoy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its counters are read anew, and have the content already."""
    process = envoy.connect()
    await process.write(site.take())
    envoy.answers = False
    site.reach(2, "new")
    monkeypatch.setattr(process_module, "TAKE_TIME", 0.05)
    with pytest.raises(WriteError, match="has not answered"):
        await process.write(site.take())
    monkeypatch.undo()
    envoy.ask([name for name in NAMES if name != OWN_RECENT])
    envoy.ask(NAMES)
    late = envoy.take(envoy.unanswered.pop())
    writing = asyncio.create_task(process.write(site.take()))
    for _ in range(20):
        await asyncio.sleep(0)
    envoy.answers = True
    process.heard(late)
    for message in envoy.unanswered:
        envoy.answer(message)
    await writing


async def test_filter_that_is_asked_for_anew_while_counters_are_read_is_read_again(
    site: NativeSite, envoy: FakeEnvoy
) -> None:
    """What was read may be of the subscription before."""
    process = envoy.connect()
    await process.write(site.take())
    others = [name for name in NAMES if name != OWN_RECENT]
    envoy.ask(others)
    envoy.ask(NAMES)
    before = envoy.reads
    writing = asyncio.create_task(process.write(site.take()))
    while envoy.reads == before:
        await asyncio.sleep(0)
    envoy.ask(others)
    envoy.filters[OWN_RECENT] = Filter()
    envoy.ask(NAMES)
    await writing
    assert envoy.filters[OWN_RECENT].version.endswith("-1")


async def test_counters_of_a_hot_restart_prove_nothing(
    site: NativeSite, envoy: FakeEnvoy
) -> None:
    """Envoy adds what the old process counted since its last flush: only a part, and
    it may be the end of a write whose beginning was flushed.
    """
    process = envoy.connect()
    envoy.is_hot_restarted, envoy.has_workers = True, False
    writing = asyncio.create_task(process.write(site.take()))
    while not envoy.filters[OWN_RECENT].waiting:
        await asyncio.sleep(0)
    for known in envoy.filters.values():
        known.completed += 1
    with pytest.raises(WriteError, match="skip-hot-restart-parent-stats"):
        await writing


async def test_new_process_with_counters_of_another_is_never_proven(
    site: NativeSite, envoy: FakeEnvoy
) -> None:
    process = envoy.connect()
    for known in envoy.filters.values():
        known.taken = known.completed = 3
    for _ in range(2):
        with pytest.raises(WriteError, match="skip-hot-restart-parent-stats"):
            await process.write(site.take())


async def test_nothing_is_sent_before_the_counters_were_read(
    site: NativeSite, envoy: FakeEnvoy
) -> None:
    """Later it would not be known what was on its way."""
    process = envoy.connect()
    envoy.is_readable = False
    with pytest.raises(WriteError, match="cannot be read"):
        await process.write(site.take())
    assert envoy.sent == []
    envoy.is_readable = True
    await process.write(site.take())
    # From then on, only the proof needs them.
    envoy.is_readable = False
    site.trust.enforce([FeedEntry(2, EntryKind.SID, "s", 0, 2_000_000_000)])
    with pytest.raises(WriteError, match="cannot be read"):
        await process.write(site.take())
    assert envoy.has_key("s")


async def test_content_that_is_taken_late_is_counted(
    site: NativeSite, envoy: FakeEnvoy, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = envoy.connect()
    await process.write(site.take())
    monkeypatch.setattr(process_module, "TAKE_TIME", 0.05)
    envoy.answers = False
    site.reach(2, "new")
    for _ in range(2):
        # Not sent again before it is known whether the first one counts.
        with pytest.raises(WriteError, match="has not answered"):
            await process.write(site.take())
    assert len(envoy.unanswered) == 1
    envoy.answers = True
    envoy.answer(envoy.unanswered.pop())
    await process.write(site.take())


@pytest.mark.parametrize(
    "text", ["", "x", "1", "a-1", "a-1-x", "a-1-4", "a-1-\u0665", "z-1-5"]
)
async def test_version_that_is_not_ours_begins_no_count(
    site: NativeSite, envoy: FakeEnvoy, text: str
) -> None:
    process = envoy.connect()
    for known in envoy.filters.values():
        known.version, known.taken, known.completed = text, 5, 5
    with pytest.raises(WriteError, match=RESET):
        await process.write(site.take())
