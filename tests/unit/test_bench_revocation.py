"""The revocation bench computes and prints; no server is started here."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import pytest

from loadtests.bench_revocation.__main__ import STEPS, parser, table, to_json
from loadtests.bench_revocation.measures import (
    GOALS,
    Figure,
    Goal,
    figures_of,
    percentile,
)

PAGE = Path(__file__).parents[2] / "loadtests" / "REVOCATION.md"


def test_a_percentile_is_the_value_that_so_many_do_not_exceed() -> None:
    values = [float(number) for number in range(1, 101)]
    assert percentile(values, 99) == 99
    assert percentile(values, 50) == 50
    assert percentile([7.0], 99) == 7


@pytest.mark.parametrize(
    ("at_least", "value", "word"),
    [
        (False, 20.0, "aim"),
        (False, 100.0, "must"),
        (False, 100.1, "MISSED"),
        (True, 20.0, "must"),
        (True, 19.9, "MISSED"),
        (True, 100.0, "aim"),
    ],
)
def test_a_goal_is_reached_up_to_its_bound(
    at_least: bool, value: float, word: str
) -> None:
    must, aim = (20, 100) if at_least else (100, 20)
    assert Goal("a", must, aim, "ms", at_least).reached(value) == word


def test_the_table_holds_each_figure_to_its_bound() -> None:
    goal = GOALS[0]
    shown = table([Figure(goal.measure, goal.must + 1, "ms"), Figure("other", 5, "s")])
    assert "| MISSED |" in shown
    assert shown.splitlines()[-1] == "| other | 5 s |  |  |  |"


def test_delays_become_figures_in_milliseconds() -> None:
    found = {f.name: f.value for f in figures_of("x", [0.001, 0.002, 0.009])}
    assert found == {"x, p50": 2.0, "x, p99": 9.0, "x, max": 9.0}


def test_the_file_has_the_samples_behind_the_figures() -> None:
    options = Namespace(samples=3, entries=5)
    written = to_json(figures_of("x", [0.001]), options)
    assert written["figures"][1]["samples"] == (1.0,)


def test_every_step_can_be_named_and_every_goal_is_on_the_page() -> None:
    names = [step.name for step in STEPS]
    assert parser().parse_args(["--only", *names]).only == names
    page = PAGE.read_text()
    for goal in GOALS:
        assert f"| {goal.measure} |" in page
