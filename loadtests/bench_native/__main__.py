"""`python -m loadtests.bench_native`: measures, prints the table, writes JSON."""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

from tqdm import tqdm

from loadtests.bench.servers import BenchError as ServerError
from loadtests.bench.setups import missing_programs
from loadtests.bench_native import cpu, delays, faults
from loadtests.bench_native.gateways import Envoy, Haproxy, MakeGateway
from loadtests.bench_native.haproxy_cpu import HAPROXY
from loadtests.bench_revocation.__main__ import table
from loadtests.bench_revocation.environment import BenchError
from loadtests.bench_revocation.measures import Figure, Goal
from loadtests.support.processes import NotInTimeError

_EPILOG = dedent("""\
    All programs run on this machine. loadtests/NATIVE.md describes the method.

    Ends with 0; with 1 when an answer was wrong, as a request that passes with a token
    whose revocation was confirmed; with 2 when a program is missing. A missed bound is
    printed, not an error: the machine may be busy.
    """)
#: What is compared: our gateway, its peer, and the bounds of the ratio.
_RATIOS = (
    ("native-many", "jwt", 1.15, 1.05),
    ("native-many", "jwt-bare", None, None),
    ("native-few", "jwt", None, None),
    ("native-many", "ext-authz", 0.45, 0.35),
    ("haproxy-native-many", "haproxy-jwt", 1.05, 1.0),
    ("haproxy-native-many", "haproxy-documented", None, None),
    ("haproxy-native-few", "haproxy-jwt", None, None),
    ("haproxy-native-forgetful", "haproxy-jwt", None, None),
)
_TITLES = {
    "none": "Envoy, no check",
    "jwt": "Envoy, jwt_authn alone",
    "jwt-bare": "Envoy, jwt_authn alone, without the time header",
    "native-few": "Envoy, native, few revocations",
    "native-many": "Envoy, native, many revocations",
    "ext-authz": "Envoy, ext_authz over a unix socket",
    "native-few-writer": "of native, few: the program `native`",
    "native-many-writer": "of native, many: the program `native`",
    "haproxy-none": "HAProxy, no check",
    "haproxy-jwt": "HAProxy, jwt_verify alone",
    "haproxy-documented": "HAProxy, jwt_verify as documented",
    "haproxy-native-few": "HAProxy, native, few revocations",
    "haproxy-native-many": "HAProxy, native, many revocations",
    "haproxy-native-forgetful": "HAProxy, native, many, and each signature looked at",
    "haproxy-native-few-writer": "of HAProxy, native, few: the program `native`",
    "haproxy-native-many-writer": "of HAProxy, native, many: the program `native`",
}
_GATEWAYS = ("Envoy", "HAProxy")


def _ratio_name(ours: str, other: str) -> str:
    return f"{_TITLES[ours]} / {_TITLES[other].partition(', ')[2]}"


GOALS = (
    *(
        Goal(_ratio_name(ours, other), must, aim, "")
        for ours, other, must, aim in _RATIOS
        if must is not None and aim is not None
    ),
    *(
        Goal(f"first refusal through {name}, 30,000 entries, p99", 60, 20, "ms")
        for name in _GATEWAYS
    ),
    *(
        Goal(f"confirmed through {name} under faults, passes", 0, 0, "")
        for name in _GATEWAYS
    ),
)


class Step(NamedTuple):
    """Figures that are taken together, and the programs that needs."""

    name: str
    take: Callable[[argparse.Namespace], list[Figure]]
    needs: frozenset[str]


def _cpu(options: argparse.Namespace, starts: cpu.Starts) -> list[Figure]:
    return figures_of_costs(
        cpu.measure(options.rounds, options.turns, options.entries, starts)
    )


def figures_of_costs(costs: cpu.Costs) -> list[Figure]:
    """Return the median cost of a request at each gateway, and the ratios."""
    figures = [
        Figure(title, statistics.median(every), "us", tuple(every))
        for name, title in _TITLES.items()
        if name in costs and (every := cpu.least(costs, name))
    ]
    for ours, other, *_ in _RATIOS:
        if ours in costs and other in costs:
            every = cpu.ratios(costs, ours, other)
            title = _ratio_name(ours, other)
            figures.append(Figure(title, statistics.median(every), "", tuple(every)))
            least = [min(cpu.least(costs, name)) for name in (ours, other)]
            figures.append(Figure(f"{title}, of the least", least[0] / least[1], ""))
    return figures


