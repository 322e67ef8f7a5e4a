"""The dashboard as Prometheus answers it: each panel with its series."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.support.prometheus import Prometheus

DASHBOARD = (
    Path(__file__).resolve().parents[2] / "deploy" / "grafana" / "gatehouse.json"
)
#: What Grafana puts in for its variables: a window of some scrapes, and all instances.
VARIABLES = {"$__rate_interval": "15s", "$instance": ".*"}


@dataclass(frozen=True)
class Line:
    """One series of a panel.

    Attributes:
        name: in the legend.
        times: Unix seconds.
        values: the same number of values; NaN where there is none.
    """

    name: str
    times: Sequence[float]
    values: Sequence[float]


@dataclass(frozen=True)
class Panel:
    """A panel and what its queries answered.

    Attributes:
        kind: `row`, `stat` or `timeseries`.
        description: what it says about itself, such as when it is empty.
        place: x, y, width and height in the dashboard's grid of 24 columns.
        unit: Grafana's name of the unit.
        thresholds: pairs of the value from which a colour is shown, and the colour.
    """

    kind: str
    title: str
    description: str
    place: tuple[int, int, int, int]
    unit: str
    thresholds: Sequence[tuple[float, str]]
    lines: Sequence[Line]


def read_panels(prometheus: Prometheus, start: float, end: float) -> list[Panel]:
    """Return all panels with the data from start to end, Unix seconds."""
    step = max(1, round((end - start) / 240))
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [_read(panel, prometheus, (start, end, step)) for panel in panels]


def _read(
    panel: Mapping[str, Any], prometheus: Prometheus, span: tuple[float, float, int]
) -> Panel:
    grid = panel["gridPos"]
    defaults = panel.get("fieldConfig", {}).get("defaults", {})
    steps = defaults.get("thresholds", {}).get("steps", [])
    lines = [
        line
        for target in panel.get("targets", [])
        for line in _ask(target, prometheus, span)
    ]
    return Panel(
        panel["type"],
        panel["title"],
        panel.get("description", ""),
        (grid["x"], grid["y"], grid["w"], grid["h"]),
        defaults.get("unit", "short"),
        [(step["value"] or -math.inf, step["color"]) for step in steps],
        lines,
    )


def _ask(
    target: Mapping[str, str], prometheus: Prometheus, span: tuple[float, float, int]
) -> list[Line]:
    query = target["expr"]
    for variable, value in VARIABLES.items():
        query = query.replace(variable, value)
    start, end, step = map(str, span)
    found = prometheus.ask("query_range", query=query, start=start, end=end, step=step)
    return [
        Line(
            name_of(target.get("legendFormat", ""), series["metric"]),
            [float(at) for at, _ in series["values"]],
            [float(value) for _, value in series["values"]],
        )
        for series in found["result"]
    ]


def name_of(form: str, labels: Mapping[str, str]) -> str:
    """Return a series' name as Grafana makes it of `legendFormat`."""
    return re.sub(r"{{(\w+)}}", lambda hit: labels.get(hit[1], ""), form).strip()
