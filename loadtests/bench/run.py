"""One run: start everything, look that it answers rightly, then measure in rounds."""

from __future__ import annotations

import platform
import ssl
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version as package_version
from pathlib import Path

from tqdm import tqdm

from loadtests.bench.cpu import resident_bytes
from loadtests.bench.load import CONNECTIONS, KEPT_BUSY, Sample, ask, write_script
from loadtests.bench.measures import MEASURES, Measure
from loadtests.bench.outcome import Outcome
from loadtests.bench.passes import PassOffice, bad_signature, garbage
from loadtests.bench.servers import BenchError, Server, Servers, status
from loadtests.bench.setups import (
    COLD_CACHE,
    REVOCATIONS,
    SETUPS,
    Surroundings,
    missing_programs,
    programs_of,
    start,
    version,
)
from loadtests.bench.source import Source

_PACKAGES = ("uvloop", "httptools", "uvicorn", "cryptography", "fastapi", "pyjwt")
_WARMING_SECONDS = 1
_TRIES = 3


@dataclass(frozen=True, slots=True)
class BenchPlan:
    """How much is measured.

    Attributes:
        measures: of every round, in this order.
        rounds: how often.
        seconds: how long each time.
        tokens: how many live tokens take turns.
        cores: the servers' processor and the load generator's.
        compiled: where `deploy.compile` compiled the verifier; None: it is interpreted.
    """

    measures: tuple[Measure, ...]
    rounds: int
    seconds: int
    tokens: int
    cores: tuple[int, int]
    compiled: Path | None = None

    @property
    def retakes(self) -> int:
        """How many samples of the run may be taken again: it must end in time."""
        return len(self.measures) * self.rounds // 3


def choose(only: Sequence[str]) -> tuple[Measure, ...]:
    """Return the measures of these names; all of them when none is named."""
    return tuple(m for m in MEASURES if not only or m.name in only)


def run(plan: BenchPlan) -> Outcome:
    """Measure; every started server is stopped when this returns or raises.

    Raises:
        BenchError: when a server does not run, or accepts a bad token.
    """
    outcome = Outcome(method=_method(plan), versions=versions())
    outcome.missing = missing_programs(
        set().union(*(programs_of(m.setup) for m in plan.measures))
    )
    measures = [
        m for m in plan.measures if not programs_of(m.setup) & outcome.missing.keys()
    ]
    setups = list(dict.fromkeys(m.setup for m in measures))
    steps = plan.tokens // 1_000 + len(setups) + len(measures) * plan.rounds
    with (
        tqdm(total=steps, disable=None, leave=False, unit="step") as progress,
        tempfile.TemporaryDirectory(prefix="gatehouse-bench-") as folder,
        Servers(plan.cores[0], Path(folder)) as servers,
    ):
        # nginx's worker, which is not root, comes through here.
        Path(folder).chmod(0o755)
        port = servers.free_port()
        office = PassOffice(f"http://127.0.0.1:{port}")
        source = Source(office, port)
        try:
            running = _start_all(
                setups,
                Surroundings(servers, office, source, plan.compiled),
                progress,
            )
            outcome.memory = _memory(running)
            scripts = _write_scripts(plan, measures, office, Path(folder), progress)
            for number in range(plan.rounds + 1):
                _round(number, plan, measures, running, scripts, outcome, progress)
        finally:
            source.close()
    return outcome


def _start_all(
    setups: Sequence[str], around: Surroundings, progress: tqdm
) -> dict[str, Server]:
    running: dict[str, Server] = {}
    for name in setups:
        progress.set_description(f"starting {name}")
        server = start(name, around, running)
        look(name, server, around.office)
        progress.update()
    return running


def look(name: str, server: Server, office: PassOffice) -> None:
    """Ask a server about a good token and bad ones, before its cost is compared.

    Raises:
        BenchError: when it answers one of them wrongly.
    """
    setup = SETUPS[name]
    good = office.mint()
    bad = {
        "no token": "",
        "a bad signature": bad_signature(good),
        "an expired token": office.mint(exp=int(time.time()) - 3_600),
        "another issuer's token": office.mint(iss="https://other.example"),
    } | {f"garbage of kind {n}": text for n, text in enumerate(garbage(good, 5))}
    if setup.revokes:
        bad["a revoked token"] = office.mint(sid=office.revoked_sid)
    if _status(server, good) != 200:
        raise BenchError(f"{name} refuses a good token")
    for what, token in bad.items() if setup.checks else ():
        answered = _status(server, token)
        if not 400 <= answered < 500:
            raise BenchError(f"{name} answers {what} with {answered}")


