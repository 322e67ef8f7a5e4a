"""`python -m verifier policy explain` by a policy file (R66)."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.tokens import ISSUER, good_claims, make_token, signing_key
from verifier.commands.main import main

POLICIES = """
[policies.orders]
[[policies.orders.rules]]
path = "/orders/*"
methods = ["GET"]
required_scopes = ["orders:read"]
[[policies.orders.rules]]
path = "/assets/**"
public = true
[policies.office]
audience = "office"
[policies.shop]
preflight = "allow"
[policies.trial]
mode = "shadow"
required_roles = ["chief"]
"""
Shown = pytest.CaptureFixture[str]


class Command:
    """Runs the command in a folder with a policy file, keys and a token.

    Attributes:
        token: in the file `token`.
    """

    def __init__(self, folder: Path, capsys: Shown) -> None:
        self._folder = folder
        self._capsys = capsys
        self.token = ""
        (folder / "p.toml").write_text(POLICIES)
        jwks = {"keys": [signing_key().jwk.to_wire()]}
        (folder / "jwks").write_text(json.dumps(jwks))
        self.write_token()

    def write_token(self, key: str = "first", **changes: Any) -> None:
        claims = good_claims(int(time.time()), sub="hush-hush", **changes)
        header = {"alg": "RS256", "typ": "at+jwt", "kid": signing_key().kid}
        made = make_token(claims, key=signing_key(key), header=header)
        self.token = made.decode()
        (self._folder / "token").write_text(f"{self.token}\n")

    def text(self, *arguments: str) -> tuple[int, str]:
        """Return status and output, standard output and error together."""
        placed = [
            str(self._folder / a) if a in ("p.toml", "jwks", "token", "none") else a
            for a in arguments
        ]
        status = main(["policy", "explain", *placed])
        shown = self._capsys.readouterr()
        assert self.token not in shown.out + shown.err
        return status, shown.out + shown.err

    def explain(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        status, text = self.text("p.toml", *arguments, "--json")
        said: dict[str, Any] = json.loads(text)
        return status, said

    def read(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Explain with the token, as `GET /orders/7` of the policy `orders`."""
        order = ("--policy", "orders", "--path", "/orders/7", "--token-file", "token")
        return self.explain(*order, *arguments)


@pytest.fixture
def command(tmp_path: Path, capsys: Shown) -> Command:
    return Command(tmp_path, capsys)


def outcomes(said: dict[str, Any]) -> dict[str, str]:
    return {row["check"]: row["outcome"] for row in said["checks"]}


NEVER_KNOWN = {"gate", "peer", "keys_age", "revocations_age", "revocation"}


def unknown(said: dict[str, Any]) -> set[str]:
    return {name for name, outcome in outcomes(said).items() if outcome[:5] == "not_c"}


def test_good_token_passes_with_the_keys(command: Command) -> None:
    status, said = command.read("--jwks", "jwks")
    assert (status, said["decision"], said["signature_checked"]) == (0, "allow", True)
    assert unknown(said) == NEVER_KNOWN | {"token_issuer", "token_audience"}
    assert said["rule"]["path"] == "/orders/*"
    assert said["kid"] == signing_key().kid
    assert said["claims"]["sub"] == "hush-hush"
    named = ("--issuer", ISSUER, "--audience", "api")
    assert unknown(command.read("--jwks", "jwks", *named)[1]) == NEVER_KNOWN


def test_forged_token_is_refused_with_the_keys_only(command: Command) -> None:
    command.write_token(key="second")
    status, said = command.read("--jwks", "jwks")
    assert (status, said["reason"]) == (1, "signature_invalid")
    status, said = command.read()
    assert (status, said["decision"], said["signature_checked"]) == (3, "allow", False)


