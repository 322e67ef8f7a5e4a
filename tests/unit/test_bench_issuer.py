"""The issuer's bench computes and prints; nothing is started here."""

from __future__ import annotations

import pytest

from loadtests.bench_issuer.__main__ import goal_rows, number_rows, parser, to_json
from loadtests.bench_issuer.measures import GOALS, Round, _rate, percentile


def make_round(**changes: float) -> Round:
    values: dict[str, float] = {
        "hashes_per_second": 4.0,
        "logins_per_second": 3.8,
        "refresh_cpu_us": 1_600.0,
        "signature_us": 400.0,
        "calm_p99": 0.01,
        "flood_p99": 0.012,
        "excess_p99": 0.015,
    }
    return Round(**(values | changes))


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [float(n) for n in range(1, 201)]
    assert percentile(values, 99) == 198.0
    assert percentile([3.0], 99) == 3.0
    assert percentile([2.0, 1.0], 50) == 1.0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_rate_is_taken_between_ends(workers: int) -> None:
    stamps = [round_ * 0.25 for round_ in range(1, 9) for _ in range(workers)]
    assert _rate(stamps, workers) == pytest.approx(4.0 * workers)


def test_ratios_are_taken_within_a_round_before_their_median() -> None:
    rounds = [
        make_round(logins_per_second=logins, hashes_per_second=hashes)
        for logins, hashes in ((1.0, 1.0), (9.0, 10.0), (2.0, 4.0))
    ]
    assert to_json(rounds)["goals"][0]["value"] == 0.9


@pytest.mark.parametrize(
    ("change", "goal", "verdict"),
    [
        ({"logins_per_second": 3.96}, 0, "aim"),
        ({"logins_per_second": 3.72}, 0, "must"),
        ({"logins_per_second": 3.70}, 0, "MISSED"),
        ({"refresh_cpu_us": 1_200.0}, 1, "aim"),
        ({"refresh_cpu_us": 2_001.0}, 1, "MISSED"),
        ({"flood_p99": 0.029}, 2, "must"),
        ({"excess_p99": 0.101}, 3, "MISSED"),
    ],
)
def test_each_goal_is_held_against_its_bounds(
    change: dict[str, float], goal: int, verdict: str
) -> None:
    rows = goal_rows([make_round(**change)])
    assert len(rows) == len(GOALS) + 1
    assert rows[goal + 1][-1] == verdict


def test_every_number_is_shown() -> None:
    rows = number_rows([make_round(), make_round(excess=7)])
    assert ["excess", "3.5", "0..7"] in rows


@pytest.mark.parametrize("argument", ["--seconds=31", "--rounds=0", "--cost=9"])
def test_a_run_has_bounds(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args([argument])
    assert argument.partition("=")[0] in capsys.readouterr().err
