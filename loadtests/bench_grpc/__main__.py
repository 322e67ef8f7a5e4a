"""`python -m loadtests.bench_grpc`: what a gRPC check costs the verifier.

Each round asks every server in turn, so the ratio is one of the same minutes. The
servers have the first processor this process may use, the load has the second.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tqdm import tqdm

from loadtests.bench.passes import PassOffice
from loadtests.bench.servers import BenchError, Server, Servers
from loadtests.bench.setups import (
    Surroundings,
    environment,
    missing_programs,
    start_empty_verifier,
    start_grpc_verifier,
)
from loadtests.bench.source import Source
from loadtests.bench_grpc.load import ask, check_of, lets_pass, pin
from loadtests.support.processes import is_listening

#: The measures, by name: the verifier, warm; and handlers that do nothing.
TITLES = {
    "verifier": "ours",
    "empty": "empty handler in the same server",
    "asyncio": "empty handler, grpcio asyncio, plain",
    "threads": "empty handler, grpcio threaded",
    "threads-loop": "the same, answered by an event loop",
}
#: CPU of a check at most, times that of the empty handler of the same server.
BOUND = 1.3
_TOKENS = 200
#: Turns of one round.
_SLICES = 10
_MAX_ROUNDS, _MAX_CALLS = 25, 100_000

Costs = dict[str, list[float]]


def main(arguments: list[str] | None = None) -> int:
    """Measure; return 0, 1 when a server does not do its work, 2 without a tool."""
    options = parser().parse_args(arguments)
    needed = missing_programs({"taskset", "setpriv"})
    cores = sorted(os.sched_getaffinity(0))
    if needed or len(cores) < 2:
        print(f"needs two processors and {needed}", file=sys.stderr)
        return 2
    pin(cores[1])
    try:
        costs = run(options.rounds, options.calls, cores[0], options.compiled)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    print(table(costs))
    if options.json:
        options.json.write_text(json.dumps({"cpu_us": costs, "ratio": ratio(costs)}))
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    made = argparse.ArgumentParser(prog="python -m loadtests.bench_grpc")
    made.add_argument("--rounds", type=_up_to(_MAX_ROUNDS), default=5)
    made.add_argument("--calls", type=_up_to(_MAX_CALLS), default=8_000)
    made.add_argument("--compiled", type=Path, help="where deploy.compile compiled")
    made.add_argument("--json", type=Path, help="write the numbers there")
    return made


def _up_to(most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        number = int(text)
        if not 0 < number <= most:
            raise argparse.ArgumentTypeError(f"must be 1 to {most}")
        return number

    return read


def run(rounds: int, calls: int, core: int, compiled: Path | None) -> Costs:
    """Return the CPU of a check in every round, microseconds, by measure.

    Raises:
        BenchError: when a server does not run or answers wrongly.
    """
    costs: Costs = {name: [] for name in TITLES}
    with (
        tempfile.TemporaryDirectory(prefix="gatehouse-bench-") as folder,
        Servers(core, Path(folder)) as servers,
    ):
        port = servers.free_port()
        office = PassOffice(f"http://127.0.0.1:{port}")
        source = Source(office, port)
        try:
            around = Surroundings(servers, office, source, compiled)
            running = _start(around)
            _look(running["verifier"], office)
            messages = [check_of(office.mint()) for _ in range(_TOKENS)]
            for number in tqdm(range(rounds + 1), disable=None, leave=False):
                found = _round(running, messages, calls // _SLICES)
                # The first round warms: caches, and the interpreter.
                for name, cpu_us in found.items() if number else ():
                    costs[name].append(cpu_us)
        finally:
            source.close()
    return costs


def _round(
    running: dict[str, Server], messages: Sequence[bytes], calls: int
) -> dict[str, float]:
    """Return the CPU of a check at each server, which are asked in short turns.

    What else the machine does changes from second to second, and costs all alike.
    """
    found: dict[str, list[float]] = {name: [] for name in running}
    for _ in range(_SLICES):
        for name, server in running.items():
            found[name].append(ask(server, messages, calls)[0])
    return {name: statistics.fmean(every) for name, every in found.items()}


def _start(around: Surroundings) -> dict[str, Server]:
    running = {
        "verifier": start_grpc_verifier("verifier", around, []),
        "empty": start_empty_verifier("empty", around, []),
    }
    for name in list(TITLES)[2:]:
        port = around.servers.free_port()
        command = [sys.executable, "-m", "loadtests.bench_grpc.handlers", name]
        pid = around.servers.start(
            name,
            [*command, str(port)],
            partial(is_listening, port),
            env=environment({}),
        )
        running[name] = Server(port, (pid,))
    return running


def _look(server: Server, office: PassOffice) -> None:
    """Ask about a good token and a revoked one before costs are compared."""
    if not lets_pass(server, check_of(office.mint())):
        raise BenchError("the verifier refuses a good token")
    for token in ("a.b.c", office.mint(sid=office.revoked_sid)):
        if lets_pass(server, check_of(token)):
            raise BenchError("the verifier lets a bad token pass")


def ratio(costs: Costs) -> float:
    """Return the median of the rounds' ratios: ours to the empty handler's."""
    pairs = zip(costs["verifier"], costs["empty"], strict=True)
    return statistics.median([ours / empty for ours, empty in pairs])


def table(costs: Costs) -> str:
    """Return the medians, with the least and the most, and the ratio."""
    lines = ["CPU per check, microseconds: median (least to most)"]
    for name, title in TITLES.items():
        every = costs[name]
        middle = statistics.median(every)
        lines.append(
            f"  {title:40}{middle:6.0f} ({min(every):.0f} to {max(every):.0f})"
        )
    found = ratio(costs)
    word = "kept" if found <= BOUND else "missed"
    lines.append(
        f"ours / empty handler in the same server: {found:.2f} (<= {BOUND}: {word})"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
