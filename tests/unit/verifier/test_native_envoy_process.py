"""What one Envoy is sent, in which order, and what counts as proof that it has it."""

from __future__ import annotations

import asyncio
import time

import pytest
from envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest

from shared.feed import EntryKind, FeedEntry
from tests.support.fake_envoy import NAMES, OWN_JWT, OWN_RECENT, FakeEnvoy
from tests.support.native_site import EPOCH, NativeSite
from tests.support.tokens import AUDIENCE, ISSUER, signing_key
from verifier.check.policy import Policy, TokenPolicy
from verifier.check.trust import key_set
from verifier.native.envoy import process as process_module
from verifier.native.envoy.names import JWT, RECENT, SETTLED
from verifier.native.in_force import MAX_PROCESSES
from verifier.native.terms import native_terms
from verifier.native.writer import WriteError, Writer

#: The filters in the order in which they have to come into force.
ALL = [OWN_JWT, SETTLED, "window"]


@pytest.fixture
def site() -> NativeSite:
    return NativeSite()


@pytest.fixture
def envoy() -> FakeEnvoy:
    return FakeEnvoy()


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a proof up after milliseconds."""
    monkeypatch.setattr(process_module, "PROOF_TIME", 0.05)


async def test_window_comes_into_force_after_all_others(
    site: NativeSite, envoy: FakeEnvoy
) -> None:
    process = envoy.connect()
    await process.write(site.take())
    assert envoy.sent == ALL
    assert all(known.taken == known.completed == 1 for known in envoy.filters.values())


async def test_only_what_changes_is_sent_again(
    site: NativeSite, envoy: FakeEnvoy
) -> None:
    process = envoy.connect()
    await process.write(site.take())
    site.reach(2, "new")
    await process.write(site.take())
    assert envoy.sent == [*ALL, "window"]
    assert envoy.has_key("new")
    site.trust.trust_keys(ISSUER, key_set([signing_key("second").jwk]), 2_000.0)
    await process.write(site.take())
    assert envoy.sent == [*ALL, "window", OWN_JWT, "window"]


@pytest.mark.parametrize("has_other_keys", [False, True])
async def test_closed_window_comes_into_force_before_all_others(
    site: NativeSite, envoy: FakeEnvoy, has_other_keys: bool
) -> None:
    """Our copy is older than what Envoy has from a process before us, whose window is
    open: with our entries or keys in it, what is revoked would pass again.
    """
    site.reach(2, "gone")
    await envoy.connect().write(site.take())
    assert envoy.has_key("gone", SETTLED)
    later, keys = NativeSite(), [signing_key().jwk]
    if has_other_keys:
        keys.append(signing_key("second").jwk)
    later.trust.trust_keys(ISSUER, key_set(keys), 2_000.0)
    later.now = 1_010.0
    envoy.sent.clear()
    envoy.answers = False
    process = envoy.connect()
    writing = asyncio.create_task(process.write(later.take()))
    while not envoy.unanswered:
        await asyncio.sleep(0)
    # Here it may be killed, or Envoy may stand still.
    assert envoy.sent == [OWN_RECENT]
    assert envoy.has_key("gone", SETTLED)
    envoy.answers = True
    envoy.answer(envoy.unanswered.pop())
    await writing
    assert envoy.sent == [OWN_RECENT, *ALL[:-1]]
    later.trust.renew(1_020.0)
    later.reach(2, "gone")
    await process.write(later.take())
    assert envoy.sent == [OWN_RECENT, *ALL[:-1], "window"]


@pytest.mark.parametrize("refused", [*NAMES])
async def test_after_a_refusal_all_goes_out_again(
    site: NativeSite, envoy: FakeEnvoy, refused: str
) -> None:
    process = envoy.connect()
    envoy.refuses = {refused}
    with pytest.raises(WriteError, match="refused it: it is not what I take"):
        await process.write(site.take())
    assert ("window" in envoy.sent) is (refused == OWN_RECENT)
    envoy.refuses.clear()
    envoy.sent.clear()
    with pytest.raises(WriteError, match="it refused a filter"):
        await process.write(site.take())
    assert envoy.sent == ALL


async def test_refusal_of_new_keys_is_repaired(
    site: NativeSite, envoy: FakeEnvoy
) -> None:
    """Envoy keeps the keys that it had: the next write must not take them for new."""
    process = envoy.connect()
    await process.write(site.take())
    site.trust.trust_keys(ISSUER, key_set([signing_key("second").jwk]), 2_000.0)
    envoy.refuses = {f"{JWT}default"}
    with pytest.raises(WriteError, match=r"gatehouse\.jwt\.default"):
        await process.write(site.take())
    envoy.refuses.clear()
    envoy.sent.clear()
    with pytest.raises(WriteError, match="it refused a filter"):
        await process.write(site.take())
    assert envoy.sent == ALL


async def test_without_an_answer_nothing_is_written(
    site: NativeSite, envoy: FakeEnvoy, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = envoy.connect()
    monkeypatch.setattr(process_module, "TAKE_TIME", 1.0)
    envoy.answers = False
    with pytest.raises(WriteError, match="has not answered"):
        await process.write(site.take())
    assert envoy.sent == ALL[:1]
    monkeypatch.undo()
    # The late answer is to a content that counts no more.
    envoy.answers = True
    envoy.answer(envoy.unanswered.pop())
    await process.write(site.take())
    assert envoy.sent == [ALL[0], *ALL]


async def test_answer_to_an_earlier_content_does_not_count(
    site: NativeSite, envoy: FakeEnvoy
) -> None:
    process = envoy.connect()
    envoy.answers = False
    writing = asyncio.create_task(process.write(site.take()))
    while not envoy.unanswered:
        await asyncio.sleep(0.001)
    late = DiscoveryRequest(resource_names=NAMES, response_nonce="earlier")
    process.heard(late)
    await asyncio.sleep(0.05)
    assert envoy.sent == ALL[:1]
    envoy.answers = True
    envoy.answer(envoy.unanswered.pop())
    await writing
    assert envoy.sent == ALL


async def test_acknowledgement_alone_proves_nothing(
    site: NativeSite, envoy: FakeEnvoy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The main thread has taken all, and a worker has not."""
    monkeypatch.setattr(process_module, "PROOF_TIME", 0.05)
    process = envoy.connect()
    envoy.has_workers = False
    with pytest.raises(WriteError, match="all workers"):
        await process.write(site.take())
    assert {known.taken for known in envoy.filters.values()} == {1}
    monkeypatch.undo()
    envoy.let_workers_go_on()
    await process.write(site.take())


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("lagging", NAMES)
async def test_each_filter_is_proven(
    site: NativeSite, envoy: FakeEnvoy, lagging: str
) -> None:
    process = envoy.connect()
    await process.write(site.take())
    envoy.filters[lagging].completed -= 1
    site.reach(2, "new")
    # Of the small filter the next content brings the counters together again.
    envoy.has_workers = lagging != OWN_RECENT
    with pytest.raises(WriteError, match="all workers"):
        await process.write(site.take())


