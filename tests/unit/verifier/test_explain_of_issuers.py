"""`python -m verifier policy explain` of tokens of other issuers (R66, R67)."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from shared.jose.algorithms import ALGORITHM_NAMES, canonical_name
from tests.support.jose_keys import jose_key
from tests.support.tokens import ISSUER, good_claims, make_token, signing_key
from verifier.commands.main import main

IDP = "https://id.example.com/realms/main"
ISSUERS = f"""
[issuers.keycloak]
issuer = "{IDP}"
audience = "orders"
algorithms = ["ES256", "PS256", "EdDSA"]
[issuers.keycloak.claims]
roles = ["realm_access", "roles"]
"""
POLICIES = """
[policies.both]
issuers = ["own", "keycloak"]
headers = { X-Auth-Issuer = "iss" }
required_roles = ["clerk"]
[policies.idp]
issuers = ["keycloak"]
"""
Shown = pytest.CaptureFixture[str]


class Folder:
    """A folder with policies, issuers, keys and a token, in which the command runs."""

    def __init__(self, folder: Path, capsys: Shown) -> None:
        self._folder = folder
        self._capsys = capsys
        (folder / "policies.toml").write_text(POLICIES)
        (folder / "issuers.toml").write_text(ISSUERS)
        self.write_token()

    def write_token(self, alg: str = "ES256", **changes: Any) -> None:
        """Write a token of the other issuer, and the keys that verify it."""
        now = int(time.time())
        claims = {"iss": IDP, "aud": "orders", "sub": "hush-hush", "iat": now}
        facts = {"exp": now + 300, "realm_access": {"roles": ["clerk"]}}
        key = jose_key(canonical_name(alg) if alg in ALGORITHM_NAMES else "ES256")
        token = key.token(orjson.dumps(claims | facts | changes), alg=alg, typ="JWT")
        (self._folder / "token").write_bytes(token)
        (self._folder / "jwks").write_bytes(orjson.dumps({"keys": [key.jwk]}))

    def write_own_token(self) -> None:
        """Write a token of our own issuer, and the keys that verify it."""
        claims = good_claims(int(time.time()), roles=["clerk"])
        header = {"alg": "RS256", "typ": "at+jwt", "kid": signing_key().kid}
        token = make_token(claims, key=signing_key(), header=header)
        (self._folder / "token").write_bytes(token)
        jwks = {"keys": [signing_key().jwk.to_wire()]}
        (self._folder / "jwks").write_bytes(orjson.dumps(jwks))

    def run(self, *arguments: str) -> tuple[int, str]:
        named = ("--issuers", "issuers.toml", "--token-file", "token", *arguments)
        status = main(["policy", "explain", "policies.toml", *named])
        shown = self._capsys.readouterr()
        return status, shown.out + shown.err

    def explain(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        status, text = self.run(*arguments, "--json")
        said: dict[str, Any] = json.loads(text)
        return status, said


@pytest.fixture
def folder(tmp_path: Path, capsys: Shown, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.chdir(tmp_path)
    return Folder(tmp_path, capsys)


def outcomes(said: dict[str, Any]) -> dict[str, str]:
    return {row["check"]: row["outcome"] for row in said["checks"]}


@pytest.mark.parametrize("policy", ["both", "idp"])
def test_token_is_held_against_its_own_issuer(folder: Folder, policy: str) -> None:
    status, said = folder.explain("--policy", policy, "--jwks", "jwks")
    assert (status, said["reason"], said["issuer"]) == (0, "", "keycloak")
    assert said["claims"]["iss"] == IDP
    assert said["claims"]["roles"] == ["clerk"]
    assert said["kid"] == jose_key("ES256").jwk["kid"]
    # Issuer and audience stand in the issuers file.
    for check in ("token_issuer", "token_audience", "token_signature"):
        assert outcomes(said)[check] == "passed"


@pytest.mark.parametrize("alg", ["ES256", "PS256", "EdDSA"])
def test_signature_may_have_any_algorithm_of_the_issuer(
    folder: Folder, alg: str
) -> None:
    folder.write_token(alg)
    status, said = folder.explain("--policy", "both")
    assert (status, said["signature_checked"], said["issuer"]) == (3, False, "keycloak")
    assert "claims" not in said
    assert "hush-hush" not in str(said)
    for check in ("token_key", "token_signature"):
        assert outcomes(said)[check] == "not_checked"


def test_text_names_the_issuer(folder: Folder) -> None:
    status, text = folder.run("--policy", "both", "--jwks", "jwks")
    assert status == 0
    assert f"issuer: keycloak, {IDP}\n" in text
    status, text = folder.run("--policy", "both")
    assert "issuer: keycloak\n" in text


def test_own_token_passes_beside_them(folder: Folder) -> None:
    folder.write_own_token()
    named = ("--issuer", ISSUER, "--audience", "api")
    status, said = folder.explain("--policy", "both", "--jwks", "jwks", *named)
    assert (status, said["issuer"]) == (0, "own")
    status, said = folder.explain("--policy", "idp", *named)
    assert (status, said["reason"]) == (1, "alg_not_allowed")


@pytest.mark.parametrize(
    ("changes", "reason", "issuer"),
    [
        ({"iss": f"{IDP}/"}, "issuer_mismatch", ""),
        ({"aud": "billing"}, "audience_mismatch", "keycloak"),
        ({"realm_access": ["clerk"]}, "claims_malformed", "keycloak"),
        ({"realm_access": {"roles": []}}, "role_missing", "keycloak"),
        ({"exp": 4_000_000_000_000}, "claims_malformed", "keycloak"),
        ({"exp": 4_000_000_000}, "lifetime_too_long", "keycloak"),
    ],
)
@pytest.mark.parametrize("keys", [(), ("--jwks", "jwks")], ids=["no-keys", "keys"])
def test_reason_is_that_of_the_gate(
    folder: Folder,
    keys: tuple[str, ...],
    changes: dict[str, Any],
    reason: str,
    issuer: str,
) -> None:
    folder.write_token(**changes)
    named = ("--policy", "both", "--issuer", ISSUER)
    status, said = folder.explain(*named, *keys)
    assert (status, said["reason"], said["issuer"]) == (1, reason, issuer)


@pytest.mark.parametrize("alg", ["none", "HS256"])
def test_unknown_algorithm_is_refused(folder: Folder, alg: str) -> None:
    folder.write_token(alg)
    status, said = folder.explain("--policy", "both")
    assert (status, said["reason"]) == (1, "alg_not_allowed")


def test_key_of_another_issuer_does_not_verify(folder: Folder) -> None:
    """The keys are read by the list of the token's issuer."""
    (Path("jwks")).write_bytes(orjson.dumps({"keys": [signing_key().jwk.to_wire()]}))
    status, text = folder.run("--policy", "both", "--jwks", "jwks")
    assert status == 2
    assert "--jwks: no key for ES256, EdDSA, PS256 can be used" in text


def test_verifier_at_a_url_has_its_own_issuers(folder: Folder, capsys: Shown) -> None:
    asked = ["--url", "http://127.0.0.1:1", "--issuers", "issuers.toml"]
    assert main(["policy", "explain", *asked]) == 2
    assert "--issuers" in capsys.readouterr().err
