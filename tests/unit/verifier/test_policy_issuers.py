"""The field `issuers` of a policy, and the file that it names issuers of."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from shared.configuration.issuers_file import parse_issuers
from shared.configuration.settings import SettingsError
from tests.support.issuer_simulator import FEED_TOKEN
from tests.support.tokens import AUDIENCE, ISSUER
from verifier.check.policy import Policy, PolicyError, TokenPolicy
from verifier.policies.document import parse_policies
from verifier.policies.other_issuers import terms_of
from verifier.reloading.policy_file import read_policies
from verifier.settings import VerifierSettings

TOKEN = TokenPolicy.own(ISSUER, AUDIENCE)
ISSUERS = """
[issuers.keycloak]
issuer = "https://id.example.com/realms/main"
audience = "orders"
algorithms = ["ES256"]
[issuers.keycloak.claims]
roles = ["realm_access", "roles"]

[issuers.github]
issuer = "https://token.actions.githubusercontent.com"
audience = "https://deploy.example.com"
max_lifetime = 600
"""
OTHERS = [terms_of(other) for other in parse_issuers(ISSUERS).values()]
SENT = 'headers = { X-Auth-Issuer = "iss" }'


def policy(lines: str) -> Policy:
    return parse_policies(f"[policies.a]\n{lines}", TOKEN, OTHERS)["a"]


def names(found: Policy) -> list[str]:
    return [terms.name for terms in found.token.issuers]


def test_policy_accepts_our_own_tokens_alone_by_default() -> None:
    found = policy("")
    assert found.token is not None
    assert found.token.sole == TOKEN.sole
    assert names(policy('issuers = ["own"]')) == ["own"]


def test_policy_accepts_the_issuers_that_it_names() -> None:
    found = policy(f'issuers = ["keycloak", "own"]\n{SENT}')
    assert names(found) == ["own", "keycloak"]
    assert found.token.sole is None
    own, keycloak = found.token.issuers
    assert (own.issuer, own.audience) == (ISSUER, AUDIENCE)
    assert (keycloak.issuer, keycloak.audience) == (
        "https://id.example.com/realms/main",
        "orders",
    )
    assert keycloak.algorithms == {"ES256"}
    assert keycloak.claims is not None
    assert keycloak.claims.roles == ("realm_access", "roles")


def test_policy_of_one_other_issuer_needs_no_header() -> None:
    found = policy('issuers = ["github"]')
    assert names(found) == ["github"]
    assert found.token.sole == OTHERS[1]
    assert found.token.issuers[0].max_lifetime == 600


def test_claim_that_another_issuer_sends_nowhere_else_can_have_a_header() -> None:
    """Its roles are in `realm_access`; `roles` is another claim."""
    found = policy('issuers = ["keycloak"]\nheaders = { X-Auth-Groups = "roles" }')
    assert found.token.headers[0].path == ("roles",)


def test_policies_of_the_same_issuers_share_their_facts() -> None:
    text = f'issuers = ["own", "keycloak"]\n{SENT}\n'
    found = parse_policies(
        f"[policies.a]\n{text}[policies.b]\nrequired_roles = ['x']\n{text}",
        TOKEN,
        OTHERS,
    )
    assert found["a"].token == found["b"].token
    assert found["a"].token != found["default"].token


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            'issuers = ["keyclaok"]',
            'issuers: there is no issuer "keyclaok" in the issuers file; the nearest is '
            "keycloak",
        ),
        ("issuers = []", "issuers: must not be empty; leave it out for our own"),
        ('issuers = "own"', "issuers: must be a list of words"),
        (
            'issuers = ["own", "keycloak"]',
            "headers: a policy of several issuers must send which one it was; add "
            'headers = { X-Auth-Issuer = "iss" }',
        ),
        (
            'issuers = ["own", "keycloak"]\nheaders = { X-Auth-Mail = "email" }',
            "headers: a policy of several issuers",
        ),
        (
            'issuers = ["keycloak"]\n[policies.a.headers]\n'
            'X-Auth-All = ["realm_access", "roles"]',
            "headers.X-Auth-All: this claim is in another header",
        ),
        (
            'issuers = ["keycloak"]\nheaders = { X-Auth-App = "azp" }',
            "headers.X-Auth-App: this claim is in another header",
        ),
        (
            'issuers = ["keycloak"]\naudience = "x"',
            'audience: is that of our own tokens, and issuers does not have "own"',
        ),
    ],
)
def test_wrong_issuers_are_refused_with_the_field(lines: str, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        policy(lines)
    assert str(caught.value).startswith(f"policies.a.{message}")


def test_without_an_issuers_file_the_setting_is_named() -> None:
    with pytest.raises(PolicyError, match="VERIFIER_ISSUERS_FILE, or --issuers"):
        parse_policies('[policies.a]\nissuers = ["keycloak"]', TOKEN)


def settings(folder: Path, issuers: str = ISSUERS) -> VerifierSettings:
    policies = folder / "policies.toml"
    policies.write_text('[policies.a]\nissuers = ["keycloak"]\n')
    file = folder / "issuers.toml"
    file.write_text(issuers)
    return VerifierSettings(
        _env_file=None,
        issuer_url=ISSUER,
        audience=AUDIENCE,
        feed_token=SecretStr(FEED_TOKEN),
        policy_file=str(policies),
        issuers_file=str(file),
    )


def test_issuers_of_the_file_are_known_whether_policies_name_them_or_not(
    tmp_path: Path,
) -> None:
    book = read_policies(settings(tmp_path))
    assert [known.terms.name for known in book.issuers] == ["keycloak", "github"]
    assert names(book.find("a")) == ["keycloak"]
    assert len(book.issuers_digest) == 64


@pytest.mark.parametrize(
    ("issuers", "message"),
    [
        ("[issuers.a]", "VERIFIER_ISSUERS_FILE: issuers.a.issuer: is missing"),
        (
            f'[issuers.a]\nissuer = "{ISSUER}"\naudience = "x"',
            "VERIFIER_ISSUERS_FILE: issuers.a.issuer: is VERIFIER_ISSUER_URL, which "
            'policies name "own"',
        ),
        (
            ISSUERS.replace("[issuers.keycloak", "[issuers.other"),
            'VERIFIER_POLICY_FILE: policies.a.issuers: there is no issuer "keycloak"',
        ),
    ],
)
def test_unusable_issuers_stop_the_start(
    tmp_path: Path, issuers: str, message: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        read_policies(settings(tmp_path, issuers))
    assert message in str(caught.value)


def test_missing_issuers_file_is_named(tmp_path: Path) -> None:
    found = settings(tmp_path)
    (tmp_path / "issuers.toml").unlink()
    with pytest.raises(SettingsError, match=r"VERIFIER_ISSUERS_FILE: .* is not there"):
        read_policies(found)


def test_issuers_file_without_a_policy_file_is_refused() -> None:
    with pytest.raises(ValueError, match="has no effect without VERIFIER_POLICY_FILE"):
        VerifierSettings(
            _env_file=None,
            issuer_url=ISSUER,
            audience=AUDIENCE,
            feed_token=SecretStr(FEED_TOKEN),
            issuers_file="issuers.toml",
        )