async def test_proof_comes_when_the_last_worker_has_it(
    site: NativeSite, envoy: FakeEnvoy
) -> None:
    process = envoy.connect()
    envoy.has_workers = False
    writing = asyncio.create_task(process.write(site.take()))
    while envoy.reads < 3:
        await asyncio.sleep(0.001)
    assert not writing.done()
    envoy.let_workers_go_on()
    await writing


@pytest.mark.usefixtures("hurried")
async def test_admin_interface_of_another_envoy_proves_nothing(
    site: NativeSite, envoy: FakeEnvoy
) -> None:
    """Its counters are even, and its versions are of another stream."""
    other = FakeEnvoy()
    other_process = other.connect()
    await other_process.write(site.take())
    process = envoy.connect()
    process._admin = other
    with pytest.raises(WriteError, match="that of this Envoy"):
        await process.write(site.take())


async def test_admin_interface_that_cannot_be_read_proves_nothing(
    site: NativeSite, envoy: FakeEnvoy
) -> None:
    process = envoy.connect()
    envoy.is_readable = False
    with pytest.raises(WriteError, match="cannot be read"):
        await process.write(site.take())
    envoy.is_readable = True
    await process.write(site.take())


async def test_new_stream_sends_all(site: NativeSite, envoy: FakeEnvoy) -> None:
    """What Envoy has from another stream is not known in this one."""
    await envoy.connect().write(site.take())
    envoy.sent.clear()
    await envoy.connect().write(site.take())
    assert envoy.sent == ALL


