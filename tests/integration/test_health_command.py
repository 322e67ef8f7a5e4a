"""R55: the health commands ask where the settings say that the program listens."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from issuer.settings.issuer_settings import IssuerSettings
from shared import health
from verifier.settings import VerifierSettings

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = {"issuer": IssuerSettings, "verifier": VerifierSettings}


class Operators(BaseHTTPRequestHandler):
    """An operators' port: alive, and ready or not."""

    is_ready = True

    def do_GET(self) -> None:
        is_good = self.path == "/healthz" or (self.path == "/readyz" and self.is_ready)
        self.send_response(200 if is_good else 503)
        body = b'{"ready":false,"reasons":["feed"]}'
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "test"

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Unready(Operators):
    is_ready = False


@contextmanager
def listening(
    family: socket.AddressFamily, address: object, handler: type = Operators
) -> Iterator[int]:
    """Serve an operators' port; give its TCP port, 0 for a unix socket."""

    class Server(HTTPServer):
        address_family = family

        def server_bind(self) -> None:
            # The base class looks names up.
            self.socket.bind(self.server_address)
            self.server_address = self.socket.getsockname()

    server = Server(address, handler)  # type: ignore[arg-type]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        bound = server.server_address
        yield bound[1] if isinstance(bound, tuple) else 0
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def run(
    program: str, *arguments: str, cwd: Path, **settings: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", program, "health", *arguments],
        env={"PYTHONPATH": str(ROOT), **settings},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_default_is_the_settings_own(
    program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is written twice, because importing the settings takes too long."""
    asked: list[str] = []
    monkeypatch.setattr(health, "ask", lambda bind, _path: asked.append(bind))
    monkeypatch.delenv(f"{program.upper()}_ADMIN_BIND", raising=False)
    module = __import__(f"{program}.commands.main", fromlist=["main"])
    assert module.main(["health"]) == 0
    assert asked == [PROGRAMS[program].model_fields["admin_bind"].default]


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(
    ("family", "host", "bind"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1:{}"),
        (socket.AF_INET, "127.0.0.1", "localhost:{}"),
        (socket.AF_INET, "0.0.0.0", "0.0.0.0:{}"),
        (socket.AF_INET6, "::1", "[::1]:{}"),
        (socket.AF_INET6, "::", "[::]:{}"),
    ],
    ids=["ipv4", "name", "every-ipv4", "ipv6", "every-address"],
)
def test_health_follows_a_changed_port(
    program: str, family: socket.AddressFamily, host: str, bind: str, tmp_path: Path
) -> None:
    """No other setting is needed, and no secret: it asks, it does not serve."""
    with listening(family, (host, 0)) as port:
        setting = f"{program.upper()}_ADMIN_BIND"
        output = bind.format(port)
        done = run(program, cwd=tmp_path, **{setting: output})
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{setting}={output}: /healthz answers 200\n"


@pytest.mark.parametrize("program", PROGRAMS)
def test_health_follows_a_unix_socket_named_in_the_env_file(
    program: str, tmp_path: Path
) -> None:
    path = tmp_path / "admin.sock"
    setting = f"{program.upper()}_ADMIN_BIND"
    (tmp_path / ".env").write_text(f"{setting.lower()}=unix:{path}\n")
    with listening(socket.AF_UNIX, str(path)):
        assert run(program, cwd=tmp_path).returncode == 0
        # The environment comes before the file.
        other = run(program, cwd=tmp_path, **{setting: "127.0.0.1:1"})
    assert other.returncode == 1
    gone = run(program, cwd=tmp_path)
    assert gone.returncode == 1
    assert gone.stderr == (
        f"{setting}=unix:{path}: /healthz is not answered: Connection refused\n"
    )


@pytest.mark.parametrize("program", PROGRAMS)
def test_ready_requests_readiness_and_shows_the_missing_part(
    program: str, tmp_path: Path
) -> None:
    with listening(socket.AF_INET, ("127.0.0.1", 0), Unready) as port:
        setting = {f"{program.upper()}_ADMIN_BIND": f"127.0.0.1:{port}"}
        alive = run(program, cwd=tmp_path, **setting)
        unready = run(program, "--ready", cwd=tmp_path, **setting)
    assert (alive.returncode, unready.returncode) == (0, 1)
    assert "/readyz answers 503" in unready.stderr
    assert '"reasons":["feed"]' in unready.stderr


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("bind", ["9100", "127.0.0.1:0", "127.0.0.1:99999", ":"])
def test_a_bad_setting_is_one_line_and_status_1(
    program: str, bind: str, tmp_path: Path
) -> None:
    """Docker reserves every status above 1."""
    setting = f"{program.upper()}_ADMIN_BIND"
    done = run(program, cwd=tmp_path, **{setting: bind})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"{setting}: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_env_file_that_the_program_refuses_is_one_line_and_status_1(
    program: str, tmp_path: Path
) -> None:
    setting = f"{program.upper()}_ADMIN_BIND"
    (tmp_path / ".env").write_text(f"{setting}: 127.0.0.1:8100\n")
    done = run(program, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"line 1 is not NAME=VALUE; write {setting}=..." in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_secret_in_the_wrong_setting_is_not_repeated(tmp_path: Path) -> None:
    """R35."""
    secret = "k1:" + "Zm9yZ290dGVu" * 3
    done = run("issuer", cwd=tmp_path, ISSUER_ADMIN_BIND=secret)
    assert done.returncode == 1
    assert secret not in done.stderr


def test_a_server_that_does_not_speak_http_is_not_healthy(tmp_path: Path) -> None:
    class NotHttp(Operators):
        def handle(self) -> None:
            self.wfile.write(b"220 mail.test ESMTP\r\n")

    with listening(socket.AF_INET, ("127.0.0.1", 0), NotHttp) as port:
        bind = {"VERIFIER_ADMIN_BIND": f"127.0.0.1:{port}"}
        done = run("verifier", cwd=tmp_path, **bind)
    assert done.returncode == 1
    assert "/healthz is not answered" in done.stderr


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("is_console_command", [False, True], ids=["module", "console"])
def test_health_does_not_import_the_serving_code(
    program: str, is_console_command: bool, tmp_path: Path
) -> None:
    """It runs every few seconds: importing the issuer takes a second of a processor."""
    start = ["-m", program]
    if is_console_command:
        # What the command that pip makes does.
        start = [
            "-c",
            f"import sys; from {program}.__main__ import main; sys.exit(main())",
        ]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *start, "health"],
        env={"PYTHONPATH": str(ROOT), f"{program.upper()}_ADMIN_BIND": "127.0.0.1:1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "shared.health" in imported
    assert not imported & {"pydantic", "pydantic_settings", "sqlalchemy", "uvicorn"}


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_help_names_the_command(program: str, tmp_path: Path) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", program, "--help"],
        env={"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert health.HELP.split(";")[0] in " ".join(shown.split())
