"""The bench reads, computes and prints; no server is started here."""

from __future__ import annotations

import ast
import json
import os
import time
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from loadtests.bench import cpu, tables
from loadtests.bench.__main__ import main, parser
from loadtests.bench.load import Counted, Sample, parse_result, write_script
from loadtests.bench.measures import GOALS, MEASURES, Goal
from loadtests.bench.outcome import Outcome
from loadtests.bench.passes import PassOffice, bad_signature, garbage
from loadtests.bench.run import choose, take
from loadtests.bench.servers import BenchError
from loadtests.bench.setups import PACKAGES, SETUPS, missing_programs, programs_of
from shared.claims import LONGEST_ACCESS_TTL
from shared.feed import parse_page
from shared.jose import base64url

REPORT = Path(__file__).parents[2] / "loadtests" / "REPORT.md"
SAMPLE = Sample(cpu_us=10.0, rate=50_000.0, p50_us=400, p99_us=900, wrong=0, busy=0.97)


def samples(*cpu_us: float) -> list[Sample]:
    return [replace(SAMPLE, cpu_us=cost) for cost in cpu_us]


def reached(outcome: Outcome, title: str):
    return next(r for r in outcome.reached() if r.goal.title == title)


@pytest.fixture(scope="module")
def office() -> PassOffice:
    return PassOffice("http://127.0.0.1:12345")


def test_the_line_of_our_script_is_found_in_the_output_of_wrk() -> None:
    counted = parse_result(
        "Running 3s test\n  1 threads\nRESULT 900 3000000 4 1 250 700\n"
    )
    assert counted == Counted(900, 3_000_000, 4, 1, 250, 700)


@pytest.mark.parametrize(
    "output",
    [
        "",
        "unable to connect to 127.0.0.1:1 Connection refused",
        "RESULT 0 3000000 0 9 0 0",
    ],
    ids=["silence", "no server", "no answer"],
)
def test_a_run_without_answers_is_an_error_and_not_a_number(output: str) -> None:
    with pytest.raises(BenchError):
        parse_result(output)


def test_answers_that_had_to_be_other_ones_are_counted() -> None:
    counted = Counted(100, 1_000_000, refused=7, broken=2, p50_us=1, p99_us=2)
    assert counted.wrong(wants_refusals=False) == 9
    assert counted.wrong(wants_refusals=True) == 95


def test_ratios_are_taken_within_a_round_before_their_median() -> None:
    """The ratio of the medians would be 20 / 12."""
    outcome = Outcome({"warm": samples(20, 90, 12), "nginx": samples(10, 30, 12)})
    found = reached(outcome, "warm check / nginx return 200")
    assert (found.value, found.least, found.most) == (2.0, 1.0, 3.0)


def test_a_goal_is_not_measured_without_both_of_its_measures() -> None:
    outcome = Outcome({"warm": samples(20)})
    assert {r.verdict for r in outcome.reached()} == {"not measured"}


@pytest.mark.parametrize(
    ("cost", "verdict"), [(10.0, "aim"), (11.5, "must"), (11.6, "MISSED")]
)
def test_a_ratio_is_held_against_its_bounds(cost: float, verdict: str) -> None:
    outcome = Outcome({"warm": samples(cost), "nginx": samples(10)})
    assert reached(outcome, "warm check / nginx return 200").verdict == verdict


def test_the_bounds_are_reversed_where_more_is_better() -> None:
    goal = Goal("rate", "a", "b", "rate", must=0.8, aim=0.9, at_least=True)
    assert goal.is_within(0.85, goal.must)
    assert not goal.is_within(0.85, goal.aim)


def test_memory_is_judged_in_megabytes() -> None:
    outcome = Outcome(memory={"idle worker": 71_000_000})
    assert reached(outcome, "resident memory of an idle worker, MB").verdict == "MISSED"


