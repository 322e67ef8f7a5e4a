"""`python -m loadtests.bench`: measures, prints the tables, writes JSON and a plot.

`parser` is over 40 lines: it is a list of options.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

from loadtests.bench import tables
from loadtests.bench.measures import MEASURES
from loadtests.bench.outcome import Outcome
from loadtests.bench.run import BenchPlan, choose, run
from loadtests.bench.servers import BenchError
from loadtests.bench.setups import missing_programs

_EPILOG = dedent("""\
    measures (--only takes their names; a ratio needs both of its measures):
    {measures}

    The servers share the first processor this process may use, wrk has the second;
    everything talks over loopback, ends by itself and is stopped on Ctrl-C. Each round
    takes all measures in turn; ratios are computed within a round and the median of the
    rounds is shown, with the least and the most of them. "busy" is the share of its
    processor a server had; one that other work keeps waiting looks dearer than it is,
    so such samples are taken again, up to a third of them.

    To compare: nginx, haproxy and wrk are Debian packages (wrk nginx-light haproxy);
    Envoy comes with make setup. wrk is needed; other missing ones are named, and left
    out.

    Ends with 0; with 1 when an answer was wrong (then no number counts) or a server does
    not run; with 2 when it cannot start. A missed bound is printed, not an error: the
    machine may be busy.

    examples:
      make bench                                              # all of it, compiled
      python -m loadtests.bench --quick                       # a look, under a minute
      python -m loadtests.bench --only nginx warm --rounds 9  # one ratio, closely
      python -m loadtests.bench --report loadtests/REPORT.md  # write the committed report
    """)
#: Bounds of a run: it must end by itself.
_MAX_SECONDS, _MAX_ROUNDS = 30, 25


def main(arguments: list[str] | None = None) -> int:
    """Run the bench; return the exit status."""
    options = parser().parse_args(arguments)
    needed = missing_programs({"wrk", "taskset", "setpriv"})
    if options.plot and importlib.util.find_spec("matplotlib") is None:
        # Checked now, not after five minutes.
        needed["matplotlib"] = "Python package matplotlib, by make setup"
    cores = sorted(os.sched_getaffinity(0))
    if needed or len(cores) < 2:
        for name, package in needed.items():
            print(f"{name} is needed: {package}", file=sys.stderr)
        if len(cores) < 2:
            print("two processors are needed, one for the load", file=sys.stderr)
        return 2
    plan = BenchPlan(
        measures=choose(options.only),
        rounds=options.rounds or (2 if options.quick else 5),
        seconds=options.seconds or (1 if options.quick else 3),
        tokens=2_000 if options.quick else 10_000,
        cores=(cores[0], cores[1]),
        compiled=options.compiled,
    )
    # Our own work, too, stays off the servers' processor.
    os.sched_setaffinity(0, {plan.cores[1]})
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        outcome = run(plan)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    finally:
        os.sched_setaffinity(0, set(cores))
    print(tables.terminal(outcome))
    _write(outcome, options)
    return 1 if outcome.wrong else 0


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    names = [measure.name for measure in MEASURES]
    listed = "\n".join(f"  {m.name:18} {m.title}" for m in MEASURES)
    made = argparse.ArgumentParser(
        prog="python -m loadtests.bench",
        description="What a check costs: ours, nginx's, HAProxy's, Envoy's, a tutorial's.",
        epilog=_EPILOG.replace("{measures}", listed),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "--quick", action="store_true", help="2 rounds of 1 s with 2,000 tokens"
    )
    made.add_argument(
        "--only",
        nargs="+",
        default=[],
        choices=names,
        metavar="NAME",
        help="only these measures",
    )
    made.add_argument(
        "--seconds",
        type=_whole(_MAX_SECONDS),
        metavar="N",
        help=f"seconds a measure takes in a round (3; at most {_MAX_SECONDS})",
    )
    made.add_argument(
        "--rounds",
        type=_whole(_MAX_ROUNDS),
        metavar="N",
        help=f"rounds (5; at most {_MAX_ROUNDS})",
    )
    made.add_argument(
        "--compiled",
        type=_compiled,
        metavar="DIR",
        help="measure the verifier that python -m deploy.compile DIR compiled",
    )
    made.add_argument("--json", type=Path, metavar="PATH", help="write all numbers")
    made.add_argument("--plot", type=Path, metavar="PATH", help="write a PNG")
    made.add_argument(
        "--report", type=Path, metavar="PATH", help="write this run into REPORT.md"
    )
    return made


def _whole(most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        number = int(text)
        if not 1 <= number <= most:
            raise argparse.ArgumentTypeError(f"from 1 to {most}")
        return number

    return read


def _compiled(text: str) -> Path:
    folder = Path(text).resolve()
    if not list(folder.glob("verifier/check/gate.*.so")):
        raise argparse.ArgumentTypeError(
            f"no compiled verifier in {text}: make it with python -m deploy.compile {text}"
        )
    return folder


def _write(outcome: Outcome, options: argparse.Namespace) -> None:
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(outcome.to_json(), indent=2) + "\n")
    if options.plot:
        # Imported only now: it takes a second, and not every run makes a picture.
        from loadtests.bench.plot import draw

        draw(outcome, options.plot)
    if options.report:
        text = options.report.read_text()
        options.report.write_text(tables.report(text, outcome))
    for path in filter(None, (options.json, options.plot, options.report)):
        print(f"wrote {path}")


if __name__ == "__main__":
    sys.exit(main())