async def test_policy_that_is_asked_for_later_is_sent(
    site: NativeSite, envoy: FakeEnvoy
) -> None:
    token = TokenPolicy.own(ISSUER, AUDIENCE)
    site.terms["later"] = native_terms(Policy("later", token))
    process = envoy.connect()
    await process.write(site.take())
    envoy.sent.clear()
    later = [f"{JWT}later", f"{RECENT}later"]
    envoy.ask([*NAMES, *later])
    await process.write(site.take())
    assert envoy.sent == [later[0], "window", "window"]
    assert envoy.filters[later[1]].completed == 1


@pytest.mark.parametrize("dropped", NAMES)
async def test_filter_that_was_dropped_and_asked_for_again_is_sent(
    site: NativeSite, envoy: FakeEnvoy, dropped: str
) -> None:
    process = envoy.connect()
    await process.write(site.take())
    envoy.sent.clear()
    envoy.ask([name for name in NAMES if name != dropped])
    envoy.ask(NAMES)
    await process.write(site.take())
    assert envoy.sent == [*({dropped} - {OWN_RECENT}), "window"]


async def test_filter_that_is_dropped_during_a_write_is_not_proven(
    site: NativeSite, envoy: FakeEnvoy
) -> None:
    process = envoy.connect()
    await process.write(site.take())
    envoy.answers = False
    site.reach(2, "new")
    writing = asyncio.create_task(process.write(site.take()))
    while not envoy.unanswered:
        await asyncio.sleep(0.001)
    envoy.ask([name for name in NAMES if name != SETTLED])
    envoy.answer(envoy.unanswered.pop())
    with pytest.raises(WriteError, match="other filters"):
        await writing


@pytest.mark.parametrize("lacking", NAMES)
async def test_envoy_without_one_of_the_filters_is_sent_nothing(
    site: NativeSite, envoy: FakeEnvoy, lacking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "TAKE_TIME", 0.02)
    process = envoy.connect([name for name in NAMES if name != lacking])
    with pytest.raises(WriteError, match="does not ask for"):
        await process.write(site.take())
    assert envoy.sent == []


async def test_filters_of_several_listeners_are_waited_for(
    site: NativeSite, envoy: FakeEnvoy
) -> None:
    process = envoy.connect([OWN_RECENT])
    writing = asyncio.create_task(process.write(site.take()))
    await asyncio.sleep(0)
    assert envoy.sent == []
    envoy.ask(NAMES)
    await writing
    assert envoy.sent == ALL


async def test_unknown_policy_is_named(site: NativeSite, envoy: FakeEnvoy) -> None:
    names = [name.replace("default", "unknown") for name in NAMES]
    process = envoy.connect(names)
    with pytest.raises(WriteError, match=r"VERIFIER_NATIVE_POLICIES .*unknown"):
        await process.write(site.take())
    assert envoy.sent == []


