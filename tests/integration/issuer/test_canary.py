"""The canary: a revocation of nothing, by which the way to the gate is timed."""

from __future__ import annotations

import uuid

from prometheus_client.parser import text_string_to_metric_families

from issuer.composition import compose
from shared.feed import EntryKind, parse_page
from tests.support.issuer_harness import IssuerHarness, make_settings, running_issuer
from tests.support.processes import eventually


def read_metric(issuer: IssuerHarness, name: str) -> float:
    rendered = issuer.issuer.base.metrics.render().decode()
    samples = [
        sample.value
        for family in text_string_to_metric_families(rendered)
        for sample in family.samples
        if sample.name == name
    ]
    return sum(samples)


async def read_entries(issuer: IssuerHarness) -> list[tuple[EntryKind, str, int]]:
    headers = {"Authorization": f"Bearer {issuer.feed_token}"}
    answer = await issuer.client.get("/revocations/snapshot", headers=headers)
    return [(e.kind, e.key, e.prune_at) for e in parse_page(answer.content).entries]


async def test_a_canary_carries_its_time_of_sending(issuer: IssuerHarness) -> None:
    await issuer.issuer.feed.canary.send()
    ((kind, key, prune_at),) = await read_entries(issuer)
    word, sent_ms, name = key.split("-", 2)
    assert (kind, word) == (EntryKind.JTI, "canary")
    assert int(sent_ms) == issuer.clock.now_ms
    assert str(uuid.UUID(name)) == name
    assert issuer.clock.now + 120 <= prune_at <= issuer.clock.now + 600
    assert read_metric(issuer, "gatehouse_issuer_canaries_total") == 1
    sent_at = read_metric(issuer, "gatehouse_issuer_canary_last_timestamp_seconds")
    assert sent_at == issuer.clock.now_ms / 1_000


async def test_a_canary_leaves_the_feed_when_its_time_is_over(
    issuer: IssuerHarness,
) -> None:
    await issuer.issuer.feed.canary.send()
    issuer.clock.advance(900)
    await issuer.issuer.feed.feed.prune()
    assert await read_entries(issuer) == []


async def test_several_issuers_each_send_their_own(
    issuer: IssuerHarness, database_url: str
) -> None:
    other = compose(make_settings(database_url), clock=issuer.clock)
    first = await issuer.issuer.feed.canary.send()
    assert await other.feed.canary.send() == first + 1
    await other.close()
    assert len({key for _, key, _ in await read_entries(issuer)}) == 2


async def test_a_running_issuer_sends_canaries_by_itself(database_url: str) -> None:
    settings = make_settings(database_url, canary_interval=1)
    async with running_issuer(settings) as issuer:

        async def has_sent_two() -> bool:
            return read_metric(issuer, "gatehouse_issuer_canaries_total") >= 2

        await eventually(has_sent_two)
        assert len(await read_entries(issuer)) >= 2


async def test_an_interval_of_nothing_sends_none(issuer: IssuerHarness) -> None:
    assert issuer.settings.canary_interval == 0
    assert await read_entries(issuer) == []
