"""The outcome for people: tables for the terminal and for REPORT.md."""

from __future__ import annotations

from collections.abc import Sequence

from loadtests.bench.load import KEPT_BUSY
from loadtests.bench.measures import MEASURES
from loadtests.bench.outcome import Outcome, Reached

#: Between these lines REPORT.md is written by `--report`.
MARKS = (
    "<!-- run: written by python -m loadtests.bench --report -->",
    "<!-- run end -->",
)


def terminal(outcome: Outcome) -> str:
    """Return both tables, and the names of missing measures."""
    parts = [_align(measure_rows(outcome)), _align(goal_rows(outcome))]
    parts += [
        f"not installed: {name} ({package}); its measures are left out"
        for name, package in outcome.missing.items()
    ]
    if outcome.idled:
        parts.append(
            f"the server had less than {KEPT_BUSY:.0%} of its processor in: "
            f"{', '.join(outcome.idled)}.\nOther work was in the way, and these costs "
            "are too high: measure again when the machine is quiet"
        )
    if outcome.wrong:
        parts.append(f"{outcome.wrong} WRONG ANSWERS: none of these numbers counts")
    return "\n\n".join(parts)


def measure_rows(outcome: Outcome) -> list[list[str]]:
    """Return the medians of each measure, one row each, titles first."""
    rows = [["measure", "CPU us/request", "requests/s", "p50 us", "p99 us"]]
    rows[0] += ["wrong", "busy"]
    for measure in MEASURES:
        middle = outcome.middle(measure.name)
        if middle is not None:
            numbers = [f"{middle.cpu_us:.2f}", f"{middle.rate:,.0f}"]
            numbers += [f"{middle.p50_us:,.0f}", f"{middle.p99_us:,.0f}"]
            numbers += [str(middle.wrong), f"{middle.busy:.0%}"]
            rows.append([measure.title, *numbers])
    return rows


def goal_rows(outcome: Outcome) -> list[list[str]]:
    """Return each goal with its measured values, one row each, titles first."""
    rows = [["ratio", "measured", "rounds", "must", "aim", "reached"]]
    return rows + [_goal_row(reached) for reached in outcome.reached()]


def _goal_row(reached: Reached) -> list[str]:
    goal = reached.goal
    sign = ">=" if goal.at_least else "<="
    show = "{:.0f}" if goal.quantity == "memory" else "{:.2f}"
    measured, rounds = "-", "-"
    if reached.value is not None:
        # One digit more than the bounds have: it decides at the edge.
        digits = 0 if goal.quantity == "memory" else 3
        measured = f"{reached.value:.{digits}f}"
        if goal.quantity != "memory":
            rounds = f"{reached.least:.2f}..{reached.most:.2f}"
    bounds = ["-", "-"]
    if goal.must is not None and goal.aim is not None:
        bounds = [f"{sign} {show.format(goal.must)}", show.format(goal.aim)]
    return [goal.title, measured, rounds, *bounds, reached.verdict]


def report(text: str, outcome: Outcome) -> str:
    """Return REPORT.md with this run between its marks.

    Raises:
        ValueError: when the marks are not there.
    """
    before, opening, rest = text.partition(MARKS[0])
    _, closing, after = rest.partition(MARKS[1])
    if not opening or not closing:
        raise ValueError("has no place for a run: " + " ... ".join(MARKS))
    relative = [["measure", "CPU per request, nginx `return 200` = 1", "wrong answers"]]
    for measure in MEASURES:
        share, middle = outcome.relative(measure.name), outcome.middle(measure.name)
        if share is not None and middle is not None:
            relative.append([measure.title, f"{share:.2f}", str(middle.wrong)])
    versions = ", ".join(f"{k} {v}" for k, v in outcome.versions.items() if v)
    missing = ", ".join(outcome.missing) or "none"
    idled = ", ".join(outcome.idled) or "none"
    method = "; ".join(f"{k}: {v}" for k, v in outcome.method.items())
    parts = [MARKS[0], _markdown(goal_rows(outcome)), _markdown(relative)]
    parts += [
        f"Versions: {versions}.",
        f"Missing peers: {missing}. {method}.",
        f"Kept less than {KEPT_BUSY:.0%} busy: {idled}; samples retaken: {outcome.retaken}.",
    ]
    return before + "\n\n".join([*parts, MARKS[1]]) + after


def _align(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    head, *body = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])
