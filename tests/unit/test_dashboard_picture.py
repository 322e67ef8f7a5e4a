"""The dashboard's panels as a picture: names, units, and what an empty panel says."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, cast

import pytest

from loadtests.dashboard.__main__ import without_data
from loadtests.dashboard.panels import DASHBOARD, VARIABLES, name_of, read_panels
from loadtests.dashboard.picture import draw, write
from loadtests.support.prometheus import Prometheus

START = 1_700_000_000.0


class AnsweringPrometheus:
    """Answers each query with one series, but those with a word with none."""

    def __init__(self, silent: str) -> None:
        self.queries: list[str] = []
        self._silent = silent

    def ask(self, path: str, **parameters: str) -> Any:
        assert path == "query_range"
        query = parameters["query"]
        self.queries.append(query)
        if self._silent in query:
            return {"result": []}
        values = [[START + second, str(second)] for second in range(5)]
        values[2][1] = "NaN"
        return {"result": [{"metric": {"instance": "a:1"}, "values": values}]}


def test_every_panel_is_asked_for_and_one_without_data_is_found(tmp_path: Path) -> None:
    prometheus = AnsweringPrometheus(silent="shadow")
    panels = read_panels(cast("Prometheus", prometheus), START, START + 60)
    shipped = json.loads(DASHBOARD.read_text())["panels"]
    assert len(panels) == len(shipped)
    targets = sum(len(panel.get("targets", [])) for panel in shipped)
    assert len(prometheus.queries) == targets
    assert not any(name in str(prometheus.queries) for name in VARIABLES)
    (empty,) = without_data(panels)
    assert empty.title == "Shadow refusals"
    assert "Empty while" in empty.description
    picture = tmp_path / "dashboard.png"
    draw(panels, picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size < 400_000


def test_panels_are_in_the_grid_and_none_covers_another() -> None:
    places = [panel["gridPos"] for panel in json.loads(DASHBOARD.read_text())["panels"]]
    cells = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) == 23


def test_a_series_is_named_by_its_labels() -> None:
    labels = {"job": "gatehouse-issuer", "instance": "a:1"}
    assert name_of("{{job}} {{instance}}", labels) == "gatehouse-issuer a:1"
    assert name_of("{{policy}}", labels) == ""
    assert name_of("50 %", labels) == "50 %"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.5, "percentunit", "50 %"),
        (0.00012, "s", "120 µs"),
        (0.012, "s", "12 ms"),
        (12.0, "s", "12 s"),
        (0.0, "s", "0 s"),
        (3 * 1024**2, "bytes", "3 MiB"),
        (0.0, "bytes", "0 B"),
        (1234.0, "short", "1,234"),
        (2.5, "reqps", "2.5/s"),
    ],
)
def test_a_value_is_written_with_its_unit(value: float, unit: str, text: str) -> None:
    assert write(value, unit) == text


def test_a_threshold_without_a_value_is_the_lowest() -> None:
    prometheus = AnsweringPrometheus(silent="nothing at all")
    panels = read_panels(cast("Prometheus", prometheus), START, START + 60)
    age = next(panel for panel in panels if panel.title == "Age of revocations, worst")
    assert age.thresholds == [(-math.inf, "green"), (12, "red")]
