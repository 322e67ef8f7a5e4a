"""The rules for Prometheus: each alert fires, clears and is explained."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from issuer.login.login_routes import LOGIN_PATH
from issuer.metrics import IssuerMetrics
from issuer.settings.issuer_settings import IssuerSettings
from tests.support.monitoring import (
    PROMETHEUS,
    TEST_FILES,
    read_alerts,
    read_recorded,
    render,
    require_program,
)
from verifier.check.denials import REFUSALS, DenyReason
from verifier.settings import VerifierSettings

ALERTS = read_alerts()


def promtool(*arguments: str | Path, text: str | None = None) -> None:
    """Run it; fail with what it says."""
    command = [require_program("promtool", "prometheus"), *map(str, arguments)]
    run = subprocess.run(
        command, input=text, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_example_and_all_rules_can_be_read() -> None:
    promtool("check", "config", PROMETHEUS / "prometheus.yml")


@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: path.stem)
def test_each_alert_is_quiet_and_fires_and_clears(path: Path) -> None:
    promtool("test", "rules", path)


async def test_the_metrics_have_the_form_that_prometheus_wants() -> None:
    for text in (await render()).values():
        promtool("check", "metrics", text=text)


def stories() -> list[tuple[str, list[dict[str, Any]]]]:
    """Return alert and evaluations of each test that promtool runs."""
    return [
        (test["name"].partition(":")[0], test["promql_expr_test"])
        for path in TEST_FILES
        for test in yaml.safe_load(path.read_text())["tests"]
    ]


def test_promtool_sees_every_alert_quiet_then_firing_then_clear() -> None:
    seen = set()
    for name, evaluations in stories():
        assert {evaluation["expr"] for evaluation in evaluations} == {
            f'ALERTS{{alertname="{name}", alertstate="firing"}}'
        }
        fires = [bool(evaluation["exp_samples"]) for evaluation in evaluations]
        assert fires == [False, True, False], name
        seen.add(name)
    assert seen == ALERTS.keys()


def test_an_alerts_texts_name_labels_that_it_has() -> None:
    for name, (_, fires, _) in stories():
        text = " ".join(ALERTS[name].texts.values())
        used = set(re.findall(r"\$labels\.(\w+)", text))
        (sample,) = fires["exp_samples"]
        assert used <= set(re.findall(r"(\w+)=", sample["labels"])), name


@pytest.mark.parametrize("alert", ALERTS.values(), ids=ALERTS)
def test_an_alert_says_how_urgent_it_is_and_where_its_section_is(alert: Any) -> None:
    assert alert.name.startswith("Gatehouse")
    assert alert.severity in {"page", "ticket"}
    assert alert.texts.keys() == {"summary", "description", "runbook_url"}
    assert alert.texts["runbook_url"] == (
        "{{ $externalLabels.gatehouse_docs }}/runbook.md#" + alert.name.lower()
    )


async def test_a_counter_that_an_alert_watches_is_there_before_its_first_event() -> (
    None
):
    """A series that begins at 1 has no increase, so its first event fires nothing."""
    issuer = IssuerMetrics()
    issuer.security_event_endpoint("partner")
    texts = [*(await render()).values(), issuer.render().decode()]
    shown = [
        sample
        for text in texts
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]
    watched = [
        found
        for alert in ALERTS.values()
        for found in re.findall(
            r"increase\((gatehouse_\w+?)(?:{([^}]*)})?\[", alert.expr
        )
    ]
    assert len(watched) > 10
    for name, matchers in watched:
        for label, values in re.findall(r'(\w+)=~?"([^"]+)"', matchers):
            seen = {s.labels[label] for s in shown if s.name == name}
            assert {*values.split("|")} <= seen, name
        assert any(sample.name == name for sample in shown), name


def default(settings: Any, field: str) -> Any:
    return settings.model_fields[field].default


@pytest.mark.parametrize(
    ("alert", "threshold"),
    [
        (
            "GatehouseConnectionsNearLimit",
            f"* {default(VerifierSettings, 'max_connections')}) > 0.8",
        ),
        (
            "GatehouseDatabasePoolExhausted",
            f"* {default(IssuerSettings, 'database_pool_size')})",
        ),
        (
            "GatehouseHashingQueueFull",
            f"* {default(IssuerSettings, 'hash_queue') * 3 // 4}",
        ),
        ("GatehouseCanaryOld", f"> {default(IssuerSettings, 'canary_interval') * 6}"),
        (
            "GatehouseKeyRotationStuck",
            f"> {default(IssuerSettings, 'key_publish_ahead') * 6}",
        ),
    ],
)
def test_a_threshold_is_that_of_the_default_it_repeats(
    alert: str, threshold: str
) -> None:
    assert ALERTS[alert].expr.strip().endswith(threshold)


def test_the_promise_of_the_gate_counts_every_503_but_a_strangers() -> None:
    closed = {reason.value for reason in DenyReason if REFUSALS[reason].status == 503}
    recorded = read_recorded()
    ratios = [expr for name, expr in recorded.items() if "gate_unavailable" in name]
    assert len(ratios) > 5
    for expr in ratios:
        (counted,) = re.findall(r'reason=~"([\w|]+)"', expr)
        assert {*counted.split("|")} == closed - {DenyReason.PEER_UNTRUSTED.value}


def test_the_promise_of_logins_is_about_their_route() -> None:
    slow = [e for name, e in read_recorded().items() if "login_slow" in name]
    assert slow
    assert all(set(re.findall(r'route="([^"]+)"', e)) == {LOGIN_PATH} for e in slow)
