"""The metrics for operators: each documented, every refusal counted by reason
(R39).
"""

from __future__ import annotations

import logging
import os
import re
import uuid
from collections import Counter
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from shared.feed import EntryKind
from shared.log_writer import LineWriter
from tests.support.clock import FakeClock
from tests.support.gatehouse_verifier import SimulatedVerifier, started
from tests.support.issuer_simulator import IssuerSimulator
from tests.support.other_issuer import OtherIssuer, known
from verifier.check.counts import MAX_POLICIES
from verifier.check.denials import REFUSALS, DenyReason
from verifier.operators.metrics import VerifierMetrics
from verifier.policies.meanings import MEANINGS
from verifier.sync.staleness import Failure
from verifier.wire.check_times import ONE_IN
from verifier.wire.public_port import PublicPort

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "metrics.md").read_text()


@pytest.fixture
def verifier() -> SimulatedVerifier:
    clock = FakeClock()
    return SimulatedVerifier(clock, IssuerSimulator(clock))


@pytest.fixture
def metrics(verifier: SimulatedVerifier) -> VerifierMetrics:
    return VerifierMetrics(verifier.parts, verifier.clock.monotonic)


def checks(metrics: VerifierMetrics) -> Counter[tuple[str, str]]:
    """Return the number of checks by decision and reason, of all policies."""
    counted: Counter[tuple[str, str]] = Counter()
    for (decision, reason, _), count in checks_by_policy(metrics).items():
        counted[decision, reason] += int(count)
    return counted


def checks_by_policy(metrics: VerifierMetrics) -> dict[tuple[str, str, str], float]:
    return {
        (labels["decision"], labels["reason"], labels["policy"]): value
        for family in text_string_to_metric_families(metrics.render().decode())
        for name, labels, value, *_ in family.samples
        if name == "gatehouse_verifier_checks_total"
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


async def test_r39_checks_are_counted_by_policy_and_the_policies_are_bounded() -> None:
    names = [f"p{n}" for n in range(MAX_POLICIES + 2)]
    verifier = await started(policies="".join(f"[policies.{n}]\n" for n in names))
    metrics = VerifierMetrics(verifier.parts, verifier.clock.monotonic)
    token = verifier.issuer.mint()
    for name in names:
        verifier.check(token, target=f"/verify/nginx/p/{name}".encode())
        verifier.check(None, target=f"/verify/nginx/p/{name}".encode())
    verifier.check(token, target=b"/verify/nginx/p/nowhere")
    counted = checks_by_policy(metrics)
    assert len({policy for _, _, policy in counted}) == MAX_POLICIES + 2
    assert counted["allow", "", "p0"] == 1
    assert counted["deny", "credential_missing", "p0"] == 1
    assert counted["allow", "", "(other)"] == 2
    assert counted["deny", "policy_unknown", ""] == 1


async def test_r39_the_times_of_checks_are_a_histogram() -> None:
    verifier = await started()
    port = PublicPort(verifier.gate, lambda _: True, 10, 0.0)
    metrics = VerifierMetrics(verifier.parts, verifier.clock.monotonic, port)
    # Three sends, after 2 ms, after exactly 5 ms and after a minute.
    for seconds in (0.002, 0.005, 60.0):
        for _ in range(ONE_IN):
            port.times.begin(port, verifier.clock.monotonic())
        verifier.clock.advance(seconds)
        port.times.end()
    (family,) = [
        family
        for family in text_string_to_metric_families(metrics.render().decode())
        if family.name == "gatehouse_verifier_check_seconds"
    ]
    assert family.type == "histogram"
    values = {(s.name[33:], s.labels.get("le")): s.value for s in family.samples}
    assert values["bucket", "0.001"] == 0
    assert values["bucket", "0.005"] == 2
    assert values["bucket", "1.0"] == 2
    assert values["bucket", "+Inf"] == values["count", None] == 3
    assert values["sum", None] == pytest.approx(60.007)


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


async def test_issuer_that_is_followed_anew_is_counted_from_zero(
    verifier: SimulatedVerifier, metrics: VerifierMetrics
) -> None:
    other = OtherIssuer("a")
    others = verifier.parts.others
    others.follow(known(other.entry()))
    failure = Failure(0.0, "failed", "down")
    for _ in range(3):
        others.refreshers["a"].status.failed(failure)
    metrics.render()
    # A reload with another address begins with a status of its own.
    others.follow(known(other.entry(f'jwks_url = "{other.url}/keys"')))
    others.refreshers["a"].status.failed(failure)
    metrics.render()
    others.follow(())
    metrics.render()
    others.follow(known(other.entry()))
    others.refreshers["a"].status.failed(failure)
    shown = metrics.render().decode()
    name = "gatehouse_verifier_sync_failures_total"
    assert f'{name}{{issuer="a",source="jwks"}} 5.0' in shown
