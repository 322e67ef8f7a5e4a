"""A decision of any worker is explained by any worker (R66)."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.policy_page import blocks, first_policies
from tests.support.processes import ProcessFactory
from tests.support.raw_http import bearer, post_json, send
from tests.support.stack import Stack

WORKERS = 2
#: Each asks two of the workers at random; that all ask the same one is impossible.
ATTEMPTS = 12

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder: Path = tmp_path_factory.mktemp("explain")
    factory = ProcessFactory(folder)
    try:
        file = folder / "policies.toml"
        file.write_text(first_policies())
        yield Stack.start(
            folder,
            factory,
            VERIFIER_WORKERS=str(WORKERS),
            VERIFIER_POLICY_FILE=str(file),
        )
    finally:
        factory.stop_all()


def order(path: str) -> list[tuple[str, str]]:
    """Return what nginx sends about a request."""
    return [
        ("X-Original-Method", "GET"),
        ("X-Original-Host", "shop.example.com"),
        ("X-Original-URI", path),
    ]


def test_every_refusal_is_found_by_its_id_at_once(stack: Stack) -> None:
    ports, secret = stack.addresses, "hush-hush"
    for _ in range(ATTEMPTS):
        refused = send(
            ports.verifier,
            "GET",
            "/verify/nginx",
            [bearer(f"a.{secret}.c"), *order(f"/orders/{secret}")],
        )
        assert refused.status == 401
        decision_id = refused.header("x-auth-decision-id")
        asked = {"decision_id": decision_id}
        answer = post_json(ports.verifier_admin, "/explain", asked)
        assert answer.status == 200, answer.body
        said = answer.json()
        assert said["decision_id"] == decision_id
        assert (said["reason"], said["policy"]) == ("token_malformed", "default")
        assert secret not in answer.body.decode()


def test_an_id_that_no_worker_knows_is_404(stack: Stack) -> None:
    port, asked = stack.addresses.verifier_admin, {"decision_id": "0" * 16}
    answer = post_json(port, "/explain", asked)
    assert answer.status == 404
    assert "each worker keeps its last 1,000" in answer.body.decode().lower()


def documented() -> list[str]:
    """Return the commands of the page's section about explanations."""
    found = blocks("Why was a request refused?", "bash")
    return [line for block in found for line in block.splitlines()]


class Operator:
    """Runs commands of the page, with an address, a token and an id of the stack."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        ports, token = stack.addresses, stack.log_in().access_token
        refused = send(ports.verifier, "GET", "/verify/nginx", order("/orders/7"))
        self._given = {
            "http://127.0.0.1:9100": f"http://127.0.0.1:{ports.verifier_admin}",
            "0c5e9d7f1b2a4386": str(refused.header("x-auth-decision-id")),
            "eyJ...": token,
        }
        self._folder = folder
        jwks = send(ports.issuer, "GET", "/.well-known/jwks.json")
        (folder / "jwks.json").write_bytes(jwks.body)
        (folder / "token.txt").write_text(token)

    def run(self, line: str, *more: str) -> tuple[int, dict[str, Any]]:
        """Return status and answer of a command."""
        for text, value in self._given.items():
            line = line.replace(text, value)
        program, *arguments = shlex.split(line)
        if program == "python":
            program, more = sys.executable, ("--json", *more)
        done = subprocess.run(
            [program, *arguments, *more],
            cwd=self._folder,
            env={"PATH": os.environ["PATH"], "HTTP_PROXY": "http://127.0.0.1:1"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stderr == "" or program == "curl", done.stderr
        said: dict[str, Any] = json.loads(done.stdout)
        return done.returncode, said


@pytest.fixture(scope="module")
def operator(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Operator:
    folder = tmp_path_factory.mktemp("documented")
    (folder / "policies.toml").write_text(first_policies())
    return Operator(stack, folder)


@pytest.mark.parametrize("line", documented())
def test_every_documented_command_explains_the_request(
    operator: Operator, line: str
) -> None:
    if line.startswith("curl") and shutil.which("curl") is None:
        pytest.skip("no curl")
    status, said = operator.run(line)
    has_token = "token" in line
    assert said["policy"] == "default"
    # The token, too, is refused by the rule for the path, and not by that of the host.
    assert said["rule"]["path"] == "/orders/**"
    # The first user of the stack has no scope of the page's example.
    assert said["reason"] == (
        "scope_insufficient" if has_token else "credential_missing"
    )
    (refused,) = [row for row in said["checks"] if row["outcome"] == "refused"]
    assert refused["check"] == ("rule_scopes" if has_token else "headers")
    assert said.get("signature_checked", True) is (
        "--jwks" in line or "9100" in line or not has_token
    )
    assert status == (0 if line.startswith("curl") else 1)


def test_page_documents_both_ways_to_ask() -> None:
    lines = documented()
    assert sum(line.startswith("curl") for line in lines) == 2
    assert sum("policy explain --url" in line for line in lines) == 2
    assert sum("policy explain policies.toml" in line for line in lines) == 2


def test_command_says_when_a_decision_is_unknown(operator: Operator) -> None:
    line = "python -m verifier policy explain --url http://127.0.0.1:9100"
    status, said = operator.run(line, "--decision-id", "0" * 16)
    assert status == 2
    assert "--url: answers 404: decision_id: no decision" in said["error"]


def test_command_says_when_nothing_answers(operator: Operator) -> None:
    line = "python -m verifier policy explain --url http://127.0.0.1:1"
    status, said = operator.run(line)
    assert status == 2
    assert "does not answer" in said["error"]
