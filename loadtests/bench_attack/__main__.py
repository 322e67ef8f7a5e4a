"""`python -m loadtests.bench_attack`: the cost of attacks on the public port for good
checks.

The verifier has a processor, good checks and attackers share another; all of it is on
loopback and ends by itself. Good checks run in turn without and with the attack; the
ratio of their p99 is taken in each round, and its median over the rounds is shown.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from loadtests.bench.cpu import resident_bytes
from loadtests.bench.passes import AUDIENCE, PassOffice
from loadtests.bench.servers import BenchError, Server, Servers, status
from loadtests.bench.source import Source
from loadtests.bench_attack.attackers import KINDS
from loadtests.bench_attack.good import GoodChecks, Taken

_ROOT = Path(__file__).parents[2]
#: Strangers come from here; only 127.0.0.1 is trusted.
STRANGER, TRUSTED = "127.0.0.2", "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack: its kind, how many connections, whether their peer is trusted."""

    kind: str
    count: int
    is_trusted: bool

    @property
    def name(self) -> str:
        """For tables."""
        who = "trusted" if self.is_trusted else "untrusted"
        return f"{self.kind} {who} x{self.count}"


@dataclass(frozen=True, slots=True)
class Result:
    """The cost of an attack.

    Attributes:
        name: the attack's.
        p99_ratio: of good checks, during / without, the median of the rounds.
        calm_p99_us: without.
        p99_us: during.
        added_median_us: the added time of the median check, microseconds.
        failed: good checks that were not answered with 200.
        memory_mb: by how much the process grew at most.
    """

    name: str
    p99_ratio: float
    calm_p99_us: float
    p99_us: float
    added_median_us: float
    failed: int
    memory_mb: float


@dataclass(frozen=True, slots=True)
class AttackPlan:
    """How much is measured: rounds, seconds of each half, processors, which build.

    The attack runs `settle` seconds before good checks begin: while 200 attackers are
    being accepted, a new gateway's connection waits behind them.
    """

    rounds: int
    seconds: float
    cores: tuple[int, int]
    compiled: Path | None = None
    is_unix: bool = False
    settle: float = 4.0


class Bench:
    """One verifier that is attacked again and again.

    Args:
        servers: starts it.
        plan: how.
    """

    def __init__(self, servers: Servers, plan: AttackPlan) -> None:
        self._plan = plan
        port = servers.free_port()
        office = PassOffice(f"http://127.0.0.1:{port}")
        self._source = Source(office, port)
        self._address, self._pid = _start(servers, office, self._source, plan)
        self._good = GoodChecks(self._address, office.mint())
        # Memory that grows with the first checks is not due to the attacks.
        self._good.run(plan.seconds)

    def close(self) -> None:
        """Stop the servers that were started here."""
        self._source.close()

    def measure(self, attack: Attack) -> Result:
        """Attack in rounds, and compare."""
        calm: list[Taken] = []
        beset: list[Taken] = []
        before = resident_bytes(self._pid)
        grown = 0
        for _ in range(self._plan.rounds):
            calm.append(self._good.run(self._plan.seconds))
            attackers = self._attack(attack)
            time.sleep(self._plan.settle)
            beset.append(self._good.run(self._plan.seconds))
            grown = max(grown, resident_bytes(self._pid) - before)
            attackers.wait(30)
            time.sleep(0.2)
        pairs = list(zip(calm, beset, strict=True))
        return Result(
            attack.name,
            round(statistics.median(b.p99 / c.p99 for c, b in pairs), 2),
            round(statistics.median(c.p99 for c, _ in pairs) * 1e6),
            round(statistics.median(b.p99 for _, b in pairs) * 1e6),
            round(statistics.median(b.median - c.median for c, b in pairs) * 1e6),
            sum(taken.failed for taken in calm + beset),
            round(grown / 1e6, 1),
        )

    def _attack(self, attack: Attack) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "loadtests.bench_attack.attackers"]
        command += [str(self._address), attack.kind, "--count", str(attack.count)]
        command += ["--seconds", str(self._plan.seconds + self._plan.settle + 2.0)]
        command += ["--source", TRUSTED if attack.is_trusted else STRANGER]
        return subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.DEVNULL)