def _status(server: Server, token: str) -> int:
    shown = {"Authorization": f"Bearer {token}"} if token else {}
    check = {"X-Original-Method": "GET", "X-Original-URI": "/"}
    return status(server.port, "/verify/nginx", check | shown)


def _memory(running: dict[str, Server]) -> dict[str, int]:
    """Return the sizes of verifiers that have hardly been asked yet, bytes."""
    sizes = {
        name: resident_bytes(running[name].pids[0])
        for name in ("verifier-none-revoked", "verifier-many-revoked")
        if name in running
    }
    memory = {}
    if "verifier-none-revoked" in sizes:
        memory["idle worker"] = sizes["verifier-none-revoked"]
        if "verifier-many-revoked" in sizes:
            added = sizes["verifier-many-revoked"] - sizes["verifier-none-revoked"]
            memory["1,000,000 revocations"] = added
    return memory


def _write_scripts(
    plan: BenchPlan,
    measures: Sequence[Measure],
    office: PassOffice,
    folder: Path,
    progress: tqdm,
) -> dict[str, Path]:
    """Write the requests of wrk for each measure; all share the tokens."""
    progress.set_description("minting tokens")
    tokens = []
    for number in range(1, plan.tokens + 1):
        tokens.append(office.mint())
        if number % 1_000 == 0:
            progress.update()
    shown = {
        "good": tokens,
        "garbage": garbage(tokens[0], plan.tokens),
        "bad signature": [bad_signature(tokens[0])],
    }
    return {
        m.name: write_script(
            folder / f"{m.name}.lua",
            m.target,
            m.headers,
            [f"Bearer {token}" for token in shown[m.shown]],
        )
        for m in measures
    }


def _round(
    number: int,
    plan: BenchPlan,
    measures: Sequence[Measure],
    running: dict[str, Server],
    scripts: dict[str, Path],
    outcome: Outcome,
    progress: tqdm,
) -> None:
    """Measure each once; round 0 only fills the caches."""
    for measure in measures:
        if number == 0 and not measure.is_warmed:
            continue
        progress.set_description(f"round {number}/{plan.rounds} {measure.name}")
        sample = take(
            partial(
                ask,
                running[measure.setup],
                scripts[measure.name],
                core=plan.cores[1],
                wants_refusals=measure.wants_refusals,
            ),
            plan.seconds if number else _WARMING_SECONDS,
            outcome,
            plan.retakes if number else 0,
        )
        if number:
            outcome.samples.setdefault(measure.name, []).append(sample)
            progress.update()


def take(
    ask_for: Callable[[int], Sample], seconds: int, outcome: Outcome, retakes: int
) -> Sample:
    """Take a sample; take it again while the server idles and retakes are left.

    The busiest sample counts, whatever its cost per request. Wrong answers of every
    sample are kept.

    Args:
        ask_for: measures for that many seconds.
        seconds: how long.
        outcome: counts the retakes of the whole run.
        retakes: how many the whole run may have.
    """
    best = ask_for(seconds)
    for _ in range(_TRIES - 1):
        if best.busy >= KEPT_BUSY or outcome.retaken >= retakes:
            break
        outcome.retaken += 1
        again = ask_for(seconds)
        wrong = best.wrong + again.wrong
        best = replace(max(best, again, key=lambda s: s.busy), wrong=wrong)
    return best


def versions() -> dict[str, str]:
    """Return the versions of everything that is compared; empty where it is missing."""
    found = {
        "nginx": version(["nginx", "-v"]),
        "HAProxy": version(["haproxy", "-v"]),
        "Envoy": version(["envoy", "--version"]),
        "wrk": version(["wrk", "-v"]),
        "Python": platform.python_version(),
        "OpenSSL (Python's)": ssl.OPENSSL_VERSION.split()[1],
    }
    return found | {name: package_version(name) for name in _PACKAGES}


def _method(plan: BenchPlan) -> dict[str, object]:
    return {
        "verifier": "compiled" if plan.compiled else "interpreted",
        "rounds": plan.rounds,
        "seconds each": plan.seconds,
        "connections": CONNECTIONS,
        "live tokens": plan.tokens,
        "revocations": REVOCATIONS,
        "facts kept when cold": COLD_CACHE,
    }