def test_without_keys_nothing_of_the_token_is_shown(command: Command) -> None:
    """R35: it may be anybody's."""
    status, said = command.read()
    assert status == 3
    assert unknown(said) >= {"token_key", "token_signature"}
    assert outcomes(said)["rule_scopes"] == "passed"
    assert "hush-hush" not in str(said)
    assert said["kid"] == ""


def test_audience_that_the_file_names_is_checked(command: Command) -> None:
    command.write_token(aud=["api", "office"])
    status, said = command.read("--policy", "office", "--jwks", "jwks")
    assert status == 0
    assert outcomes(said)["token_audience"] == "passed"
    assert outcomes(said)["token_issuer"] == "not_checked"


@pytest.mark.parametrize("keys", [(), ("--jwks", "jwks")], ids=["no-keys", "keys"])
@pytest.mark.parametrize(
    ("changes", "arguments", "reason"),
    [
        ({"exp": 1}, (), "expired"),
        ({"jti": None}, (), "claim_missing"),
        ({"scope": ""}, (), "scope_insufficient"),
        ({}, ("--issuer", "https://other.test"), "issuer_mismatch"),
        ({}, ("--audience", "other"), "audience_mismatch"),
        ({}, ("--policy", "office"), "audience_mismatch"),
        ({"aud": "office"}, ("--policy", "office", "--audience", "api"), ""),
        ({"aud": ["api", "x"]}, (), ""),
        ({}, ("--method", "PUT"), "rule_missing"),
        ({}, ("--path", "/orders/../x"), "path_ambiguous"),
        ({}, ("--policy", "none"), "policy_unknown"),
    ],
)
def test_reason_is_that_of_the_gate(
    command: Command,
    changes: dict[str, Any],
    arguments: tuple[str, ...],
    reason: str,
    keys: tuple[str, ...],
) -> None:
    command.write_token(**changes)
    status, said = command.read(*arguments, *keys)
    assert said["reason"] == reason
    assert status == (1 if reason else 0 if keys else 3)


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("x", "token_malformed"),
        ("a.b.c", "token_malformed"),
        ("e30.e30.e30", "alg_not_allowed"),
        ("x" * 10_000, "token_too_large"),
        ("zwölf", "credential_malformed"),
        ("a b", "credential_malformed"),
    ],
)
def test_what_is_no_token_is_refused_as_by_the_gate(
    command: Command, tmp_path: Path, token: str, reason: str
) -> None:
    (tmp_path / "token").write_text(token)
    status, said = command.read()
    assert (status, said["reason"]) == (1, reason)


@pytest.mark.parametrize("form", ["Bearer {}", '{{"access_token": "{}"}}'])
def test_token_file_with_more_than_the_token_is_refused(
    command: Command, tmp_path: Path, form: str
) -> None:
    (tmp_path / "token").write_text(form.format(command.token))
    status, text = command.text("p.toml", "--token-file", "token")
    assert status == 2
    assert text == "--token-file: must have the token alone, no header or JSON\n"


def test_requests_without_a_token(command: Command) -> None:
    status, said = command.explain("--policy", "orders", "--path", "/assets/x")
    assert (status, said["auth_decision"]) == (0, "allow-anonymous")
    status, said = command.explain("--policy", "orders", "--path", "/orders/7")
    assert (status, said["reason"]) == (1, "credential_missing")
    origin = ("--header", "Origin: https://a.test", "--method", "OPTIONS")
    asks = ("--header", "Access-Control-Request-Method: PUT")
    status, said = command.explain("--policy", "shop", *origin, *asks)
    assert (status, said["auth_decision"]) == (0, "allow-anonymous")


def test_file_that_no_verifier_takes_explains_nothing(
    command: Command, tmp_path: Path
) -> None:
    """An empty file was explained by `default`, which asks for a good token alone."""
    (tmp_path / "none").write_text(" \n")
    status, text = command.text("none", "--token-file", "token", "--policy", "default")
    assert status == 2
    assert "the file is empty" in text