def _start(
    servers: Servers, office: PassOffice, source: Source, plan: AttackPlan
) -> tuple[int | str, int]:
    port, admin = servers.free_port(), servers.free_port()
    path = str(servers.folder / "gate.sock")
    env = {k: v for k, v in os.environ.items() if not k.startswith("VERIFIER_")}
    paths = [str(folder) for folder in (plan.compiled, _ROOT) if folder]
    env |= {
        "PYTHONPATH": os.pathsep.join(paths),
        "VERIFIER_ISSUER_URL": office.issuer,
        "VERIFIER_AUDIENCE": AUDIENCE,
        "VERIFIER_JWKS_URL": f"{source.url}/jwks.json",
        "VERIFIER_FEED_URL": source.feed_url(0),
        "VERIFIER_FEED_TOKEN": "for-the-bench-alone-" * 2,
        "VERIFIER_TRUSTED_PEERS": f"{TRUSTED}/32",
        "VERIFIER_BIND": f"unix:{path}" if plan.is_unix else f"127.0.0.1:{port}",
        "VERIFIER_ADMIN_BIND": f"127.0.0.1:{admin}",
    }
    pid = servers.start(
        "verifier",
        [sys.executable, "-m", "verifier"],
        lambda: status(admin, "/readyz") == 200,
        env=env,
        deadline=60.0,
    )
    return (path if plan.is_unix else Server(port, (pid,)).port), pid


def attacks(*, is_unix: bool) -> list[Attack]:
    """Return the attacks of the table in issue 11, and every kind on 1 and 200."""
    trusted = [Attack(kind, n, True) for kind in KINDS for n in (1, 200)]
    trusted.append(Attack("pipeline", 8, True))
    if is_unix:
        return trusted
    kinds = ("pipeline", "trailers")
    return [Attack(kind, n, False) for kind in kinds for n in (1, 8, 200)] + trusted


def run(plan: AttackPlan, chosen: Sequence[Attack]) -> list[Result]:
    """Measure every attack; all servers are stopped when this returns or raises."""
    results = []
    with (
        tempfile.TemporaryDirectory(prefix="gatehouse-attack-") as folder,
        Servers(plan.cores[0], Path(folder)) as servers,
    ):
        bench = Bench(servers, plan)
        try:
            for attack in chosen:
                results.append(bench.measure(attack))
                print(_line(results[-1]), flush=True)
        finally:
            bench.close()
    return results


def _line(result: Result) -> str:
    return (
        f"{result.name:34} p99 x{result.p99_ratio:<6} "
        f"{result.calm_p99_us:>7.0f} -> {result.p99_us:>7.0f} us  "
        f"median {result.added_median_us:+6.0f} us  failed {result.failed}  "
        f"memory {result.memory_mb:+.1f} MB"
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the bench; return 1 when a good check failed."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.bench_attack", description=__doc__
    )
    parser.add_argument("--rounds", type=int, default=5, choices=range(1, 26))
    parser.add_argument("--seconds", type=float, default=2.0, help="at most 60")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="in an attack's name")
    parser.add_argument("--unix", action="store_true", help="over a unix socket")
    parser.add_argument("--compiled", type=Path, metavar="DIR")
    parser.add_argument("--json", type=Path, metavar="PATH")
    options = parser.parse_args(arguments)
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        print("two processors are needed, one for the load", file=sys.stderr)
        return 2
    plan = AttackPlan(
        rounds=options.rounds,
        seconds=min(options.seconds, 60.0),
        cores=(cores[0], cores[1]),
        compiled=options.compiled.resolve() if options.compiled else None,
        is_unix=options.unix,
    )
    chosen = [
        attack
        for attack in attacks(is_unix=options.unix)
        if not options.only or any(word in attack.name for word in options.only)
    ]
    os.sched_setaffinity(0, {plan.cores[1]})
    try:
        results = run(plan, chosen)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        os.sched_setaffinity(0, set(cores))
    if options.json:
        options.json.write_text(json.dumps([asdict(r) for r in results], indent=2))
    return 1 if any(result.failed for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
