"""`python -m loadtests.bench_issuer`: measures, prints the tables, writes JSON."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from statistics import median
from textwrap import dedent
from typing import Any

from tqdm import tqdm

from loadtests.bench_issuer.environment import running
from loadtests.bench_issuer.measures import GOALS, BenchError, Round, measure
from loadtests.support.postgres import PostgresMissingError
from loadtests.support.processes import NotInTimeError

_EPILOG = dedent("""\
    One issuer process on a PostgreSQL of its own, all on this machine, as is the load.
    The pool has one hashing thread by default: issuer, database and load need
    processors too. Each round takes all measures in turn; ratios are computed within a
    round, and the median of the rounds is shown with the least and the most of them.

    Ends with 0; with 1 when an answer was wrong; with 2 when PostgreSQL is missing. A
    missed bound is printed, not an error: the machine may be busy.
    """)
_MAX_SECONDS, _MAX_ROUNDS = 30, 25
_ACCOUNTS = 50


def main(arguments: list[str] | None = None) -> int:
    """Run the bench; return the exit status."""
    options = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    rounds: list[Round] = []
    try:
        with running(
            workers=options.workers, cost=options.cost, accounts=_ACCOUNTS
        ) as environment:
            for _ in tqdm(range(options.rounds), disable=None, leave=False):
                rounds.append(asyncio.run(measure(environment, options.seconds)))
    except PostgresMissingError as error:
        print(error, file=sys.stderr)
        return 2
    except (BenchError, NotInTimeError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    print(f"{align(number_rows(rounds))}\n\n{align(goal_rows(rounds))}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        shown = {"method": _method(options), **to_json(rounds)}
        options.json.write_text(json.dumps(shown, indent=2) + "\n")
        print(f"wrote {options.json}")
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    made = argparse.ArgumentParser(
        prog="python -m loadtests.bench_issuer",
        description="What the issuer costs, and what a flood of logins does to it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "--seconds",
        type=int,
        choices=range(1, _MAX_SECONDS + 1),
        default=6,
        metavar="N",
        help=f"seconds of each measure in a round (6; at most {_MAX_SECONDS})",
    )
    made.add_argument(
        "--rounds",
        type=int,
        choices=range(1, _MAX_ROUNDS + 1),
        default=5,
        metavar="N",
        help=f"rounds (5; at most {_MAX_ROUNDS})",
    )
    made.add_argument(
        "--workers", type=int, default=1, metavar="N", help="hashing threads (1)"
    )
    made.add_argument(
        "--cost",
        type=int,
        choices=range(10, 17),
        default=12,
        metavar="N",
        help="bcrypt's cost (12)",
    )
    made.add_argument("--json", type=Path, metavar="PATH", help="write all numbers")
    return made


def number_rows(rounds: Sequence[Round]) -> list[list[str]]:
    """Return each number of a round with its median, titles first."""
    rows = [["number", "median", "least..most"]]
    for member in fields(Round):
        values = [getattr(found, member.name) for found in rounds]
        rows.append(
            [
                member.name.replace("_", " "),
                f"{median(values):.4g}",
                f"{min(values):.4g}..{max(values):.4g}",
            ]
        )
    return rows


def goal_rows(rounds: Sequence[Round]) -> list[list[str]]:
    """Return each goal with its measured values, titles first."""
    rows = [["ratio", "measured", "rounds", "must", "aim", "reached"]]
    for goal in GOALS:
        values = [goal.of(found) for found in rounds]
        sign = ">=" if goal.at_least else "<="
        rows.append(
            [
                goal.title,
                f"{median(values):.3f}",
                f"{min(values):.2f}..{max(values):.2f}",
                f"{sign} {goal.must:g}",
                f"{goal.aim:g}",
                goal.verdict(median(values)),
            ]
        )
    return rows


def to_json(rounds: Sequence[Round]) -> dict[str, Any]:
    """Return all of it as JSON takes it."""
    goals = []
    for goal in GOALS:
        values = [goal.of(found) for found in rounds]
        shown = {"title": goal.title, "must": goal.must, "aim": goal.aim}
        shown |= {"value": median(values), "least": min(values), "most": max(values)}
        goals.append(shown | {"verdict": goal.verdict(median(values))})
    return {"goals": goals, "rounds": [asdict(found) for found in rounds]}


def align(rows: Sequence[Sequence[str]]) -> str:
    """Return the rows as a table for the terminal."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _method(options: argparse.Namespace) -> dict[str, int]:
    names = ("seconds", "rounds", "workers", "cost")
    return {name: getattr(options, name) for name in names}


if __name__ == "__main__":
    sys.exit(main())