def test_every_goal_compares_measured_values() -> None:
    names = {measure.name for measure in MEASURES}
    for goal in GOALS:
        assert goal.quantity == "memory" or {goal.over, goal.under} <= names


def test_every_measure_has_a_server_and_every_program_a_package() -> None:
    for measure in MEASURES:
        assert programs_of(measure.setup) <= PACKAGES.keys()
    asked = {measure.setup for measure in MEASURES}
    behind = {name for setup in asked for name in SETUPS[setup].needs}
    assert asked | behind == SETUPS.keys()


def test_a_ratio_without_a_bound_is_shown_and_not_judged() -> None:
    outcome = Outcome({"envoy-gate": samples(50), "envoy": samples(25)})
    title = "Envoy protected by ours / Envoy jwt_authn, no cache"
    found = reached(outcome, title)
    assert (found.value, found.verdict) == (2.0, "-")
    (row,) = (row for row in tables.goal_rows(outcome) if row[0] == title)
    assert row[1:] == ["2.000", "2.00..2.00", "-", "-", "-"]


def test_a_missing_peer_is_named_with_its_package(
    tmp_path: Path,
) -> None:
    found = missing_programs({"wrk", "haproxy"}, path=str(tmp_path))
    assert found == {
        "haproxy": "Debian package haproxy",
        "wrk": "Debian package wrk",
    }
    shown = tables.terminal(Outcome(missing=found))
    assert "not installed: haproxy (Debian package haproxy)" in shown


def test_a_program_that_is_there_is_not_missing(tmp_path: Path) -> None:
    program = tmp_path / "haproxy"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert missing_programs({"haproxy"}, path=str(tmp_path)) == {}


def test_tables_show_each_measure_once_and_wrong_answers_loudly() -> None:
    outcome = Outcome({"warm": [replace(SAMPLE, wrong=3)], "nginx": [SAMPLE]})
    shown = tables.terminal(outcome)
    assert shown.count("ours, warm ") == 1
    assert "50,000" in shown
    assert "3 WRONG ANSWERS" in shown


def test_servers_that_idled_are_named_since_their_cost_is_too_high() -> None:
    idle = Outcome({"nginx": [SAMPLE], "warm": [replace(SAMPLE, busy=0.5)]})
    assert "of its processor in: warm.\n" in tables.terminal(idle)
    assert "of its processor" not in tables.terminal(Outcome({"nginx": [SAMPLE]}))


def test_a_sample_is_retaken_for_idling_and_never_for_its_cost() -> None:
    samples = iter(
        [
            replace(SAMPLE, busy=0.4, cpu_us=5.0, wrong=1),
            replace(SAMPLE, busy=0.9, cpu_us=9.0),
            replace(SAMPLE, busy=0.9, cpu_us=1.0),
        ]
    )
    outcome = Outcome()
    taken = take(lambda _: next(samples), 3, outcome, retakes=10)
    assert (taken.cpu_us, taken.wrong, outcome.retaken) == (9.0, 1, 1)


def test_a_run_on_a_busy_machine_ends_all_the_same() -> None:
    outcome = Outcome()
    for _ in range(50):
        take(lambda _: replace(SAMPLE, busy=0.1), 3, outcome, retakes=7)
    assert outcome.retaken == 7


def test_a_report_keeps_its_words_and_takes_the_run() -> None:
    words = f"before\n{tables.MARKS[0]}\nlast year's run\n{tables.MARKS[1]}\nafter"
    outcome = Outcome({"warm": samples(15), "nginx": samples(10)})
    once = tables.report(words, outcome)
    assert once.startswith("before\n")
    assert once.endswith("\nafter")
    assert "last year" not in once
    assert "| ours, warm | 1.50 | 0 |" in once
    assert tables.report(once, outcome) == once


def test_a_report_without_a_place_for_a_run_is_left_alone() -> None:
    with pytest.raises(ValueError, match="no place"):
        tables.report("words", Outcome())


