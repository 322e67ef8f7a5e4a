"""What `issuers check` says about the keys of another issuer, and about a token."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from shared.checking.findings import Finding, Findings, Level
from shared.configuration.issuers_file import parse_issuers
from shared.jose.algorithms import ALGORITHM_NAMES
from shared.jose.verification_keys import read_keys
from shared.outgoing.failures import FailureKind
from tests.support.jose_keys import JoseKey, jose_key
from tests.support.openid_provider import CONFIGURATION, OpenIdProvider
from verifier.check.denials import DenyReason
from verifier.check.policy import KnownIssuer
from verifier.checking.claim_suggestions import spell_path, suggest_paths
from verifier.checking.other_issuers import check_other_issuer, describe_key
from verifier.checking.sample_token import Facts, check_sample, choose_issuer
from verifier.policies.meanings import MEANINGS
from verifier.policies.other_issuers import terms_of
from verifier.sync.fetch import Fetched, FetchError

NOW = 1_795_000_000
IDP = "https://id.example.com/realms/main"
KEY = jose_key("ES256")


def known(*lines: str, claims: str = "", **fields: str) -> KnownIssuer:
    """Return an issuer of a file with these fields."""
    usual = {
        "issuer": f'"{IDP}"',
        "audience": '"orders"',
        "algorithms": '["ES256", "RS256"]',
    }
    rows = [f"{name} = {value}" for name, value in (usual | fields).items()]
    text = "\n".join(["[issuers.keycloak]", *rows, *lines])
    other = parse_issuers(f"{text}\n[issuers.keycloak.claims]\n{claims}")["keycloak"]
    return KnownIssuer(terms_of(other), other.jwks_url)


def check(
    provider: OpenIdProvider, issuer: KnownIssuer | None = None, **options: bool
) -> list[Finding]:
    findings = Findings()
    asked = check_other_issuer(issuer or known(), provider.fetch, findings, **options)
    found = asyncio.run(asked)
    has_error = any(one.level is Level.ERROR for one in findings)
    assert (found is None) is has_error
    return list(findings)


def lines(findings: list[Finding]) -> list[str]:
    return [f"{one.level} {one.check}: {one.found}" for one in findings]


def test_good_issuer_is_described_key_by_key() -> None:
    provider = OpenIdProvider(IDP, KEY, jose_key("RS256"))
    provider.jwks.append({**jose_key("RS384").jwk, "use": "enc"})
    assert lines(check(provider)) == [
        f"ok issuers.discovery: {IDP}/.well-known/openid-configuration names {IDP}/jwks",
        f"ok issuers.keys: {IDP}/jwks has 2 usable keys; 1 key for encryption left out",
        "ok issuers.key: key key-ES256: ES256, P-256",
        "ok issuers.key: key key-RS256: RS256, 2048 bits",
    ]
    assert provider.asked == [CONFIGURATION, "/jwks"]
    brief = lines(check(provider, is_brief=True))
    assert [line.split(":")[0] for line in brief] == [
        "ok issuers.discovery",
        "ok issuers.keys",
    ]


def test_jwks_that_the_file_names_needs_no_discovery() -> None:
    provider = OpenIdProvider(IDP)
    check(provider, known(jwks_url=f'"{IDP}/jwks"'))
    assert provider.asked == ["/jwks"]


def test_key_that_cannot_be_used_is_named_with_the_reason() -> None:
    provider = OpenIdProvider(IDP, KEY, jose_key("PS256"))
    *_, finding = check(provider)
    assert finding.level is Level.WARNING
    assert finding.concerns == "issuers.keycloak"
    assert finding.found == (
        "key key-PS256 cannot be used: alg: must be one of ES256, RS256"
    )
    assert finding.remedy
    assert check(provider, is_brief=True)[-1] == finding


@pytest.mark.parametrize(
    ("announced", "expected"),
    [
        (["ES256", "RS256"], None),
        (["RS256"], None),
        (["RS256", "none", "HS256"], None),
        (
            ["RS256", "PS256"],
            "ok issuers.algorithms: the document says that ID tokens are signed with "
            "PS256, RS256, and algorithms lists ES256, RS256",
        ),
        (
            ["PS256"],
            "warning issuers.algorithms: the document says that ID tokens are signed "
            "with PS256, and algorithms lists ES256, RS256",
        ),
    ],
)
def test_algorithms_of_the_document_are_compared(
    announced: list[str], expected: str | None
) -> None:
    provider = OpenIdProvider(IDP)
    provider.members["id_token_signing_alg_values_supported"] = announced
    found = [line for line in lines(check(provider)) if "algorithms" in line]
    assert found == ([] if expected is None else [expected])
    brief = lines(check(provider, is_brief=True))
    assert len([line for line in brief if "algorithms" in line]) == (
        announced == ["PS256"]
    )


def test_old_name_of_ed25519_is_no_difference() -> None:
    provider = OpenIdProvider(IDP, jose_key("Ed25519"))
    provider.members["id_token_signing_alg_values_supported"] = ["EdDSA"]
    found = lines(check(provider, known(algorithms='["Ed25519"]')))
    assert found[-1] == "ok issuers.key: key key-Ed25519: Ed25519"
    assert len(found) == 3


@pytest.mark.parametrize(
    ("path", "answer", "check_name", "shown", "remedy"),
    [
        (
            CONFIGURATION,
            (404, b"no realm"),
            "issuers.discovery",
            "the server refused: status 404: no realm",
            "without such a document set jwks_url",
        ),
        (
            CONFIGURATION,
            (302, b""),
            "issuers.discovery",
            "the answer is a redirect",
            "no redirect is followed",
        ),
        (
            CONFIGURATION,
            (200, orjson.dumps({"issuer": f"{IDP}/", "jwks_uri": f"{IDP}/jwks"})),
            "issuers.discovery",
            "they differ in the slash at the end",
            "write `issuer` exactly as the tokens have it",
        ),
        (
            "/jwks",
            (503, b"later"),
            "issuers.keys",
            "status 503: later",
            "name the URL of the issuer's JWKS in jwks_url",
        ),
        (
            "/jwks",
            (200, b"<html>"),
            "issuers.keys",
            "the JWKS is not strict JSON",
            "list the algorithm",
        ),
        (
            "/jwks",
            (200, orjson.dumps({"keys": [jose_key("PS384").jwk]})),
            "issuers.keys",
            "no key for ES256, RS256 can be used; key-PS384: alg: must be one of",
            "list the algorithm",
        ),
    ],
)
def test_what_keeps_the_keys_from_being_found_is_explained(
    path: str, answer: tuple[int, bytes], check_name: str, shown: str, remedy: str
) -> None:
    provider = OpenIdProvider(IDP)
    provider.answers[path] = answer
    finding = check(provider)[-1]
    assert (finding.level, finding.check) == (Level.ERROR, check_name)
    assert finding.found.startswith(f"{IDP}{path}: ")
    assert shown in finding.found
    assert remedy in finding.remedy


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        (FailureKind.REFUSED, "see that the issuer runs"),
        (FailureKind.UNKNOWN_AUTHORITY, "--ca-file"),
    ],
)
@pytest.mark.parametrize("jwks_url", ["", f"{IDP}/jwks"], ids=["found", "named"])
def test_issuer_that_does_not_answer_is_reported(
    kind: FailureKind, remedy: str, jwks_url: str
) -> None:
    async def fail(url: str, *_arguments: object) -> Fetched:
        raise FetchError("no answer", kind, url=url)

    findings = Findings()
    issuer = known(jwks_url=f'"{jwks_url}"')
    assert asyncio.run(check_other_issuer(issuer, fail, findings)) is None
    (finding,) = findings
    assert remedy in finding.remedy


@pytest.mark.parametrize("alg", sorted(ALGORITHM_NAMES - {"EdDSA"}))
def test_key_of_every_algorithm_is_described(alg: str) -> None:
    shown = describe_key(jose_key(alg).public())
    assert shown.startswith(f"key key-{alg}: {alg}")
    assert ("bits" in shown) is (alg[:2] in ("RS", "PS"))


CLAIMS: dict[str, Any] = {
    "iss": IDP,
    "aud": ["orders", "account"],
    "sub": "b7f1",
    "iat": NOW - 10,
    "exp": NOW + 290,
    "azp": "shop",
    "scope": "orders:read openid",
    "realm_access": {"roles": ["clerk", "editor"]},
    "preferred_username": "jane",
    "sid": "s-1",
}
ROLES = 'roles = ["realm_access", "roles"]'


def token(
    key: JoseKey = KEY, header: dict[str, Any] | None = None, **changes: Any
) -> bytes:
    claims = {n: v for n, v in (CLAIMS | changes).items() if v is not ...}
    return key.token(orjson.dumps(claims), **{"typ": "JWT", **(header or {})})


def sample(
    unverified: bytes, issuer: KnownIssuer | None = None, *jwks: dict[str, Any]
) -> tuple[Facts | None, list[Finding]]:
    """Return the facts of a token, and what is said about it."""
    issuer, findings = issuer or known(claims=ROLES), Findings()
    document = orjson.dumps({"keys": list(jwks) or [KEY.jwk]})
    found = read_keys(document, issuer.terms.algorithms)
    facts = check_sample(unverified, issuer.terms, found, NOW, findings)
    assert unverified.split(b".")[2].decode() not in str(list(findings))
    return facts, list(findings)


def test_facts_of_a_good_token_are_shown() -> None:
    facts, findings = sample(token())
    assert facts == Facts(
        issuer="keycloak",
        subject="b7f1",
        client="shop",
        scopes=("orders:read", "openid"),
        roles=("clerk", "editor"),
        user="jane",
        session="s-1",
    )
    assert [(one.level, one.concerns, one.found) for one in findings] == [
        (
            Level.OK,
            "issuers.keycloak",
            "the sample token is good, signed by key-ES256, and expires in 290 s",
        ),
        (Level.OK, "issuers.keycloak.sub", "X-Auth-Subject: b7f1"),
        (Level.OK, "issuers.keycloak.claims.client", "X-Auth-Client: shop"),
        (
            Level.OK,
            "issuers.keycloak.claims.scopes",
            "X-Auth-Scope: orders:read openid",
        ),
        (Level.OK, "issuers.keycloak.claims.roles", "X-Auth-Roles: clerk editor"),
        (Level.OK, "issuers.keycloak.claims.user", "X-Auth-User: jane"),
        (Level.OK, "issuers.keycloak.claims.session", "X-Auth-Session: s-1"),
    ]


def test_empty_claim_is_there() -> None:
    facts, findings = sample(token(realm_access={"roles": []}, scope=""))
    assert facts is not None
    assert (facts.roles, facts.scopes) == ((), ())
    assert "X-Auth-Roles:" in [one.found for one in findings]
    assert {one.level for one in findings} == {Level.OK}


def test_claims_that_the_token_lacks_are_reported_with_likely_ones() -> None:
    facts, findings = sample(token(sid=..., azp=..., appid="shop"), known())
    assert facts is not None
    assert (facts.client, facts.roles, facts.session) == ("", (), "")
    warnings = [
        (one.concerns, one.found, one.remedy)
        for one in findings
        if one.level is Level.WARNING
    ]
    assert warnings == [
        (
            "issuers.keycloak.claims.client",
            "the sample token has nothing at azp",
            'it may be client = "appid"',
        ),
        (
            "issuers.keycloak.claims.roles",
            "the sample token has nothing at roles",
            'it may be roles = ["realm_access", "roles"]',
        ),
        (
            "issuers.keycloak.claims.session",
            "the sample token has nothing at sid",
            "leave it so if tokens for your API do not have one",
        ),
    ]


@pytest.mark.parametrize(
    ("unverified", "reason", "detail"),
    [
        (
            token(aud="billing"),
            "audience_mismatch",
            "aud is billing, and audience is orders",
        ),
        (token(aud=...), "audience_mismatch", "aud is missing"),
        (token(aud=["a", "b"]), "audience_mismatch", "aud is a, b"),
        (
            token(exp=NOW + 9_990),
            "lifetime_too_long",
            "it lives 10000 s, and max_lifetime is 3600",
        ),
        (
            token(exp=NOW * 1_000),
            "claims_malformed",
            "another type or range is expected of exp",
        ),
        (
            token(sub=5, scope=7),
            "claims_malformed",
            "another type or range is expected of sub, scope (claims.scopes)",
        ),
        (
            token(realm_access=["clerk"]),
            "claims_malformed",
            "another type or range is expected of realm_access.roles (claims.roles)",
        ),
        (token(sub=...), "claim_missing", "it has no sub"),
        (KEY.token(b"[]", typ="JWT"), "claims_malformed", "its payload is no strict"),
        (
            token(header={"typ": "dpop+jwt"}),
            "typ_not_allowed",
            "header has typ dpop+jwt",
        ),
        (
            token(header={"typ": ...}),
            "typ_not_allowed",
            "its header has no typ, and types lists at+jwt, jwt",
        ),
        (
            token(header={"alg": "HS256"}),
            "alg_not_allowed",
            "its header has alg HS256, and algorithms lists ES256",
        ),
        (
            token(header={"alg": "\x1b[2J"}),
            "alg_not_allowed",
            "its header has no usable alg",
        ),
        (
            token(header={"kid": "other"}),
            "kid_unknown",
            "the usable keys are key-ES256",
        ),
        (token()[:-4] + b"AAAA", "signature_invalid", ""),
        (token()[:-1], "token_malformed", ""),
    ],
)
def test_refusal_has_the_word_of_the_gate_and_what_does_not_fit(
    unverified: bytes, reason: str, detail: str
) -> None:
    facts, (finding,) = sample(unverified)
    assert facts is None
    assert finding.level is Level.ERROR
    assert finding.found.startswith(f"the sample token is refused, {reason}")
    assert detail in finding.found
    assert finding.remedy == MEANINGS[DenyReason(reason)]


def test_key_of_the_token_that_cannot_be_used_is_explained() -> None:
    weak = {"kty": "RSA", "kid": "weak", "n": "AQAB", "e": "AQAB", "alg": "RS256"}
    jwks = (KEY.jwk, {**weak, "kid": "older"}, weak)
    _, (finding,) = sample(token(header={"kid": "weak"}), None, *jwks)
    assert "kid_unknown: its key weak cannot be used: n: must be odd" in finding.found


@pytest.mark.parametrize(
    ("changes", "reason", "detail"),
    [
        ({"iat": NOW - 300, "exp": NOW - 50}, "expired", "it ended 50 s ago"),
        ({"nbf": NOW + 60}, "not_yet_valid", "it begins in 60 s"),
    ],
)
def test_facts_of_a_token_of_another_time_are_shown_all_the_same(
    changes: dict[str, int], reason: str, detail: str
) -> None:
    facts, findings = sample(token(**changes))
    assert facts is not None
    assert findings[0].found == f"the sample token is refused, {reason}: {detail}"
    assert {one.level for one in findings[1:]} == {Level.OK}


@pytest.mark.parametrize(
    ("iss", "detail"),
    [
        (f"{IDP}/", "issuers.keycloak.issuer has no slash at its end"),
        (IDP.replace("main", "Main"), "issuers.keycloak.issuer differs in upper and"),
        ("https://id.example.com/realms/x", "has the same host and another path"),
        ("http://id.example.com/realms/main", "has the same host and another scheme"),
        ("https://other.example.com", "none is similar"),
        ("https://[", "none is similar"),
        (..., "it has no iss"),
    ],
)
def test_token_of_no_issuer_of_the_file_is_compared_with_them(
    iss: object, detail: str
) -> None:
    findings = Findings()
    assert choose_issuer(token(iss=iss), [known()], findings) is None
    (finding,) = findings
    assert finding.found.startswith("the sample token is refused, issuer_mismatch: ")
    assert detail in finding.found


def test_slash_that_only_the_file_has_is_noticed() -> None:
    findings = Findings()
    issuer = known(issuer=f'"{IDP}/"')
    assert choose_issuer(token(), [issuer], findings) is None
    (finding,) = findings
    assert "issuers.keycloak.issuer has a slash at its end" in finding.found


def test_token_chooses_its_issuer() -> None:
    other = known(issuer='"https://other.example.com"')
    findings = Findings()
    assert choose_issuer(token(), [other, known()], findings) == known()
    assert not list(findings)


def test_text_that_is_no_token_chooses_none() -> None:
    findings = Findings()
    assert choose_issuer(b"no token", [known()], findings) is None
    (finding,) = findings
    assert "token_malformed" in finding.found
    assert "no token" not in finding.found


@pytest.mark.parametrize(
    ("fact", "payload", "paths"),
    [
        ("client", {"appid": "a", "cid": "c", "azp": 5}, [("cid",), ("appid",)]),
        ("scopes", {"scp": ["a"], "scope": ""}, [("scp",)]),
        ("scopes", {"scp": "a b"}, [("scp",)]),
        ("roles", {"groups": "staff"}, []),
        (
            "roles",
            {
                "https://example.com/roles": ["x"],
                "resource_access": {"shop": {"roles": ["y"]}, "odd": "z"},
                "groups": [],
            },
            [
                ("groups",),
                ("resource_access", "shop", "roles"),
                ("https://example.com/roles",),
            ],
        ),
        ("roles", {"realm_access": "x", "resource_access": "y"}, []),
        ("user", {"email": "a@example.com"}, [("email",)]),
        ("session", {"session_state": "s"}, [("session_state",)]),
    ],
)
def test_suggested_claims_have_the_type_of_the_fact(
    fact: str, payload: dict[str, Any], paths: list[tuple[str, ...]]
) -> None:
    assert suggest_paths(fact, payload) == paths


def test_path_is_spelt_as_in_the_file() -> None:
    assert spell_path(("azp",)) == '"azp"'
    assert spell_path(("a", 'b"c')) == '["a", "b\\"c"]'
