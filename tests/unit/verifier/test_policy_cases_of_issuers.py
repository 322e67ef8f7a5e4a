"""`policy check`, `test` and `replay` of files that name other issuers (R66, R67)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shared.configuration.issuers_file import parse_issuers
from shared.jose.algorithms import ALGORITHM_NAMES
from shared.jose.jws import check_signature, parse_compact
from shared.jose.strict_json import read_object
from verifier.check.policy import IssuerTerms
from verifier.commands.main import main
from verifier.policies.other_issuers import terms_of
from verifier.policies.signing.run_tokens import ClaimPathError, TokenMaker

Run = pytest.CaptureFixture[str]
NOW = 1_795_000_000
ISSUERS = """
[issuers.keycloak]
issuer = "https://id.example.com/realms/main"
audience = "orders"
algorithms = ["RS256", "ES384"]
types = ["JWT"]
[issuers.keycloak.claims]
roles = ["realm_access", "roles"]

[issuers.entra]
issuer = "https://login.example.com/tenant/v2.0"
audience = "api://orders"
types = [""]
max_lifetime = 7200
required_claims = ["sub", "exp", "iat", "tid"]
[issuers.entra.claims]
client = "azp"
scopes = "scp"
"""
POLICIES = """
[policies.both]
issuers = ["own", "keycloak"]
headers = { X-Auth-Issuer = "iss" }
required_roles = ["clerk"]
[policies.entra]
issuers = ["entra"]
client_ids = ["shop"]
required_scopes = ["orders.read"]
max_age = 600
"""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "issuers.toml").write_text(ISSUERS)
    (tmp_path / "policies.toml").write_text(POLICIES)
    return tmp_path


def write_case(*lines: str, issuers: str = 'issuers = "issuers.toml"') -> None:
    head = f'policies = "policies.toml"\n{issuers}\n[[cases]]\nname = "a"\n'
    Path("cases.toml").write_text(head + "\n".join(lines))


def decided(capsys: Run) -> str:
    """Return the decision about the only case."""
    assert main(["policy", "test", "cases.toml", "--json"]) in (0, 1)
    (row,) = json.loads(capsys.readouterr().out)["cases"]
    word: str = row["decided"]
    return word


def test_check_names_the_issuers_of_a_policy(files: Path, capsys: Run) -> None:
    assert main(["policy", "check", "policies.toml", "--issuers", "issuers.toml"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "policy default: 0 rules",
        "policy both: 0 rules, issuers own, keycloak",
        "policy entra: 0 rules, issuers entra",
    ]


def test_without_the_issuers_file_the_policy_is_refused(
    files: Path, capsys: Run
) -> None:
    assert main(["policy", "check", "policies.toml"]) == 2
    assert "no issuers file is named (VERIFIER_ISSUERS_FILE, or --issuers)" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "issuers.toml: is not there"),
        ("[issuers.a]", "issuers.toml: issuers.a.issuer: is missing"),
    ],
)
def test_issuers_file_that_cannot_be_used_is_named(
    files: Path, capsys: Run, text: str | None, message: str
) -> None:
    file = files / "issuers.toml"
    file.unlink()
    if text is not None:
        file.write_text(text)
    write_case('expect = "credential_missing"')
    for arguments in (
        ["check", "policies.toml", "--issuers", "issuers.toml"],
        ["test", "cases.toml"],
        ["explain", "policies.toml", "--issuers", "issuers.toml"],
        [
            "replay",
            "new",
            "--against",
            "old",
            "--log",
            "l",
            "--issuers",
            "issuers.toml",
        ],
    ):
        assert main(["policy", *arguments]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (['policy = "both"', 'token = { roles = ["clerk"] }'], "allow"),
        (
            ['policy = "both"', 'issuer = "keycloak"', 'token = { roles = ["clerk"] }'],
            "allow",
        ),
        (
            ['policy = "both"', 'issuer = "keycloak"', 'token = { roles = ["x"] }'],
            "role_missing",
        ),
        (
            [
                *('policy = "both"', 'issuer = "keycloak"'),
                'token = { realm_access = { roles = ["clerk"] } }',
            ],
            "allow",
        ),
        (
            ['policy = "both"', 'issuer = "keycloak"', 'token = { roles = "clerk" }'],
            "claims_malformed",
        ),
        (
            [
                *('policy = "both"', 'issuer = "keycloak"'),
                'token = { iss = "https://id.example.com/realms/main/" }',
            ],
            "issuer_mismatch",
        ),
        (
            ['policy = "both"', 'issuer = "keycloak"', 'token = { aud = "orders2" }'],
            "audience_mismatch",
        ),
        (
            [
                *('policy = "entra"', 'issuer = "entra"'),
                'token = { scope = "orders.read", client_id = "shop" }',
            ],
            "allow",
        ),
        (
            [
                *('policy = "entra"', 'issuer = "entra"'),
                'token = { scp = ["orders.read"], azp = "shop" }',
            ],
            "allow",
        ),
        (
            [
                *('policy = "entra"', 'issuer = "entra"', "age = 700"),
                'token = { scope = "orders.read", client_id = "shop" }',
            ],
            "token_too_old",
        ),
    ],
)
def test_token_of_a_case_has_the_form_of_its_issuer(
    files: Path, capsys: Run, lines: list[str], expected: str
) -> None:
    write_case(*lines, f'expect = "{expected}"')
    assert decided(capsys) == expected


@pytest.mark.parametrize(
    ("policy", "issuer", "expected"),
    [
        ("both", "entra", "issuer_mismatch"),
        # With one issuer its terms count at once, whatever `iss` the token has.
        ("entra", "keycloak", "alg_not_allowed"),
        ("entra", "own", "typ_not_allowed"),
    ],
)
def test_token_of_an_issuer_that_the_policy_does_not_accept_is_refused(
    files: Path, capsys: Run, policy: str, issuer: str, expected: str
) -> None:
    write_case(
        *(f'policy = "{policy}"', f'issuer = "{issuer}"', "token = {}"),
        'expect = "issuer_mismatch"',
    )
    assert decided(capsys) == expected


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ['policy = "entra"', "token = {}", 'expect = "allow"'],
            "a: issuer: policy entra accepts entra only, not own; name an accepted one",
        ),
        (
            ['issuer = "keyclaok"', "token = {}", 'expect = "allow"'],
            "a: issuer: there is no 'keyclaok'; the nearest is keycloak",
        ),
        (
            ['issuer = "own"', 'expect = "credential_missing"'],
            "cases[1].issuer: has no effect without token; write token = {}",
        ),
        (
            [
                *('policy = "both"', 'issuer = "keycloak"', 'expect = "allow"'),
                'token = { realm_access = "x", roles = ["clerk"] }',
            ],
            "a: token.roles: is realm_access.roles, and realm_access is no table",
        ),
    ],
)
def test_case_of_a_wrong_issuer_is_refused(
    files: Path, capsys: Run, lines: list[str], message: str
) -> None:
    write_case(*lines)
    assert main(["policy", "test", "cases.toml"]) == 2
    assert message in capsys.readouterr().err


def test_case_of_another_issuer_needs_the_issuers_file(tmp_path: Path) -> None:
    (tmp_path / "policies.toml").write_text("[policies.default]")
    cases = tmp_path / "cases.toml"
    cases.write_text(
        'policies = "policies.toml"\n[[cases]]\nissuer = "keycloak"\ntoken = {}\n'
        'expect = "issuer_mismatch"'
    )
    assert main(["policy", "test", str(cases)]) == 2


def test_issuers_file_of_the_argument_counts_before_that_of_the_cases(
    files: Path, capsys: Run
) -> None:
    write_case(
        *('policy = "both"', 'issuer = "keycloak"', 'token = { roles = ["clerk"] }'),
        'expect = "allow"',
        issuers='issuers = "missing.toml"',
    )
    assert main(["policy", "test", "cases.toml"]) == 2
    assert "missing.toml: is not there" in capsys.readouterr().err
    assert main(["policy", "test", "cases.toml", "--issuers", "issuers.toml"]) == 0


def test_cases_can_say_what_our_own_issuer_is(files: Path, capsys: Run) -> None:
    """So a policy that asks for it in `claims` can be tested."""
    own = "https://auth.example.com"
    Path("policies.toml").write_text(f'[policies.a]\nclaims = {{ iss = "{own}" }}\n')
    lines = ('policy = "a"', "token = {}", 'expect = "allow"')
    write_case(*lines)
    assert decided(capsys) == "claim_mismatch"
    write_case(*lines, issuers=f'own_issuer = "{own}"')
    assert decided(capsys) == "allow"
    write_case(*lines, issuers='own_issuer = ""')
    assert main(["policy", "test", "cases.toml"]) == 2
    assert "own_issuer: must be text" in capsys.readouterr().err


def terms_in(text: str, name: str) -> IssuerTerms:
    return terms_of(parse_issuers(text)[name])


@pytest.mark.parametrize("alg", sorted(ALGORITHM_NAMES))
def test_token_is_signed_by_a_key_of_the_algorithm(alg: str) -> None:
    text = ISSUERS.replace('["RS256", "ES384"]', f'["{alg}"]')
    terms = terms_in(text, "keycloak")
    maker = TokenMaker(terms)
    token = maker.make(terms, {}, issued_at=NOW, now=NOW, auth_time=NOW)
    jws = parse_compact(token.encode())
    assert jws.unverified_header["alg"] == alg
    check_signature(jws, maker.keys.find(str(jws.unverified_header["kid"])))


def payload(terms: IssuerTerms, **claims: object) -> dict[str, object]:
    token = TokenMaker(terms).make(
        terms, claims, issued_at=NOW - 10, now=NOW, auth_time=NOW - 60
    )
    return read_object(parse_compact(token.encode()).unverified_payload)


def test_facts_stand_where_the_issuer_has_them() -> None:
    found = payload(
        terms_in(ISSUERS, "entra"),
        scope="a b",
        client_id="shop",
        username="ada",
        oid="7",
    )
    assert found == {
        "iss": "https://login.example.com/tenant/v2.0",
        "aud": "api://orders",
        "sub": "user",
        "iat": NOW - 10,
        "exp": NOW + 600,
        "auth_time": NOW - 60,
        "azp": "shop",
        "scp": "a b",
        "roles": [],
        "sid": "session",
        "preferred_username": "ada",
        "oid": "7",
        "tid": "required",
    }


def test_no_token_of_a_case_outlives_the_longest_lifetime() -> None:
    text = ISSUERS.replace("max_lifetime = 7200", "max_lifetime = 60")
    terms = terms_in(text, "entra")
    assert payload(terms)["exp"] == NOW - 10 + 60


def test_fact_that_cannot_stand_at_its_path_is_refused() -> None:
    terms = terms_in(ISSUERS, "keycloak")
    with pytest.raises(ClaimPathError, match="realm_access is no table"):
        payload(terms, realm_access=[], roles=["x"])


def replayed(capsys: Run, *lines: dict[str, object]) -> dict[str, object]:
    Path("log").write_text("\n".join(map(json.dumps, lines)))
    Path("old.toml").write_text(POLICIES)
    act = ["replay", "policies.toml", "--against", "old.toml", "--log", "log"]
    main(["policy", *act, "--issuers", "issuers.toml", "--json"])
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def logged(gate: int, decision: str = "", **members: str) -> dict[str, object]:
    request = {"policy": "entra", "method": "GET", "uri": "/x", "gate": gate}
    identity = {"decision": decision, "client": "", "scope": "", "roles": ""}
    return request | identity | members


def test_replay_takes_the_issuers_file_for_both_files(files: Path, capsys: Run) -> None:
    good = logged(200, "allow", client="shop", scope="orders.read")
    found = replayed(capsys, good, logged(403))
    assert (found["requests"], found["cannot_tell"]) == (2, 0)


def test_no_allow_of_another_issuer_is_stale(files: Path, capsys: Run) -> None:
    """No feed names its tokens, so no list can be too old for them."""
    Path("policies.toml").write_text(f"{POLICIES}on_stale = 'allow'\n")
    found = replayed(capsys, logged(503))
    assert (found["newly_allowed"], found["cannot_tell"]) == (0, 0)
