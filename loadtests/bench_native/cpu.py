"""What a request costs at a gateway that checks by itself, beside its own peers.

Each round asks every gateway in short turns, so a ratio is one of the same minutes.
Gateways have the first processor this process may use, the load has the second.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from tqdm import tqdm

from loadtests.bench.cpu import cpu_ns
from loadtests.bench.load import ask, write_script
from loadtests.bench.passes import AUDIENCE, PassOffice
from loadtests.bench.servers import BenchError, Server, Servers, status
from loadtests.bench.setups import environment
from loadtests.bench_native.configs import (
    asking_config,
    jwt_config,
    native_config,
    unchecked_config,
)
from loadtests.bench_native.source import GrowingSource
from loadtests.support.processes import wait_until

_TOKENS = 200
#: Entries of `native` with few revocations, and with many.
FEW, MANY = 100, 30_000
#: Seconds that every gateway is asked in one turn, and turns that do not count.
_TURN = 1
_WARMING_TURNS = 2
_FEED_TOKEN = "for-the-bench-alone-" * 2

#: CPU of one request in every turn of every round, microseconds, by gateway.
Costs = dict[str, list[list[float]]]


@dataclass(frozen=True, slots=True)
class Gateway:
    """A running gateway.

    Attributes:
        server: where it is asked, and all its processes.
        native: the process that writes into it, which is one of them; 0: none does.
    """

    server: Server
    native: int = 0


@dataclass(frozen=True, slots=True)
class Around:
    """What every gateway needs.

    Attributes:
        servers: starts and stops programs.
        office: the issuer of the tokens.
        source: keys and feeds.
    """

    servers: Servers
    office: PassOffice
    source: GrowingSource

    def folder(self, name: str) -> Path:
        """Make a folder."""
        made = self.servers.folder / name
        made.mkdir()
        return made

    def token_header(self, **claims: object) -> dict[str, str]:
        """Return the header that shows a new token."""
        return {"Authorization": f"Bearer {self.office.mint(**claims)}"}


def measure(rounds: int, turns: int, many: int, starts: Starts) -> Costs:
    """Return the costs.

    Args:
        rounds: of the median. Each starts the gateways anew: two processes of one and
            the same gateway cost up to 8 % more or less than each other.
        turns: of every gateway in one round, a second each.
        many: revocations of the gateway that has many.
        starts: the gateways.

    Raises:
        BenchError: when a gateway does not run or answers wrongly.
    """
    costs: Costs = {}
    for number in tqdm(range(rounds), disable=None, leave=False):
        for name, turns_of_it in _round(turns, many, starts, number).items():
            costs.setdefault(name, []).append(turns_of_it)
    return costs


def _round(
    turns: int, many: int, starts: Starts, number: int
) -> dict[str, list[float]]:
    """Start the gateways, ask each in turns, and stop them."""
    cores = sorted(os.sched_getaffinity(0))
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="gatehouse-bench-"))
        )
        servers = stack.enter_context(Servers(cores[0], folder))
        port = servers.free_port()
        office = PassOffice(f"http://127.0.0.1:{port}")
        source = GrowingSource(office, port)
        stack.callback(source.close)
        around = Around(servers, office, source)
        running = {name: start(name, around, many) for name, start in starts.items()}
        tokens = [f"Bearer {office.mint()}" for _ in range(_TOKENS)]
        script = write_script(folder / "load.lua", "/orders/7?x=1", {}, tokens)
        _take_turns(running, script, _WARMING_TURNS, cores[-1], number)
        return _take_turns(running, script, turns, cores[-1], number)


def _take_turns(
    running: Mapping[str, Gateway], script: Path, turns: int, core: int, number: int
) -> dict[str, list[float]]:
    """Return the cost in every gateway's turns, and of it `native` alone."""
    found: dict[str, list[float]] = {}
    names = list(running)
    for turn in range(turns):
        # Not always behind the same neighbour.
        first = (number + turn) % len(names)
        for name in names[first:] + names[:first]:
            gateway = running[name]
            before = cpu_ns(gateway.native) if gateway.native else 0
            sample = ask(gateway.server, script, _TURN, core, wants_refusals=False)
            if sample.wrong:
                raise BenchError(f"{name}: {sample.wrong} wrong answers")
            found.setdefault(name, []).append(sample.cpu_us)
            if gateway.native:
                used = (cpu_ns(gateway.native) - before) / 1_000
                found.setdefault(f"{name}-writer", []).append(
                    used / (sample.rate * _TURN)
                )
    return found


# --- Envoy ---------------------------------------------------------------------------


def _unchecked(name: str, around: Around, _many: int) -> Gateway:
    port = around.servers.free_port()
    config = unchecked_config(around.folder(name), port)
    return Gateway(Server(port, (_start_envoy(name, around, config, port),)))


