"""Both programs listen on the configured address, or one line gives the reason they
cannot.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.postgres import PostgresServer, start_postgres
from tests.support.processes import Process, ProcessFactory, free_port, wait_until
from tests.support.programs import PROGRAMS, Program
from tests.support.raw_http import send

pytestmark = pytest.mark.processes
ROOT = Path(__file__).resolve().parents[3]
ISSUER, VERIFIER = PROGRAMS

Env = Callable[..., dict[str, str]]


@pytest.fixture(params=PROGRAMS, ids=lambda p: p.prefix.strip("_").lower())
def program(request: pytest.FixtureRequest) -> Program:
    found: Program = request.param
    return found


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[ProcessFactory]:
    factory = ProcessFactory(tmp_path)
    yield factory
    factory.stop_all()


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """A migrated PostgreSQL database: several issuers cannot share a SQLite file."""
    server: PostgresServer = start_postgres()
    url = server.url(server.create_database())
    env = full(ISSUER.env(DATABASE_URL=url))
    command = [sys.executable, "-m", "issuer", "migrate"]
    subprocess.run(command, env=env, check=True, timeout=60, cwd="/")
    yield url
    server.stop()


def full(env: Mapping[str, str]) -> dict[str, str]:
    """Return the settings with what any Python program of ours needs."""
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **env}


def name_of(program: Program) -> str:
    return program.prefix.strip("_").lower()


def refusal(program: Program, tmp_path: Path, **settings: str) -> str:
    """Start the program; return its last line when it cannot serve."""
    binds = {n: f"127.0.0.1:{free_port()}" for n in ("BIND", "ADMIN_BIND")}
    done = subprocess.run(
        [sys.executable, "-m", name_of(program)],
        env=full(program.env(**(binds | settings))),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()[-1]


def serve(
    program: Program,
    processes: ProcessFactory,
    tmp_path: Path,
    database: str,
    **settings: str,
) -> Process:
    admin = free_port()
    extra = {"DATABASE_URL": database} if program is ISSUER else {}
    env = program.env(ADMIN_BIND=f"127.0.0.1:{admin}", **extra, **settings)
    return processes.start(
        name_of(program),
        [sys.executable, "-m", name_of(program)],
        env=full(env) | {"TMPDIR": str(tmp_path)},
        cwd=tmp_path,
        ready=lambda: send(admin, "GET", "/healthz").status == 200,
    )


def connects(family: socket.AddressFamily, host: str, port: int) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.settimeout(5)
        return probe.connect_ex((host, port)) == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_wildcard_of_ipv6_listens_on_both_families(
    program: Program,
    workers: str,
    processes: ProcessFactory,
    tmp_path: Path,
    database: str,
) -> None:
    """One worker listened on IPv6 alone, two on both."""
    port = free_port()
    serve(program, processes, tmp_path, database, BIND=f"[::]:{port}", WORKERS=workers)
    wait_until(lambda: connects(socket.AF_INET6, "::1", port))
    assert connects(socket.AF_INET, "127.0.0.1", port)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_unix_socket_is_for_its_group_and_goes_with_the_program(
    program: Program,
    workers: str,
    processes: ProcessFactory,
    tmp_path: Path,
    database: str,
) -> None:
    """And a dead program's file makes way."""
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    process = serve(
        program, processes, tmp_path, database, BIND=f"unix:{path}", WORKERS=workers
    )
    assert path.stat().st_mode & 0o777 == 0o660
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(5)
        probe.connect(str(path))
    assert process.terminate(deadline=30) == 0
    assert not path.exists()


@pytest.mark.parametrize("name", ["BIND", "ADMIN_BIND"])
def test_a_taken_address_stops_the_start_with_the_next_step(
    program: Program, name: str, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        line = refusal(program, tmp_path, **{name: bind})
    assert line == (
        f"{program.prefix}{name}: cannot listen on {bind}: another program listens "
        "there; stop it or choose another port"
    )
