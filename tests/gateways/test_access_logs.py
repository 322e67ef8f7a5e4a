"""The log lines of docs/policies.md, written by real gateways and read by `replay`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.gateway_kinds.table import KINDS, LOGGING_NAMES
from tests.support.installed_gateways import require
from tests.support.processes import wait_until
from tests.support.raw_http import bearer, send
from tests.support.stack import GatewayUnderTest, Login, Stack
from verifier.commands.main import main

pytestmark = pytest.mark.processes

OLD = """
[[policies.default.rules]]
path = "/assets/**"
public = true
[[policies.default.rules]]
path = "/closed/**"
required_scopes = ["nobody:has-this"]
[[policies.default.rules]]
path = "/open/**"
"""
NEW = """
[[policies.default.rules]]
path = "/assets/**"
[[policies.default.rules]]
path = "/closed/**"
[[policies.default.rules]]
path = "/open/**"
client_ids = ["nobody"]
"""
SPOOFED = [
    ("X-Auth-Decision", "allow"),
    ("X-Auth-Scope", "nobody:has-this"),
    ("X-Auth-Client", "nobody"),
]
SECRET = "never-in-a-log"


@pytest.fixture(scope="module")
def old_file(stack: Stack) -> Iterator[Path]:
    path = stack.installation.var / "logged-policies.toml"
    path.write_text(OLD)
    with stack.verifier_replaced(VERIFIER_POLICY_FILE=str(path)):
        yield path


@pytest.fixture(params=LOGGING_NAMES)
def logging_gateway(
    request: pytest.FixtureRequest, stack: Stack, old_file: Path
) -> tuple[GatewayUnderTest, Path]:
    name = request.param
    require(name)
    folder = stack.installation.var / "gateway" / f"{name}-logged"
    logged = stack.start_gateway(name, "logged", edit=KINDS[name].add_log)
    return logged, folder / "gatehouse.log"


def test_log_of_a_gateway_is_replayed(
    logging_gateway: tuple[GatewayUnderTest, Path],
    old_file: Path,
    session_login: Login,
    capsys: pytest.CaptureFixture[str],
) -> None:
    gateway, log = logging_gateway
    good, bad = bearer(session_login.access_token), bearer(f"x{SECRET}")
    sent: list[tuple[str, list[tuple[str, str]], int]] = [
        (f"/open/door?token={SECRET}", [good], 200),
        ("/closed/door", [good], 403),
        ("/closed/door", [], 401),
        ("/open/door", [bad], 401),
        ("/assets/a.css", [], 200),
        ("/assets/b.css", [good], 200),
        ("/elsewhere%22", [good], 403),
        # nginx passes it on as it is, Envoy escapes it.
        ('/elsewhere","gate":"200', [good], 0),
        # Envoy refuses it before its filters, and logs the client's headers.
        ("/open/..%2fdoor", [], 0),
    ]
    for target, headers, status in sent:
        answer = send(gateway.port, "GET", target, [*headers, *SPOOFED])
        assert status in (answer.status, 0), (target, answer)
    wait_until(
        lambda: log.exists() and log.read_bytes().count(b"\n") == len(sent),
        what="all requests are in the log",
    )
    text = log.read_text()
    for never in (SECRET, session_login.access_token, "eyJ"):
        assert never not in text
    lines = [json.loads(line) for line in text.splitlines()]
    assert lines[0]["uri"] == "/open/door"
    assert lines[0]["scope"] == session_login.identity["x-auth-scope"]
    found = replay(old_file, log, capsys, old_file)
    assert (found["newly_refused"], found["cannot_tell"]) == (0, 0)
    logs_all_refusals = gateway.kind.logs_all_refusals
    assert found["not_asked"] == (0 if logs_all_refusals else 1)
    new = old_file.with_name("new.toml")
    new.write_text(NEW)
    found = replay(new, log, capsys, old_file)
    assert found["newly_allowed"] == 1
    assert found["newly_refused"] == (2 if logs_all_refusals else 1)
    by_path = {rule["path"]: rule for rule in found["rules"]}
    assert by_path["/open/**"]["newly_refused"] == {"client_not_allowed": 1}
    assert by_path["/closed/**"]["newly_allowed"] == {"allow": 1}
    refused = {"credential_missing": 1} if logs_all_refusals else {}
    assert by_path["/assets/**"]["newly_refused"] == refused
    assert found["unread_lines"] == {}


def replay(
    new: Path, log: Path, capsys: pytest.CaptureFixture[str], old: Path
) -> dict[str, Any]:
    status = main(
        [
            "policy",
            "replay",
            str(new),
            "--against",
            str(old),
            "--log",
            str(log),
            "--json",
        ]
    )
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    changes = (found["newly_refused"], found["newly_allowed"], found["cannot_tell"])
    assert status == (1 if any(changes) else 0), found
    return found
