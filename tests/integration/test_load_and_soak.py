"""The day of users with attackers, and the soak, in short; with an open gate, too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import pytest

from loadtests.day import picture
from loadtests.day.__main__ import PICTURE, RECORD, REPORT, SETTINGS, play
from loadtests.day.kinds import REFUSED, WORKED, WRONG
from loadtests.support import site as sites
from loadtests.support.site import Site
from tests.support.installed_gateways import require

pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parents[2]
PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    require("nginx")
    with sites.running(SETTINGS, on_postgres=False) as site:
        yield site


def read_record(folder: Path) -> dict[str, Any]:
    return cast("dict[str, Any]", json.loads((folder / RECORD).read_text()))


def test_in_a_day_people_work_and_no_attacker_gets_through(
    site: Site, tmp_path: Path
) -> None:
    code = play(site, 12, 24, tmp_path)
    record = read_record(tmp_path)
    assert code == 0, record["failures"]
    kinds = record["kinds"].values()
    total = {
        kind: sum(second.get(kind, 0) for second in kinds)
        for kind in (WORKED, REFUSED, WRONG)
    }
    assert total[WORKED] > 50
    assert total[REFUSED] > 20
    assert total[WRONG] == 0
    last = record["refusals"][max(record["refusals"], key=int)]
    assert {"credential_missing", "signature_invalid", "revoked_sid"} <= last.keys()
    assert (tmp_path / REPORT).stat().st_size > 10_000


class _OpenGate(BaseHTTPRequestHandler):
    """A gate that lets everything pass but what has no token at all."""

    def do_GET(self) -> None:
        has_token = self.headers.get("Authorization") is not None
        body = json.dumps({"headers": dict(self.headers)}).encode()
        self.send_response(200 if has_token else 401)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_POST = do_OPTIONS = do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Write nothing."""


def test_an_open_gate_is_a_failure_that_names_the_attack(
    site: Site, tmp_path: Path
) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _OpenGate)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    demo = (site.folder / "demo.env").read_text()
    closed = f"GATEWAY_URL=http://127.0.0.1:{site.addresses.gateway}"
    assert closed in demo
    (tmp_path / "demo.env").write_text(
        demo.replace(closed, f"GATEWAY_URL=http://127.0.0.1:{server.server_port}")
    )
    few = ("Forger", "Spoofer", "Administrator")
    done = subprocess.run(
        (
            *(sys.executable, "-m", "locust", "-f", "loadtests/locustfile.py"),
            *("--headless", "--steady", "-u", "4", "-r", "4", "-t", "6s"),
            *("--record", tmp_path / RECORD, *few),
        ),
        cwd=ROOT,
        env=os.environ | {"GATEHOUSE_VAR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    server.shutdown()
    server.server_close()
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    failures = " ".join(read_record(tmp_path)["failures"])
    assert "attack: without signature: 200 instead of 400 or 401" in failures
    assert "attack: headers, own token: the application sees" in failures
    assert "after a confirmed revocation" in failures


def test_a_short_soak_reads_all_programs_and_says_what_grew(tmp_path: Path) -> None:
    require("nginx")
    found, drawn = tmp_path / "soak.json", tmp_path / "soak.png"
    # Not long enough for any bound to be reached: whether it says so is tested, not
    # whether something grows.
    done = subprocess.run(
        (
            *(sys.executable, "-m", "loadtests.soak", "--minutes", "0.2"),
            *("--users", "12", "--json", found, "--plot", drawn),
        ),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.exists(), done.stdout + done.stderr
    result = json.loads(found.read_text())
    assert result["load_exit_code"] == 0, found.with_suffix(".load.log").read_text()
    too_much = {each["name"] for each in result["growth"] if each["is_too_much"]}
    assert done.returncode == bool(too_much)
    assert all(f"soak: {name} grew by" in done.stdout for name in too_much)
    values = result["values"]
    for program in ("issuer", "verifier", "gateway", "app", "postgres"):
        # On a busy machine a reading takes longer than the pause between two.
        assert len(values[f"{program} memory"]) > 8
        assert values[f"{program} descriptors"][-1][1] > 5
    # A supervisor and two workers, at every reading: none was replaced.
    for program in ("issuer", "verifier"):
        assert {number for _, number in values[f"{program} processes"]} == {3}
    assert values["rows sessions"][-1][1] > 0
    assert drawn.read_bytes().startswith(PNG)


def test_the_picture_of_a_day_shows_its_failures(tmp_path: Path) -> None:
    record = {
        "seconds": 4,
        "kinds": {"0": {WORKED: 3}, "2": {WRONG: 1, REFUSED: 2}},
        "users": {"0": 1, "2": 2},
        "failures": {"attack: garbage: 200 instead of 401": 1},
        "times": [{"phase": "night", "work": "login", "ms": [1.0, 2.0]}],
        "refusals": {"0": {"expired": 1.0}, "2": {"expired": 4.0}},
    }
    picture.draw(record, tmp_path / PICTURE)
    assert (tmp_path / PICTURE).read_bytes().startswith(PNG)
