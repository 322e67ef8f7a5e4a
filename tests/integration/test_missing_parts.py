"""A tool that lacks something fails with a few lines that name the next step."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.processes import free_port

pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parents[2]
LOAD = (sys.executable, "loadtests/locustfile.py", "--seconds", "3")
LOCUST = (
    *(sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py"),
    *("--headless", "-u", "4", "-r", "4", "-t", "3s"),
)
#: More would bury the sentence.
FEW_LINES = 8


def run(*command: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def output_of(done: subprocess.CompletedProcess[str]) -> str:
    """Return the output of a failed tool, which must be short and no traceback."""
    shown = done.stdout + done.stderr
    assert done.returncode != 0
    assert "Traceback" not in shown
    assert len(shown.splitlines()) <= FEW_LINES, shown
    return shown


def write_demo(folder: Path, issuer: int, gateway: int) -> dict[str, str]:
    """Write the file of a `make up`; return the environment that names its folder."""
    lines = [
        f"GATEWAY_URL=http://127.0.0.1:{gateway}",
        f"ISSUER_URL=http://127.0.0.1:{issuer}",
        "ADMIN_USERNAME=admin",
        "ADMIN_PASSWORD=not-the-right-one",
    ]
    (folder / "demo.env").write_text("\n".join(lines) + "\n")
    return {"GATEHOUSE_VAR": str(folder)}


class _KeysAlone(BaseHTTPRequestHandler):
    """An issuer that publishes keys and can do no more; a gate is open."""

    def do_GET(self) -> None:
        self._answer(200)

    def do_POST(self) -> None:
        self._answer(503)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Write nothing."""


class _ShutGate(_KeysAlone):
    def do_GET(self) -> None:
        self._answer(401)


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture
def open_port() -> Iterator[int]:
    with serving(_KeysAlone) as port:
        yield port


@pytest.mark.parametrize("command", [LOAD, LOCUST], ids=["script", "locust"])
def test_the_load_test_without_a_stack_names_the_address_and_the_next_step(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    """It was 19,800 lines of tracebacks."""
    issuer, gateway = free_port(), free_port()
    shown = output_of(run(*command, **write_demo(tmp_path, issuer, gateway)))
    assert f"http://127.0.0.1:{issuer} (ISSUER_URL in {tmp_path}/demo.env)" in shown
    assert "make up" in shown


def test_the_load_test_names_a_gateway_that_is_gone_or_another_program(
    tmp_path: Path, open_port: int
) -> None:
    gone = free_port()
    shown = output_of(run(*LOAD, **write_demo(tmp_path, open_port, gone)))
    assert f"nothing answers at http://127.0.0.1:{gone} (GATEWAY_URL" in shown
    shown = output_of(run(*LOAD, **write_demo(tmp_path, open_port, open_port)))
    assert "answers 200 instead of 401 (GATEWAY_URL" in shown
    assert "another program" in shown


def test_a_load_test_of_a_failing_stack_counts_failures_without_a_traceback(
    tmp_path: Path, open_port: int
) -> None:
    """Each login that failed was an AttributeError per user and second."""
    with serving(_ShutGate) as gate:
        done = run(*LOAD, **write_demo(tmp_path, open_port, gate))
    shown = done.stdout + done.stderr
    assert done.returncode == 1
    assert "Traceback" not in shown
    assert "/auth/login: 503 instead of 200" in shown


def test_the_load_test_without_make_up_names_the_missing_step(tmp_path: Path) -> None:
    for command in (LOAD, LOCUST):
        shown = output_of(run(*command, GATEHOUSE_VAR=str(tmp_path)))
        assert f"{tmp_path}/demo.env is not there: start `make up`" in shown
    (tmp_path / "demo.env").write_text("ISSUER_URL=http://127.0.0.1:1\n")
    shown = output_of(run(*LOAD, GATEHOUSE_VAR=str(tmp_path)))
    assert "has no GATEWAY_URL, ADMIN_USERNAME, ADMIN_PASSWORD" in shown


def hide(*places: str) -> tuple[str, ...]:
    """Return a command that runs another with these folders empty for it alone."""
    empty = "".join(f"mount -t tmpfs none {place}; " for place in places)
    command = ("unshare", "--mount", "sh", "-ec", f'{empty}exec "$@"', "hidden")
    if os.geteuid() != 0:
        command = ("unshare", "--map-root-user", *command[1:])
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        message = "no mount namespace can be made here"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{message}; in CI it must be possible")
        pytest.skip(message)
    return command


def without(program: str, tmp_path: Path) -> dict[str, str]:
    """Return a PATH on which a program is not found, and what starts tools still is."""
    for name in ("sh", "mount", "unshare", "env", "setpriv", "taskset"):
        found = shutil.which(name)
        if found and name != program:
            (tmp_path / name).symlink_to(found)
    return {"PATH": str(tmp_path)}


#: Where PostgreSQL and nginx are, besides folders of a PATH.
_POSTGRES = "/usr/lib/postgresql"


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("loadtests.bench_issuer", []),
        ("loadtests.bench_revocation", []),
        ("loadtests.bench_revocation", ["--only", "rates"]),
    ],
)
def test_a_bench_without_postgresql_fails_before_it_measures(
    tmp_path: Path, module: str, arguments: list[str]
) -> None:
    hidden = hide(*filter(os.path.isdir, [_POSTGRES, "/usr/sbin"]))
    env = without("initdb", tmp_path)
    done = run(*hidden, sys.executable, "-m", module, *arguments, **env)
    assert done.returncode == 2
    shown = output_of(done)
    assert "PostgreSQL is needed" in shown
    assert "apt-get install postgresql" in shown