def test_the_committed_report_has_a_place_and_every_goal() -> None:
    text = REPORT.read_text()
    tables.report(text, Outcome())
    for goal in GOALS:
        assert f"| {goal.title} |" in text, "run: python -m loadtests.bench --report"


def test_json_holds_rounds_medians_and_verdicts() -> None:
    outcome = Outcome({"warm": samples(10, 11, 12), "nginx": samples(10, 10, 10)})
    shown = json.loads(json.dumps(outcome.to_json()))
    assert len(shown["measures"]["warm"]["rounds"]) == 3
    assert shown["measures"]["warm"]["median"]["cpu_us"] == 11
    assert shown["goals"][0]["verdict"] == "must"
    assert shown["wrong_answers"] == 0


def test_only_the_named_measures_are_taken_in_the_order_of_a_round() -> None:
    assert [m.name for m in choose(["warm", "nginx"])] == ["nginx", "warm"]
    assert choose([]) == MEASURES


def test_help_teaches_measures_and_packages() -> None:
    shown = parser().format_help()
    assert all(measure.name in shown for measure in MEASURES)
    assert "wrk nginx-light haproxy" in shown


@pytest.mark.parametrize(
    "arguments",
    [["--rounds", "0"], ["--seconds", "9999"], ["--only", "apache"]],
    ids=" ".join,
)
def test_a_run_that_would_not_end_or_is_unknown_is_refused(
    arguments: list[str],
) -> None:
    with pytest.raises(SystemExit):
        main(arguments)


def test_a_script_shows_every_credential(tmp_path: Path) -> None:
    path = write_script(
        tmp_path / "a.lua", "/verify/nginx", {"Host": "x"}, ["A b", "C"]
    )
    assert '["Host"]="x"' in path.read_text()
    assert (tmp_path / "a.credentials").read_text() == "A b\nC\n"


def test_tokens_live_no_longer_than_a_verifier_takes(office: PassOffice) -> None:
    """Those of a day were refused, and no bench ran."""
    claims = orjson.loads(base64url.decode(office.mint().split(".")[1].encode()))
    assert claims["exp"] - claims["iat"] <= LONGEST_ACCESS_TTL


def test_garbage_never_repeats_and_no_bad_signature_is_the_good_one(
    office: PassOffice,
) -> None:
    token = office.mint()
    assert len(set(garbage(token, 500))) == 500
    assert bad_signature(token) != token
    assert len(bad_signature(token)) == len(token)


def test_a_snapshot_has_the_requested_entries_and_the_known_session(
    office: PassOffice,
) -> None:
    page = parse_page(office.snapshot(50))
    assert len(page.entries) == page.head == 50
    assert office.revoked_sid in {entry.key for entry in page.entries}
    assert parse_page(office.snapshot(0)).entries == []


def test_processor_time_is_that_of_this_process() -> None:
    before, own = cpu.cpu_ns(os.getpid()), time.process_time_ns()
    while time.process_time_ns() < own + 50_000_000:
        pass
    spent = cpu.cpu_ns(os.getpid()) - before
    assert 40_000_000 < spent < 10_000_000_000


def test_this_process_is_in_its_own_tree_and_takes_memory() -> None:
    assert os.getpid() in cpu.tree(os.getpid())
    assert cpu.resident_bytes(os.getpid()) > 5_000_000


def test_benchmarks_import_no_test() -> None:
    """They run where the packages of the tests are not installed."""
    folder = Path(__file__).resolve().parents[2] / "loadtests"
    files = sorted(folder.rglob("*.py"))
    assert len(files) > 20
    for file in files:
        nodes = list(ast.walk(ast.parse(file.read_text())))
        modules = {n.module or "" for n in nodes if isinstance(n, ast.ImportFrom)}
        modules |= {
            alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names
        }
        packages = {module.partition(".")[0] for module in modules}
        assert packages.isdisjoint({"tests", "pytest"}), file