def test_token_comes_from_standard_input(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"  {command.token}\n"))
    status, said = command.explain("--token-file", "-", "--jwks", "jwks")
    assert (status, said["decision"]) == (0, "allow")


def test_text_is_a_table_of_the_checks(command: Command) -> None:
    command.write_token(scope="")
    order = ("--policy", "orders", "--path", "/orders/7", "--token-file", "token")
    status, text = command.text("p.toml", *order)
    assert status == 1
    lines = text.splitlines()
    assert lines[0] == "deny: 403, scope_insufficient"
    assert lines[1].startswith("meaning: The token lacks a scope")
    assert lines[2].startswith("not verified: ")
    assert lines[3] == "policy: orders, rule 1: GET /orders/*"
    assert lines[4] == "issuer: own"
    assert lines[5].startswith("client sees: WWW-Authenticate: Bearer realm=")
    rows = [line.split() for line in lines if not line.endswith(":")]
    assert ["token_signature", "not_checked"] in rows
    assert ["rule_scopes", "refused", "scope_insufficient"] in rows
    # Checks that were not made are counted.
    assert ["other", "checks", "not_needed", "6;", "--json", "has", "them"] in rows
    assert ["other", "checks", "not_reached", "5;", "--json", "has", "them"] in rows
    assert "rule_roles" not in text


def test_text_says_what_shadow_mode_would_refuse(command: Command) -> None:
    arguments = ("--policy", "trial", "--token-file", "token", "--jwks", "jwks")
    status, text = command.text("p.toml", *arguments)
    assert status == 0
    assert text.startswith("allow-shadow: 200\nshadow mode: it would be refused, role")
    assert f"key: {signing_key().kid}" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "name a policy FILE, or --url"),
        (("p.toml", "--url", "http://127.0.0.1:1"), "verifier, not both"),
        (("none",), "FILE: "),
        (("jwks",), "not TOML"),
        (("p.toml", "--jwks", "none"), "--jwks: "),
        (
            ("p.toml", "--jwks", "token"),
            "--jwks: the JWKS is not strict JSON: not a JSON object",
        ),
        (("p.toml", "--token-file", "none"), "--token-file: "),
        (("p.toml", "--issuer", "x" * 300), "--issuer: must be text"),
        (("p.toml", "--decision-id", "0" * 16), "--decision-id: needs --url"),
        (("p.toml", "--header", "x"), "--header: must be 'NAME: VALUE'"),
        (("p.toml", "--header", "AUTHORIZATION: x"), "--header: a credential"),
        (("p.toml", "--path", "/\udcff"), "the request: must be UTF-8"),
        (("--url", "http://127.0.0.1:1", "--jwks", "jwks"), "--jwks, --issuer"),
        (("--url", "ftp://x"), "--url: must be http://HOST:PORT"),
        (("--url", "http://x:y"), "--url: must be http://HOST:PORT"),
        (("--url", "http://u:s3cret@x"), "--url: must be http://HOST:PORT"),
        (("--url", "http://x/explain"), "without a path"),
        (
            ("--url", "http://x", "--decision-id", "0", "--token-file", "token"),
            "--decision-id: explains a decision that was made",
        ),
    ],
)
def test_unusable_arguments_are_named(
    command: Command, arguments: tuple[str, ...], message: str
) -> None:
    status, text = command.text(*arguments)
    assert status == 2
    assert message in text
    assert "s3cret" not in text
    status, text = command.text(*arguments, "--json")
    assert status == 2
    assert message in json.loads(text)["error"]


@pytest.mark.parametrize("text", ["", " \n", "x" * 70_000])
def test_token_file_without_a_token_is_refused(
    command: Command, tmp_path: Path, text: str
) -> None:
    (tmp_path / "token").write_text(text)
    status, shown = command.text("p.toml", "--token-file", "token")
    assert status == 2
    assert "--token-file: must have 1 to 65536 characters" in shown