def test_a_bench_without_nginx_fails_before_it_measures(tmp_path: Path) -> None:
    hidden = hide("/usr/sbin", "/usr/local/sbin")
    arguments = ("loadtests.bench_revocation", "--only", "refusals", "load-sqlite")
    env = without("nginx", tmp_path)
    done = run(*hidden, sys.executable, "-m", *arguments, **env)
    assert done.returncode == 2
    assert "nginx with auth_request is needed: apt-get install" in output_of(done)


def test_the_bench_without_wrk_names_its_package(tmp_path: Path) -> None:
    hidden = hide("/usr/sbin", "/usr/local/sbin")
    env = without("wrk", tmp_path)
    done = run(*hidden, sys.executable, "-m", "loadtests.bench", "--quick", **env)
    assert done.returncode == 2
    assert "wrk is needed: Debian package wrk" in output_of(done)


def test_the_comparison_of_grants_without_node_names_the_package(
    tmp_path: Path,
) -> None:
    """A Python of its own folder, as one that `make setup` did not make."""
    python = tmp_path / "python"
    python.symlink_to(Path(sys.executable).resolve())
    paths = os.pathsep.join(path for path in sys.path if path)
    done = run(
        str(python), "-m", "loadtests.bench_issuer.grants", PYTHONPATH=f"{ROOT}:{paths}"
    )
    assert done.returncode == 2
    shown = output_of(done)
    assert "node and npm not found" in shown
    assert "make setup" in shown


@pytest.mark.parametrize("gateway", ["nginx", "envoy", ""])
def test_make_up_without_a_gateway_names_the_package(
    tmp_path: Path, gateway: str
) -> None:
    hidden = hide("/usr/sbin", "/usr/local/sbin")
    python = tmp_path / "python"
    python.symlink_to(Path(sys.executable).resolve())
    paths = os.pathsep.join(path for path in sys.path if path)
    env = without("nginx", tmp_path) | {
        "PYTHONPATH": f"{ROOT}:{paths}",
        "GATEHOUSE_VAR": str(tmp_path / "var"),
        "GATEHOUSE_UP_GATEWAY": gateway,
    }
    shown = output_of(run(*hidden, str(python), "-m", "deploy.demo.up", **env))
    assert "is not installed here" in shown
    assert ("apt-get install nginx-light" in shown) is (gateway != "envoy")
    assert ("make setup" in shown) is (gateway != "nginx")


def test_make_up_in_a_place_that_cannot_be_written_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    var = tmp_path / "file" / "var"
    shown = output_of(
        run(sys.executable, "-m", "deploy.demo.up", GATEHOUSE_VAR=str(var))
    )
    assert f"GATEHOUSE_VAR: cannot write to {var}" in shown


@pytest.mark.parametrize("program", ["issuer", "verifier"])
def test_output_that_is_not_read_ends_a_command_quietly(program: str) -> None:
    """`| head` closes its end while the command still writes."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        command = [sys.executable, "-m", program, "completion", "bash"]
        ended = subprocess.run(
            command, cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, b"")
