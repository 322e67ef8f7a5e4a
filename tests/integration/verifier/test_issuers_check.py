"""`python -m verifier issuers check` against another issuer over HTTP."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.certificates import Authority
from tests.support.checked import CheckDesk
from tests.support.issuer_simulator import FEED_TOKEN
from tests.support.jose_keys import jose_key
from tests.support.openid_provider import CONFIGURATION, OpenIdProvider, openid_provider
from tests.support.page_commands import ROOT, read_blocks
from tests.support.processes import free_port
from tests.support.tokens import AUDIENCE, ISSUER
from verifier.commands.main import main

KEY = jose_key("ES256")
Shown = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def served() -> Iterator[OpenIdProvider]:
    with openid_provider(KEY) as provider:
        yield provider


@pytest.fixture
def provider(served: OpenIdProvider) -> Iterator[OpenIdProvider]:
    yield served
    served.answers.clear()
    served.asked.clear()


def issuer_table(provider: OpenIdProvider, name: str = "keycloak") -> str:
    return (
        f'[issuers.{name}]\nissuer = "{provider.issuer}"\naudience = "orders"\n'
        f'algorithms = ["ES256"]\n'
    )


@pytest.fixture
def folder(
    provider: OpenIdProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Return the working directory, with an issuers file and a token."""
    monkeypatch.chdir(tmp_path)
    Path("issuers.toml").write_text(issuer_table(provider))
    Path("token").write_bytes(token(provider))
    return tmp_path


def token(provider: OpenIdProvider) -> bytes:
    now = int(time.time())
    claims = {"iss": provider.issuer, "aud": "orders", "sub": "b7", "scope": "a b"}
    return KEY.token(orjson.dumps(claims | {"iat": now, "exp": now + 60}), typ="JWT")


def check(capsys: Shown, *arguments: str) -> tuple[int, dict[str, Any]]:
    status = main(["issuers", "check", "issuers.toml", "--json", *arguments])
    text = capsys.readouterr().out
    assert Path("token").read_text() not in text
    said: dict[str, Any] = json.loads(text)
    return status, said


def checks(said: dict[str, Any], level: str) -> list[str]:
    return [one["check"] for one in said["findings"] if one["level"] == level]


def test_issuer_and_token_are_explained(folder: Path, capsys: Shown) -> None:
    status, said = check(capsys, "--token-file", "token")
    assert (status, said["status"], said["form"]) == (0, 0, 1)
    assert said["facts"] == {
        "issuer": "keycloak",
        "subject": "b7",
        "client": "",
        "scopes": ["a", "b"],
        "roles": [],
        "user": "",
        "session": "",
    }
    assert checks(said, "ok") == [
        *("issuers.discovery", "issuers.keys", "issuers.key", "issuers.token"),
        *("issuers.fact", "issuers.fact"),
    ]
    assert checks(said, "warning") == ["issuers.fact"] * 4


