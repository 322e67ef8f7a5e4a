"""`python -m loadtests.bench_revocation`: measures, prints the table, writes JSON."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

from tqdm import tqdm

from deploy.gateway_programs import registry
from loadtests.bench_revocation import measures
from loadtests.bench_revocation.environment import BenchError, running
from loadtests.bench_revocation.measures import GOALS, Figure, Goal
from loadtests.support.postgres import PostgresMissingError, find_programs
from loadtests.support.processes import NotInTimeError

_EPILOG = dedent("""\
    Issuer, verifier, nginx, followers and the measuring program run on this machine.
    PostgreSQL waits for its disk at each commit. Delays are taken one at a time, by one
    clock. loadtests/REVOCATION.md describes the method of each.

    Ends with 0; with 1 when an answer was wrong; with 2 when a program is missing. A
    missed bound is printed, not an error: the machine may be busy.
    """)


class Step(NamedTuple):
    """Figures that are taken together, and the programs that needs."""

    name: str
    take: Callable[[argparse.Namespace], list[Figure]]
    needs: frozenset[str] = frozenset()


def _refusals(options: argparse.Namespace) -> list[Figure]:
    with running("sqlite") as environment:
        return asyncio.run(measures.refusals(environment, options.samples))


def _confirmations(kind: str) -> Callable[[argparse.Namespace], list[Figure]]:
    def take(options: argparse.Namespace) -> list[Figure]:
        with running(kind) as environment:
            return asyncio.run(
                measures.confirmations(environment, options.samples, kind)
            )

    return take


def _deliveries(options: argparse.Namespace) -> list[Figure]:
    with running("postgres") as environment:
        return asyncio.run(measures.deliveries(environment, options.samples // 5))


def _rates(options: argparse.Namespace) -> list[Figure]:
    found = []
    for workers in (1, 2):
        name = "revocations on postgres" + (
            f", {workers} workers" if workers > 1 else ""
        )
        with running("postgres", workers=workers) as environment:
            found += asyncio.run(measures.rate(environment, options.samples * 4, name))
    return found


_POSTGRES = frozenset({"postgres"})
STEPS = (
    Step("refusals", _refusals, frozenset({"nginx"})),
    Step("confirmations-sqlite", _confirmations("sqlite")),
    Step("confirmations-postgres", _confirmations("postgres"), _POSTGRES),
    Step("deliveries", _deliveries, _POSTGRES),
    Step("rates", _rates, _POSTGRES),
    Step("load-sqlite", lambda options: measures.loads("sqlite", options.entries)),
    Step(
        "load-postgres",
        lambda options: measures.loads("postgres", options.entries),
        _POSTGRES,
    ),
)


def main(arguments: list[str] | None = None) -> int:
    """Run the bench; return the exit status."""
    options = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    figures: list[Figure] = []
    steps = [s for s in STEPS if not options.only or s.name in options.only]
    missing = _find_missing(steps)
    if missing:
        print("\n".join(missing), file=sys.stderr)
        return 2
    try:
        for step in tqdm(steps, disable=None, leave=False):
            figures += step.take(options)
    except (BenchError, NotInTimeError) as error:
        print(f"{table(figures)}\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    print(table(figures))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(to_json(figures, options), indent=2) + "\n")
        print(f"wrote {options.json}")
    return 0


def _find_missing(steps: Sequence[Step]) -> list[str]:
    """Name the missing parts of the last step before the first, and how to get them."""
    needed = frozenset[str]().union(*(step.needs for step in steps))
    missing = []
    if "nginx" in needed and registry.find_binary("nginx") is None:
        missing.append("nginx with auth_request is needed: apt-get install nginx-light")
    if "postgres" in needed:
        try:
            find_programs()
        except PostgresMissingError as error:
            missing.append(str(error))
    return missing


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    made = argparse.ArgumentParser(
        prog="python -m loadtests.bench_revocation",
        description="How fast a revocation is everywhere, and known to be.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "--samples", type=int, default=1_000, metavar="N", help="of a delay (1000)"
    )
    made.add_argument(
        "--entries",
        type=int,
        default=1_000_000,
        metavar="N",
        help="live entries that are loaded (1000000)",
    )
    names = [step.name for step in STEPS]
    made.add_argument(
        "--only", nargs="+", choices=names, metavar="STEP", help=", ".join(names)
    )
    made.add_argument("--json", type=Path, metavar="PATH", help="write all numbers")
    return made


def table(figures: Sequence[Figure], bounds: Sequence[Goal] = GOALS) -> str:
    """Return a Markdown table of the figures, with the bounds they are held to."""
    goals = {goal.measure: goal for goal in bounds}
    lines = ["| figure | measured | must | aim | reached |", "|---|---|---|---|---|"]
    for figure in figures:
        goal = goals.get(figure.name)
        value = f"{figure.value:.3g}" if figure.value < 100 else f"{figure.value:,.0f}"
        held_to = (
            f"{goal.must:,} | {goal.aim:,} | {goal.reached(figure.value)}"
            if goal
            else " |  | "
        )
        lines.append(f"| {figure.name} | {value} {figure.unit} | {held_to} |")
    return "\n".join(lines)


def to_json(
    figures: Sequence[Figure], options: argparse.Namespace
) -> dict[str, object]:
    """Return the text of the file."""
    return {
        "samples": options.samples,
        "entries": options.entries,
        "processors": os.cpu_count(),
        "figures": [
            {"name": f.name, "value": f.value, "unit": f.unit, "samples": f.samples}
            for f in figures
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
