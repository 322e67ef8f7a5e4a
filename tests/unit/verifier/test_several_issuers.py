"""Tokens of several issuers under one policy (R67).

No setting names another issuer yet: the policy and the trust are made here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from shared.feed import EntryKind, FeedEntry
from tests.support.jose_keys import JoseKey, jose_key
from tests.support.tokens import AUDIENCE, ISSUER, good_claims, make_token, signing_key
from verifier.check.cache import FactCache
from verifier.check.claims import ClaimNames
from verifier.check.decision import Allowed, CheckPaths, Refused, Times, decide
from verifier.check.forward_auth import PlainCheckRequest
from verifier.check.policy import (
    IssuerTerms,
    Policy,
    PolicyBook,
    PolicyError,
    TokenPolicy,
)
from verifier.check.trust import KeySet, Trust, key_set, keys_by_id

NOW = 1_795_000_000
OTHER = "https://id.example.test/realms/main"
KEY, FOREIGN = signing_key(), jose_key("ES256")
TERMS = IssuerTerms(
    OTHER,
    "orders",
    "keycloak",
    frozenset({"ES256"}),
    frozenset({"jwt"}),
    frozenset({"sub", "exp", "iat"}),
    3_600,
    ClaimNames(
        client=("azp",),
        roles=("realm_access", "roles"),
        user=("preferred_username",),
    ),
)
TOKEN = TokenPolicy((IssuerTerms(ISSUER, AUDIENCE), TERMS))
CLAIMS: dict[str, Any] = {
    "iss": OTHER,
    "aud": ["orders", "account"],
    "sub": "b7f1",
    "exp": NOW + 300,
    "iat": NOW,
    "azp": "shop",
    "scope": "orders:read openid",
    "sid": "their-session",
    "realm_access": {"roles": ["clerk"]},
    "preferred_username": "jane@example.test",
}


def foreign(key: JoseKey = FOREIGN, **changes: Any) -> bytes:
    """Return a token of the other issuer; a claim of `...` is left out."""
    claims = {n: v for n, v in (CLAIMS | changes).items() if v is not ...}
    return key.token(orjson.dumps(claims), typ="JWT")


def trust(*, until: float = 10.0, keys: KeySet | None = None) -> Trust:
    """Return the trust in both issuers at boot-time second 0; ours is fresh."""
    made = Trust(ISSUER)
    made.follow([OTHER])
    made.trust_keys(ISSUER, key_set([KEY.jwk]), 10.0)
    made.trust_keys(OTHER, keys or keys_by_id([FOREIGN.public()]), until)
    made.renew(10.0)
    return made


def outcome(
    token: bytes | None,
    *,
    trusted: Trust | None = None,
    policy: TokenPolicy = TOKEN,
    boottime: float = 1.0,
    cache: FactCache | None = None,
) -> Allowed | Refused:
    shown = [] if token is None else [(b"authorization", b"Bearer " + token)]
    request = PlainCheckRequest(b"GET", b"/verify/nginx", shown, peer_is_trusted=True)
    book = PolicyBook({"default": Policy("default", policy)})
    paths = CheckPaths(book, None if cache is None else {policy: cache})
    snapshot = (trusted or trust()).snapshot
    return decide(request, snapshot, paths, Times(NOW, boottime))


def reason(token: bytes | None, **options: Any) -> str:
    found = outcome(token, **options)
    return found.reason.value if isinstance(found, Refused) else "allow"


OWN = make_token(good_claims(NOW))


def test_tokens_of_both_pass_with_the_claims_of_their_issuer() -> None:
    ours, theirs = outcome(OWN), outcome(foreign())
    assert isinstance(ours, Allowed)
    assert isinstance(theirs, Allowed)
    claims = theirs.claims
    assert claims is not None
    assert (claims.iss, claims.sub, claims.client_id) == (OTHER, "b7f1", "shop")
    assert claims.scopes == ("orders:read", "openid")
    assert (claims.roles, claims.sid) == (("clerk",), "their-session")
    assert (claims.username, claims.gen) == ("jane@example.test", 0)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"iss": OTHER + "/"}, "issuer_mismatch", id="slash"),
        pytest.param({"iss": OTHER.upper()}, "issuer_mismatch", id="case"),
        pytest.param({"iss": [OTHER]}, "issuer_mismatch", id="list"),
        pytest.param({"iss": ...}, "issuer_mismatch", id="no-iss"),
        pytest.param({"aud": "account"}, "audience_mismatch", id="audience"),
        pytest.param({"aud": AUDIENCE}, "audience_mismatch", id="our-audience"),
        pytest.param({"exp": NOW * 1_000}, "claims_malformed", id="milliseconds"),
        pytest.param({"exp": NOW + 3_601}, "lifetime_too_long", id="lifetime"),
        pytest.param({"exp": NOW - 5}, "expired", id="expired"),
        pytest.param({"exp": ...}, "claim_missing", id="no-exp"),
        pytest.param({"iat": ...}, "claim_missing", id="no-iat"),
        pytest.param({"sub": ...}, "claim_missing", id="no-sub"),
        pytest.param({"realm_access": {"roles": "a"}}, "claims_malformed", id="roles"),
        pytest.param({"realm_access": {"roles": [1]}}, "claims_malformed", id="number"),
        pytest.param({"realm_access": "admin"}, "claims_malformed", id="no-object"),
        pytest.param({"scope": 7}, "claims_malformed", id="scope"),
        pytest.param({"azp": ["shop"]}, "claims_malformed", id="client"),
        pytest.param({"sid": {}}, "claims_malformed", id="session"),
        pytest.param({"preferred_username": "a\nb"}, "claims_malformed", id="user"),
    ],
)
def test_a_token_that_breaks_its_issuers_terms_is_refused(
    changes: dict[str, Any], expected: str
) -> None:
    assert reason(foreign(**changes)) == expected


@pytest.mark.parametrize("payload", [b"", b"x", b"[]", b'{"iss":1,"iss":2}'])
def test_a_payload_that_names_no_issuer_is_of_none(payload: bytes) -> None:
    assert reason(FOREIGN.token(payload, typ="JWT")) == "issuer_mismatch"


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"realm_access": ...}, id="no-roles"),
        pytest.param({"realm_access": {}}, id="no-list"),
        pytest.param({"scope": ["a", "b"]}, id="scopes-as-a-list"),
        pytest.param({"scope": ..., "azp": ..., "sid": ...}, id="nothing-more"),
    ],
)
def test_what_the_terms_leave_open_may_be_absent(changes: dict[str, Any]) -> None:
    assert reason(foreign(**changes)) == "allow"


def test_a_key_of_one_issuer_signs_nothing_for_the_other() -> None:
    """Also when both sets have a key of that id."""
    theirs = jose_key("RS256", "theirs")
    shared_id = replace(theirs.public(), kid=KEY.kid)
    terms = replace(TERMS, algorithms=frozenset({"RS256"}))
    policy = TokenPolicy((TOKEN.issuers[0], terms))
    both = trust(keys=keys_by_id([shared_id]))
    forged = theirs.token(orjson.dumps(good_claims(NOW)), typ="at+jwt", kid=KEY.kid)
    assert reason(forged, trusted=both, policy=policy) == "signature_invalid"
    ours_as_theirs = make_token(
        CLAIMS, header={"alg": "RS256", "typ": "JWT", "kid": KEY.kid}
    )
    assert reason(ours_as_theirs, trusted=both, policy=policy) == "signature_invalid"


def test_a_key_is_looked_for_among_those_of_the_tokens_issuer_only() -> None:
    terms = replace(TERMS, algorithms=frozenset({"RS256"}))
    policy = TokenPolicy((TOKEN.issuers[0], terms))
    named = make_token(CLAIMS, header={"alg": "RS256", "typ": "JWT", "kid": KEY.kid})
    assert reason(named, policy=policy) == "kid_unknown"


def test_algorithm_and_type_are_those_of_the_tokens_issuer() -> None:
    rs256 = jose_key("RS256").token(orjson.dumps(CLAIMS), typ="JWT")
    assert reason(rs256) == "alg_not_allowed"
    es256 = FOREIGN.token(orjson.dumps(good_claims(NOW)), typ="at+jwt")
    assert reason(es256) == "alg_not_allowed"
    assert (
        reason(FOREIGN.token(orjson.dumps(CLAIMS), typ="at+jwt")) == "typ_not_allowed"
    )
    assert (
        reason(
            make_token(
                good_claims(NOW),
                header={
                    "alg": "RS256",
                    "typ": "JWT",
                    "kid": KEY.kid,
                },
            )
        )
        == "typ_not_allowed"
    )


@pytest.mark.parametrize("cache", [None, FactCache(max_entries=10, max_bytes=1 << 20)])
def test_keys_of_one_issuer_that_are_too_old_concern_its_tokens_only(
    cache: FactCache | None,
) -> None:
    trusted = trust(until=5.0)
    for token in (OWN, foreign()):
        assert reason(token, trusted=trusted, cache=cache) == "allow"
    assert reason(foreign(), trusted=trusted, boottime=5.0, cache=cache) == "no_keys"
    assert reason(OWN, trusted=trusted, boottime=5.0, cache=cache) == "allow"


def test_a_list_of_ours_that_is_too_old_concerns_our_tokens_only() -> None:
    trusted = trust(until=100.0)
    trusted.trust_keys(ISSUER, key_set([KEY.jwk]), 100.0)
    assert reason(OWN, trusted=trusted, boottime=20.0) == "stale"
    assert reason(foreign(), trusted=trusted, boottime=20.0) == "allow"


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        (EntryKind.USER, "b7f1"),
        (EntryKind.CLIENT, "b7f1"),
        (EntryKind.SID, "their-session"),
        (EntryKind.JTI, "their-token"),
        (EntryKind.KID, FOREIGN.jwk["kid"]),
    ],
)
def test_our_revocations_concern_no_token_of_another_issuer(
    kind: EntryKind, key: str
) -> None:
    """Its users, sessions and tokens may have the ids of ours by chance."""
    trusted = trust()
    token = foreign(jti="their-token", azp="b7f1", gen=0)
    cache = FactCache(max_entries=10, max_bytes=1 << 20)
    assert reason(token, trusted=trusted, cache=cache) == "allow"
    trusted.enforce([FeedEntry(1, kind, key, 1, NOW + 600)])
    assert reason(token, trusted=trusted, cache=cache) == "allow"
    ours = good_claims(NOW, sub="b7f1", client_id="b7f1")
    ours |= {"sid": "their-session", "jti": "their-token"}
    if kind is not EntryKind.KID:
        refused = reason(make_token(ours), trusted=trusted, cache=cache)
        assert refused == f"revoked_{kind.value}"


def test_a_generation_in_a_token_of_another_issuer_says_nothing() -> None:
    passed = outcome(foreign(gen=99))
    assert isinstance(passed, Allowed)
    assert passed.claims is not None
    assert passed.claims.gen == 0


@pytest.mark.parametrize("alg", ["none", "HS256", "RS257", "rs256", ""])
def test_terms_name_no_algorithm_that_does_not_exist(alg: str) -> None:
    with pytest.raises(PolicyError, match="algorithms: no such"):
        replace(TERMS, algorithms=frozenset({"RS256", alg}))
    replace(TERMS, algorithms=frozenset({"RS256", "EdDSA"}))


def test_an_issuer_that_is_followed_no_more_is_trusted_no_more() -> None:
    trusted, cache = trust(), FactCache(max_entries=10, max_bytes=1 << 20)
    assert reason(foreign(), trusted=trusted, cache=cache) == "allow"
    trusted.follow([])
    assert reason(foreign(), trusted=trusted, cache=cache) == "no_keys"
    assert reason(OWN, trusted=trusted, cache=cache) == "allow"


def test_other_keys_of_an_issuer_end_the_facts_about_its_tokens() -> None:
    trusted, cache = trust(), FactCache(max_entries=10, max_bytes=1 << 20)
    assert reason(foreign(), trusted=trusted, cache=cache) == "allow"
    trusted.trust_keys(OTHER, keys_by_id([jose_key("ES256", "theirs").public()]), 20.0)
    assert reason(foreign(), trusted=trusted, cache=cache) == "signature_invalid"


def test_a_bad_signature_is_no_keys_when_its_issuers_keys_are_too_old() -> None:
    """The cache must not answer what the gate would not answer without it (R27)."""
    trusted, cache = trust(until=5.0), FactCache(max_entries=10, max_bytes=1 << 20)
    spoilt = foreign()[:-4] + b"AAAA"
    assert reason(spoilt, trusted=trusted, cache=cache) == "signature_invalid"
    assert reason(spoilt, trusted=trusted, boottime=5.0, cache=cache) == "no_keys"
    trusted.end()
    assert reason(spoilt, trusted=trusted, cache=cache) == "no_keys"


def test_without_a_token_there_is_no_issuer_to_ask_about() -> None:
    assert reason(None) == "credential_missing"