def _jwt(name: str, around: Around, _many: int, *, is_bare: bool) -> Gateway:
    port = around.servers.free_port()
    keys = [around.office.jwk]
    config = jwt_config(
        around.folder(name), port, around.office.issuer, keys, is_bare=is_bare
    )
    pid = _start_envoy(name, around, config, port)
    look(name, around, port, None)
    return Gateway(Server(port, (pid,)))


def _native(name: str, around: Around, many: int, *, has_many: bool) -> Gateway:
    port = around.servers.free_port()
    folder = around.folder(name)
    count = many if has_many else FEW
    # As they are spread after a while: most are settled, a few are new.
    recent = count // 250 if has_many else count // 2
    around.source.add(name, count - recent)
    pid = _start_envoy(name, around, native_config(folder, port), port)
    sockets = {
        "envoy_bind": f"unix:{folder}/envoy-xds.sock",
        "envoy_admin": f"unix:{folder}/envoy-admin.sock",
        # Until the window of a process before this one is over, it asks more often.
        "max_staleness": 13,
    }
    native = start_ours(f"{name}-native", around, name, ["native", "envoy"], sockets)
    sid = around.source.add(name, recent)
    await_list(name, around, port, sid)
    look(name, around, port, sid)
    return Gateway(Server(port, (pid, native)), native)


def _asking(name: str, around: Around, many: int) -> Gateway:
    port, folder = around.servers.free_port(), around.folder(name)
    sid = around.source.add(name, many)
    socket = folder / "verifier.sock"
    bind = {"bind": f"unix:{socket}"}
    verifier = start_ours(f"{name}-verifier", around, name, [], bind)
    pid = _start_envoy(name, around, asking_config(folder, port, socket), port)
    look(name, around, port, sid)
    return Gateway(Server(port, (pid, verifier)))


def _start_envoy(name: str, around: Around, config: Path, port: int) -> int:
    command = [str(Path(sys.executable).parent / "envoy"), "-c", str(config)]
    command += ["--concurrency", "1", "--disable-hot-restart", "-l", "error"]
    return around.servers.start(name, command, lambda: status(port, "/") > 0)


def start_ours(
    name: str,
    around: Around,
    feed: str,
    words: list[str],
    settings: Mapping[str, object],
) -> int:
    """Start the verifier, or `native`; return its process id once it is ready."""
    admin = around.servers.free_port()
    values = {
        "issuer_url": around.office.issuer,
        "audience": AUDIENCE,
        "jwks_url": f"{around.source.url}/jwks.json",
        "feed_url": around.source.feed_url(feed),
        "feed_token": _FEED_TOKEN,
        "bind": f"127.0.0.1:{around.servers.free_port()}",
        "admin_bind": f"127.0.0.1:{admin}",
    } | settings
    return around.servers.start(
        name,
        [sys.executable, "-m", "verifier", *words],
        lambda: status(admin, "/readyz") == 200,
        env=environment({f"VERIFIER_{k.upper()}": str(v) for k, v in values.items()}),
        deadline=90.0,
    )


def await_list(name: str, around: Around, port: int, sid: str) -> None:
    """Return when the gateway refuses that session and lets another one pass."""
    revoked, good = around.token_header(sid=sid), around.token_header()
    wait_until(
        lambda: (status(port, "/", revoked) == 401 and status(port, "/", good) == 200),
        what=f"{name} has its revocations",
        deadline=30.0,
    )


def look(name: str, around: Around, port: int, sid: str | None) -> None:
    """Ask with good and bad tokens before costs are compared.

    Raises:
        BenchError: when an answer is wrong.
    """
    good = around.token_header()
    expected = [(good, 200), ({}, 401), ({"Authorization": "Bearer a.b.c"}, 401)]
    if sid is not None:
        expected.append((around.token_header(sid=sid), 401))
    for headers, wanted in expected:
        found = status(port, "/", headers)
        if found != wanted:
            raise BenchError(f"{name} answers {found} instead of {wanted}")


Start = Callable[[str, Around, int], Gateway]
Starts = Mapping[str, Start]

ENVOY: Starts = {
    "none": _unchecked,
    "jwt": partial(_jwt, is_bare=False),
    "jwt-bare": partial(_jwt, is_bare=True),
    "native-few": partial(_native, has_many=False),
    "native-many": partial(_native, has_many=True),
    "ext-authz": _asking,
}


def ratios(costs: Costs, ours: str, other: str) -> list[float]:
    """Return what ours costs, times the other, in each round.

    It is the median of the turns: those of one number are seconds apart, and what else
    the machine does comes and goes.
    """
    return [
        median(a / b for a, b in zip(mine, others, strict=True))
        for mine, others in zip(costs[ours], costs[other], strict=True)
    ]


def least(costs: Costs, name: str) -> list[float]:
    """Return the least cost of a gateway's turns in each round.

    What else the machine does can only make a request more expensive.
    """
    return [min(turns) for turns in costs[name]]