def test_commands_of_the_page_work(folder: Path, provider: OpenIdProvider) -> None:
    """Those of docs/checking.md, in a folder with the two files that they name."""
    Path("token.txt").write_bytes(token(provider))
    (block,) = [
        block
        for block in read_blocks("docs/checking.md")
        if "tests/integration/verifier/test_issuers_check.py" in block.tests
    ]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    typed = subprocess.run(
        ["sh", "-eu", "-c", block.text],
        env={"PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert typed.returncode == 0, typed.stdout + typed.stderr
    assert "the sample token is good" in typed.stdout


def test_text_has_a_line_for_each_finding(
    folder: Path, provider: OpenIdProvider, capsys: Shown
) -> None:
    assert main(["issuers", "check", "issuers.toml"]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [
        f"ok      issuers.keycloak  {provider.issuer}{CONFIGURATION} names "
        f"{provider.issuer}/jwks",
        f"ok      issuers.keycloak  {provider.issuer}/jwks has 1 usable key",
        "ok      issuers.keycloak  key key-ES256: ES256, P-256",
        "ok: 3, warning: 0, error: 0",
    ]
    # No bar: standard error is no terminal.
    assert shown.err == ""


def test_token_may_come_from_standard_input(
    folder: Path, capsys: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(Path("token").read_text()))
    status, said = check(capsys, "--token-file", "-")
    assert (status, said["facts"]["issuer"]) == (0, "keycloak")


def test_issuer_that_fails_hides_no_other(
    folder: Path, provider: OpenIdProvider, capsys: Shown
) -> None:
    gone = f'[issuers.gone]\nissuer = "http://127.0.0.1:{free_port()}"\n'
    text = f'{gone}audience = "x"\n{issuer_table(provider)}'
    Path("issuers.toml").write_text(text)
    status, said = check(capsys, "--token-file", "token")
    assert (status, checks(said, "error")) == (1, ["issuers.discovery"])
    assert said["findings"][0]["concerns"] == "issuers.gone"
    assert said["facts"]["subject"] == "b7"
    status, said = check(capsys, "--name", "keycloak")
    assert (status, said["facts"]) == (0, None)
    assert provider.asked.count(CONFIGURATION) == 2


def test_token_is_held_against_its_own_issuer_alone(
    folder: Path, provider: OpenIdProvider, capsys: Shown
) -> None:
    other = issuer_table(provider, "other").replace(provider.issuer, "https://a.test")
    other += f'jwks_url = "{provider.issuer}/jwks"\n'
    Path("issuers.toml").write_text(other + issuer_table(provider))
    status, said = check(capsys, "--token-file", "token")
    assert (status, said["facts"]["issuer"]) == (0, "keycloak")
    assert checks(said, "ok").count("issuers.keys") == 2
    assert checks(said, "ok").count("issuers.token") == 1


def test_token_of_another_issuer_is_an_error(
    folder: Path, provider: OpenIdProvider, capsys: Shown
) -> None:
    other = issuer_table(provider).replace(provider.issuer, f"{provider.issuer}/a")
    Path("issuers.toml").write_text(f'{other}jwks_url = "{provider.issuer}/jwks"\n')
    status, said = check(capsys, "--token-file", "token")
    assert (status, checks(said, "error")) == (1, ["issuers.token"])
    assert "issuer_mismatch: issuers.keycloak.issuer has the same host" in (
        said["findings"][-1]["found"]
    )
    assert said["facts"] is None


def test_authority_of_the_issuer_can_be_named(folder: Path, capsys: Shown) -> None:
    authority = Authority()
    Path("ca.pem").write_bytes(authority.certificate)
    with openid_provider(KEY, tls=authority.serve("127.0.0.1")) as provider:
        Path("issuers.toml").write_text(issuer_table(provider))
        status, said = check(capsys)
        assert (status, checks(said, "error")) == (1, ["issuers.discovery"])
        assert "--ca-file" in said["findings"][0]["remedy"]
        status, said = check(capsys, "--ca-file", "ca.pem")
    assert (status, checks(said, "ok")[-1]) == (0, "issuers.key")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("missing.toml",), "missing.toml: is not there"),
        (("token",), "token: not TOML"),
        (("issuers.toml", "--name", "keyclaok"), "'keyclaok'; the nearest is keycloak"),
        (("issuers.toml", "--token-file", "none"), "--token-file: none is not there"),
        (("issuers.toml", "--ca-file", "none"), "--ca-file: "),
    ],
)
def test_what_cannot_be_used_is_named(
    folder: Path,
    provider: OpenIdProvider,
    capsys: Shown,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    assert main(["issuers", "check", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert main(["issuers", "check", *arguments, "--json"]) == 2
    assert message in json.loads(capsys.readouterr().out)["error"]
    assert provider.asked == []


def test_check_of_the_verifier_asks_the_issuers_too(
    folder: Path,
    provider: OpenIdProvider,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Shown,
) -> None:
    Path("policies.toml").write_text('[policies.a]\nissuers = ["keycloak"]\n')
    env = {
        **os.environ,
        "VERIFIER_ISSUER_URL": ISSUER,
        "VERIFIER_AUDIENCE": AUDIENCE,
        "VERIFIER_FEED_TOKEN": FEED_TOKEN,
        "VERIFIER_JWKS_URL": f"{provider.issuer}/none",
        "VERIFIER_FEED_URL": f"{provider.issuer}/none",
        "VERIFIER_BIND": f"127.0.0.1:{free_port()}",
        "VERIFIER_ADMIN_BIND": f"127.0.0.1:{free_port()}",
        "VERIFIER_POLICY_FILE": "policies.toml",
        "VERIFIER_ISSUERS_FILE": "issuers.toml",
    }
    desk = CheckDesk(main, env, monkeypatch, capsys)
    shown = desk.check()
    listed = f"issuer keycloak: {provider.issuer}, accepted by a"
    assert listed in [one["found"] for one in shown.findings]
    assert shown.levels("issuers.keys") == ["ok"]
    assert shown.levels("issuers.key") == []
    provider.answers["/jwks"] = (200, b"{}")
    assert desk.check().levels("issuers.keys") == ["error"]
    assert desk.check("--offline").levels("issuers.keys") == []
    # Each fault is reported once, by the check of files or of settings.
    assert desk.check(VERIFIER_CA_FILE="none").levels("issuers.discovery") == []
    Path("issuers.toml").write_text("[issuers.keycloak]")
    found = desk.check()
    assert found.levels("issuers.keys") == []
    assert "VERIFIER_ISSUERS_FILE: issuers.keycloak.issuer: is missing" in (
        found.bad()["settings"]
    )