async def test_without_a_key_the_window_is_closed(
    site: NativeSite, envoy: FakeEnvoy
) -> None:
    """Envoy refuses an empty key set, so the keys that it has stay there."""
    process = envoy.connect()
    await process.write(site.take())
    open_window = envoy.filters[OWN_RECENT].content
    site.trust.enforce(
        [FeedEntry(2, EntryKind.KID, signing_key().kid, 0, 2_000_000_000)]
    )
    await process.write(site.take())
    assert envoy.sent[len(ALL) :] == [OWN_RECENT]
    assert len(envoy.filters[OWN_RECENT].content) < len(open_window)


def test_too_many_names_are_refused(envoy: FakeEnvoy) -> None:
    with pytest.raises(ValueError, match="more than 200"):
        envoy.connect([f"n{n}" for n in range(201)])


# --- with the writer and the ledger ---------------------------------------------------


async def written(site: NativeSite, position: int) -> None:
    end = time.monotonic() + 20
    while site.in_force.position(EPOCH) < position:
        assert time.monotonic() < end
        await asyncio.sleep(0.001)


async def no_rest(_seconds: float) -> None:
    await asyncio.sleep(0)


async def test_writer_acknowledges_what_all_workers_have(
    site: NativeSite, envoy: FakeEnvoy
) -> None:
    writer = Writer(envoy.connect(), site.source, site.in_force, no_rest)
    running = asyncio.create_task(writer.run())
    await asyncio.sleep(0)
    await written(site, 1)
    envoy.has_workers = False
    site.reach(2, "new")
    while not envoy.has_key("new"):
        await asyncio.sleep(0.001)
    assert site.in_force.position(EPOCH) == 1
    envoy.let_workers_go_on()
    await written(site, 2)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    # It cannot be reached, and may pass requests until its window is over.
    site.reach(3, "later")
    assert site.in_force.position(EPOCH) == 2
    site.now += 10
    assert site.in_force.position(EPOCH) == 3


async def test_writer_goes_on_after_a_refusal(
    site: NativeSite, envoy: FakeEnvoy
) -> None:
    envoy.refuses = {SETTLED}
    writer = Writer(envoy.connect(), site.source, site.in_force, no_rest)
    running = asyncio.create_task(writer.run())
    while not writer.last_error:
        await asyncio.sleep(0.001)
    assert site.in_force.position(EPOCH) == 0
    assert "gatehouse.settled: Envoy refused it" in writer.last_error
    envoy.refuses.clear()
    site.reach(2, "new")
    while not (envoy.has_key("new") or envoy.has_key("new", SETTLED)):
        await asyncio.sleep(0.001)
    # It is in force, and that is not proven.
    assert site.in_force.position(EPOCH) == 0
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("names", [[], [OWN_RECENT], NAMES[1:]])
async def test_streams_that_were_sent_nothing_are_forgotten_at_their_end(
    site: NativeSite, names: list[str]
) -> None:
    """They may come from any process of the gateway's group. They must not fill the
    ledger, or an Envoy that is restarted is refused until their windows are over.
    """
    for _ in range(MAX_PROCESSES + 6):
        process = FakeEnvoy().connect(names)
        writer = Writer(process, site.source, site.in_force, ready=process.ready)
        running = asyncio.create_task(writer.run())
        for _ in range(4):
            await asyncio.sleep(0)
        assert not running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert site.in_force.awaited_processes == 0
    assert site.in_force.position(EPOCH) == 1


async def test_stream_without_all_filters_is_reported(
    site: NativeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_module, "TAKE_TIME", 0.02)
    process = FakeEnvoy().connect([OWN_RECENT])
    writer = Writer(process, site.source, site.in_force, no_rest, ready=process.ready)
    running = asyncio.create_task(writer.run())
    while not writer.last_error:
        await asyncio.sleep(0.001)
    assert (
        "Envoy does not ask for gatehouse.jwt.default, gatehouse.settled"
        in writer.last_error
    )
    assert site.in_force.failing_processes == 1
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
