"""The shipped rules and dashboard, and the programs of Debian that read them."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from issuer.metrics import IssuerMetrics
from tests.support.gatehouse_verifier import started
from verifier.operators.metrics import VerifierMetrics
from verifier.wire.public_port import PublicPort

ROOT = Path(__file__).resolve().parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
DASHBOARD = ROOT / "deploy" / "grafana" / "gatehouse.json"
RULE_FILES = sorted((PROMETHEUS / "rules").glob("*.yml"))
TEST_FILES = sorted((PROMETHEUS / "tests").glob("*.yml"))


class Alert(NamedTuple):
    """An alert as it is shipped.

    Attributes:
        hold: how long the expression must hold, as in `for`; empty: not at all.
        severity: `page` or `ticket`.
        texts: its annotations, by name.
    """

    name: str
    expr: str
    hold: str
    severity: str
    texts: dict[str, str]


def require_program(name: str, package: str) -> str:
    """Return where a program is.

    Without it the test is skipped. In CI it fails, because a test that did not run must
    not look green.
    """
    found = shutil.which(name)
    if found is None:
        how = f"{name} is missing: apt-get install {package}"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{how}; in CI it must be there")
        pytest.skip(how)
    return found


def read_rules() -> Iterator[dict[str, Any]]:
    """Yield every rule that is shipped."""
    for path in RULE_FILES:
        for group in yaml.safe_load(path.read_text())["groups"]:
            yield from group["rules"]


def read_alerts() -> dict[str, Alert]:
    """Return the alerts by name.

    Raises:
        AssertionError: two have one name.
    """
    alerts = [
        Alert(
            rule["alert"],
            rule["expr"],
            rule.get("for", ""),
            rule["labels"]["severity"],
            rule["annotations"],
        )
        for rule in read_rules()
        if "alert" in rule
    ]
    by_name = {alert.name: alert for alert in alerts}
    assert len(by_name) == len(alerts)
    return by_name


def read_recorded() -> dict[str, str]:
    """Return the expressions of the recording rules, by the series they make."""
    return {rule["record"]: rule["expr"] for rule in read_rules() if "record" in rule}


def read_panels() -> dict[str, list[str]]:
    """Return the queries of the dashboard, by their panels' titles.

    What Grafana puts in for its variables is put in, so that each can be parsed.
    """
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return {
        panel["title"]: [
            target["expr"].replace("$__rate_interval", "1m").replace("$instance", ".*")
            for target in panel["targets"]
        ]
        for panel in panels
        if panel["type"] != "row"
    }


def queries() -> dict[str, str]:
    """Return every query that is shipped, by the place it is used at."""
    return {
        **{alert.name: alert.expr for alert in read_alerts().values()},
        **read_recorded(),
        **{
            f"{title} {number}": query
            for title, panel in read_panels().items()
            for number, query in enumerate(panel)
        },
    }


async def render() -> dict[str, str]:
    """Return the metrics of both programs before anything has happened."""
    verifier = await started()
    port = PublicPort(verifier.gate, lambda _: True, 10, 0.0)
    shown = VerifierMetrics(verifier.parts, verifier.clock.monotonic, port).render()
    return {"issuer": IssuerMetrics().render().decode(), "verifier": shown.decode()}


def documented(page: str) -> dict[str, set[str]]:
    """Return the labels of each metric that docs/metrics.md lists."""
    found: dict[str, set[str]] = {}
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        names = re.findall(r"`((?:gatehouse|process)_\w+)`", cells[0])
        if line.startswith("| `") and names:
            # Issuer and process have a column for the type, before that of the labels.
            column = 2 if re.fullmatch(r"counter|gauge|histogram", cells[1]) else 1
            labels = re.findall(r"`(\w+)`", re.sub(r"\([^)]*\)", "", cells[column]))
            for name in names:
                found[name] = set(labels)
    return found


def rendered_labels(text: str) -> dict[str, set[str]]:
    """Return the labels of each series in a program's metrics."""
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        for name, labels, *_ in family.samples:
            found.setdefault(name, set()).update(labels)
    return found
