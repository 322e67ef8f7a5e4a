"""Users of the load that Locust ends half-way, and users whose work raises."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: Locust changes the process it is in.
ENDED_HALF_WAY = """
import sys
import locust, gevent
from loadtests.day.cast import Cast
cast = Cast({"ISSUER_URL": sys.argv[1], "ADMIN_USERNAME": "a", "ADMIN_PASSWORD": "b"})
first = gevent.spawn(cast.person, 0)
gevent.sleep(0.3)
first.kill()
print(cast.person(0).user_id)
"""
RAISING = """
import sys
from pathlib import Path
from locust.env import Environment
from loadtests.day.record import Record
environment = Environment()
record = Record(environment, Path(sys.argv[1]), 1)
error = ValueError("no such thing")
environment.events.user_error.fire(user_instance=None, exception=error, tb=None)
record.write()
"""


class SlowIssuer(ThreadingHTTPServer):
    """Makes accounts, each name once, and takes its time for it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.usernames: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: SlowIssuer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status, answer = 200, {"access_token": "t", "device_token": "d"}
        if self.path == "/roles":
            status = 201
        elif self.path == "/users":
            is_new = body["username"] not in self.server.usernames
            self.server.usernames.append(body["username"])
            status, answer = (201, {"id": "u1"}) if is_new else (409, {})
            time.sleep(0.6)
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Write nothing."""


@pytest.fixture
def issuer() -> Iterator[SlowIssuer]:
    server = SlowIssuer()
    threading.Thread(target=server.serve_forever).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def run(script: str, argument: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", script, str(argument)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_an_account_is_there_for_the_next_though_its_user_was_ended(
    issuer: SlowIssuer,
) -> None:
    assert run(ENDED_HALF_WAY, issuer.url).stdout.split() == ["u1"]
    assert len(issuer.usernames) == 1


def test_what_a_users_work_raises_is_among_the_failures(tmp_path: Path) -> None:
    """Locust ends with 1 for it."""
    run(RAISING, tmp_path / "record.json")
    record = json.loads((tmp_path / "record.json").read_text())
    assert record["failures"] == {"ValueError: no such thing": 1}