def _refusals(options: argparse.Namespace, make_gateway: MakeGateway) -> list[Figure]:
    return delays.refusals(options.entries, options.samples, make_gateway)


def _confirmations(
    options: argparse.Namespace, make_gateway: MakeGateway
) -> list[Figure]:
    return faults.confirmations(options.entries, options.samples, make_gateway)


_LOAD = frozenset({"wrk", "taskset", "setpriv"})
_MADE: tuple[tuple[str, str, MakeGateway], ...] = (
    ("", "envoy", Envoy),
    ("haproxy-", "haproxy", Haproxy),
)
STEPS = (
    Step("cpu", lambda options: _cpu(options, cpu.ENVOY), _LOAD | {"envoy"}),
    Step("haproxy-cpu", lambda options: _cpu(options, HAPROXY), _LOAD | {"haproxy"}),
    *(
        Step(
            f"{prefix}refusals",
            partial(_refusals, make_gateway=make_gateway),
            frozenset({program}),
        )
        for prefix, program, make_gateway in _MADE
    ),
    *(
        Step(
            f"{prefix}confirmations",
            partial(_confirmations, make_gateway=make_gateway),
            frozenset({program}),
        )
        for prefix, program, make_gateway in _MADE
    ),
    Step(
        "large-list",
        lambda options: delays.large_list(options.large, options.samples // 5),
        frozenset({"envoy"}),
    ),
)


def main(arguments: list[str] | None = None) -> int:
    """Run the bench; return the exit status."""
    options = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    steps = [s for s in STEPS if not options.only or s.name in options.only]
    needed = frozenset[str]().union(*(step.needs for step in steps))
    missing = missing_programs(set(needed))
    if missing or len(os.sched_getaffinity(0)) < 2:
        print(f"needs two processors and {missing}", file=sys.stderr)
        return 2
    figures: list[Figure] = []
    try:
        for step in tqdm(steps, disable=None, leave=False):
            figures += step.take(options)
    except (BenchError, ServerError, NotInTimeError) as error:
        print(f"{table(figures, GOALS)}\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    print(table(figures, GOALS))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        shown = {**_sizes(options), "figures": [asdict(each) for each in figures]}
        options.json.write_text(json.dumps(shown, indent=2) + "\n")
        print(f"wrote {options.json}")
    return 0


def _sizes(options: argparse.Namespace) -> dict[str, object]:
    names = ("rounds", "turns", "samples", "entries", "large")
    sizes = {name: getattr(options, name) for name in names}
    return sizes | {"processors": os.cpu_count(), "load": os.getloadavg()}


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    made = argparse.ArgumentParser(
        prog="python -m loadtests.bench_native",
        description="Gateways that check tokens by themselves: cost, delay, proof.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, default, most, described in (
        ("rounds", 5, 25, "of the median of a cost"),
        ("turns", 9, 60, "of each gateway in a round, a second each"),
        ("samples", 1_000, 10_000, "of a delay, and confirmed revocations"),
        ("entries", cpu.MANY, 1_000_000, "revocations in force"),
        ("large", 1_000_000, 5_000_000, "revocations of the large list"),
    ):
        made.add_argument(
            f"--{name}",
            type=_up_to(most),
            default=default,
            metavar="N",
            help=f"{described} ({default})",
        )
    names = [step.name for step in STEPS]
    made.add_argument(
        "--only", nargs="+", choices=names, metavar="STEP", help=", ".join(names)
    )
    made.add_argument("--json", type=Path, metavar="PATH", help="write all numbers")
    return made


def _up_to(most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        number = int(text)
        if not 0 < number <= most:
            raise argparse.ArgumentTypeError(f"must be 1 to {most}")
        return number

    return read


if __name__ == "__main__":
    sys.exit(main())
