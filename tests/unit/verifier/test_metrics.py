"""The metrics for operators: each documented, every refusal counted by reason
(R39).
"""

from __future__ import annotations

import logging
import os
import re
import uuid
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from shared.feed import EntryKind
from shared.log_writer import LineWriter
from tests.support.clock import FakeClock
from tests.support.gatehouse_verifier import SimulatedVerifier
from tests.support.issuer_simulator import IssuerSimulator
from verifier.check.denials import REFUSALS, DenyReason
from verifier.operators.metrics import VerifierMetrics
from verifier.policies.meanings import MEANINGS

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "metrics.md").read_text()


@pytest.fixture
def verifier() -> SimulatedVerifier:
    clock = FakeClock()
    return SimulatedVerifier(clock, IssuerSimulator(clock))


@pytest.fixture
def metrics(verifier: SimulatedVerifier) -> VerifierMetrics:
    return VerifierMetrics(verifier.parts, verifier.clock.monotonic)


def checks(metrics: VerifierMetrics) -> dict[tuple[str, str], float]:
    return {
        (sample.labels["decision"], sample.labels["reason"]): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
        if sample.name == "gatehouse_verifier_checks_total"
    }


def test_every_metric_and_reason_is_documented(metrics: VerifierMetrics) -> None:
    rendered = metrics.render().decode()
    names = {family.name for family in text_string_to_metric_families(rendered)}
    assert len(names) > 5
    assert [
        n for n in names if f"`{n}`" not in PAGE and f"`{n}_total`" not in PAGE
    ] == []
    assert [r for r in DenyReason if f"`{r.value}`" not in PAGE] == []


def test_every_reason_is_explained_as_the_page_says() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+)(?: `(\w+)`)? \| (.+) \|$", PAGE, re.M)
    assert {
        reason: (int(status), error, meaning) for reason, status, error, meaning in rows
    } == {
        reason.value: (
            REFUSALS[reason].status,
            REFUSALS[reason].error,
            MEANINGS[reason],
        )
        for reason in DenyReason
    }


def test_every_refusal_has_a_series_before_it_happens(metrics: VerifierMetrics) -> None:
    expected = {("deny", reason.value) for reason in DenyReason} | {("allow", "")}
    assert set(checks(metrics)) == expected


async def test_answers_are_counted_once_by_reason(
    verifier: SimulatedVerifier, metrics: VerifierMetrics
) -> None:
    verifier.check(None)
    await verifier.sync()
    token = verifier.issuer.mint()
    verifier.check(token)
    verifier.check(token)
    verifier.check(None)
    metrics.flush()
    counted = checks(metrics)
    assert counted["allow", ""] == 2
    assert counted["deny", "no_keys"] == 1
    assert counted["deny", "credential_missing"] == 1
    assert checks(metrics) == counted


def sample(metrics: VerifierMetrics, name: str) -> float:
    """Return the one value of a metric without labels."""
    return next(
        sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
        if sample.name == f"gatehouse_verifier_{name}"
    )


async def test_staleness_is_a_number_that_alarms_can_watch(
    verifier: SimulatedVerifier, metrics: VerifierMetrics
) -> None:
    assert sample(metrics, "staleness") == 2
    await verifier.sync()
    assert sample(metrics, "staleness") == 0
    verifier.clock.advance(12.5)
    assert sample(metrics, "staleness") == 1
    verifier.clock.advance(20)
    assert sample(metrics, "staleness") == 2


async def test_canaries_are_observed_once_and_never_negative(
    verifier: SimulatedVerifier, metrics: VerifierMetrics
) -> None:
    await verifier.sync()
    sent_ms = verifier.clock.now() * 1_000
    verifier.clock.advance(3)
    for ms in (sent_ms, sent_ms + 60_000):
        verifier.issuer.revoke(EntryKind.JTI, f"canary-{ms}-{uuid.uuid4()}")
    for other in (f"canary-{sent_ms}", f"canary--1-{uuid.uuid4()}", "canary-", "jti"):
        verifier.issuer.revoke(EntryKind.JTI, other)
    verifier.issuer.revoke(EntryKind.SID, f"canary-{sent_ms}-{uuid.uuid4()}")
    await verifier.feed.step()
    assert sample(metrics, "canary_delay_seconds_count") == 2
    assert sample(metrics, "canary_delay_seconds_sum") == 3
    assert verifier.canary.last_delay == 0
    assert sample(metrics, "canary_delay_seconds_count") == 2


async def test_the_canaries_of_a_snapshot_are_not_measured(
    verifier: SimulatedVerifier, metrics: VerifierMetrics
) -> None:
    key = f"canary-{(verifier.clock.now() - 200) * 1_000}-{uuid.uuid4()}"
    verifier.issuer.revoke(EntryKind.JTI, key)
    await verifier.sync()
    assert sample(metrics, "canary_delay_seconds_count") == 0


def test_lost_log_lines_are_counted_once(
    metrics: VerifierMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = LineWriter(os.open("/dev/null", os.O_WRONLY), str, max_waiting_bytes=0)
    monkeypatch.setattr(logging.getLogger(), "handlers", [writer])
    for _ in range(3):
        logging.getLogger().warning("a line")
        metrics.flush()
    assert (
        "\ngatehouse_verifier_log_lines_dropped_total 3.0\n"
        in metrics.render().decode()
    )


def test_refusals_without_a_line_are_counted(
    metrics: VerifierMetrics, verifier: SimulatedVerifier
) -> None:
    """Lines and suppressed ones together are the refusals."""
    for _ in range(3):
        verifier.check(None)
    name = "gatehouse_verifier_refusal_lines_suppressed_total"
    assert f"{name} 3.0\n".encode() in metrics.render()
