"""What operators see: every metric documented, every refusal counted by reason (R39)."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.clock import FakeClock
from tests.support.gatehouse_verifier import SimulatedVerifier
from tests.support.issuer_simulator import IssuerSimulator
from verifier.denials import DenyReason
from verifier.metrics import VerifierMetrics

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "metrics.md"


@pytest.fixture
def verifier() -> SimulatedVerifier:
    clock = FakeClock()
    return SimulatedVerifier(clock, IssuerSimulator(clock))


@pytest.fixture
def metrics(verifier: SimulatedVerifier) -> VerifierMetrics:
    return VerifierMetrics(verifier.gate, verifier.trust, verifier.feed, verifier.keys)


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
    text = DOCUMENT.read_text()
    assert [
        n for n in names if f"`{n}`" not in text and f"`{n}_total`" not in text
    ] == []
    assert [r for r in DenyReason if f"`{r.value}`" not in text] == []


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
