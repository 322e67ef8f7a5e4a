"""Any input is either verified or refused with the one known exception.

The same sentence holds for every parser of the verifier. Accepted input is checked
further: a token that is not byte for byte one the issuer made is never accepted.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import orjson
import pytest
from cryptography.exceptions import InvalidSignature
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.claims import REQUIRED_CLAIMS
from shared.feed import (
    EntryKind,
    FeedEntry,
    FeedError,
    FeedPage,
    encode_page,
    parse_page,
)
from shared.jose import base64url
from shared.jose.algorithms import ALGORITHMS
from shared.jose.jwk import JwkError, RsaPublicJwk
from shared.jose.jws import (
    NO_TYP,
    JwsError,
    check_header,
    check_typ,
    parse_compact,
    read_kid,
)
from shared.jose.strict_json import StrictJsonError, read_object
from shared.jose.verification_keys import JwksError, read_keys
from tests.support.jose_keys import JoseKey, jose_key
from tests.support.proofs import examples
from tests.support.tokens import (
    AUDIENCE,
    ISSUER,
    good_claims,
    make_token,
    signing_key,
)
from tests.support.trusting import trust_in
from verifier.check.answers import allow_answer
from verifier.check.claims import ClaimNames, read_claims
from verifier.check.denials import Denied
from verifier.check.forward_auth import (
    PlainCheckRequest,
    read_bearer,
    read_question,
    read_route,
)
from verifier.check.policy import IssuerTerms, TokenPolicy
from verifier.check.revocations import RevocationIndex
from verifier.check.rules.target_uri import canonical_segments
from verifier.check.trust import Trust, TrustSnapshot, key_set, keys_by_id, parse_jwks
from verifier.check.verify import SignedClaims, SignedToken, check_time, verify

pytestmark = pytest.mark.proof

NOW = 1_795_000_000
POLICY = TokenPolicy.own(ISSUER, AUDIENCE)
(TERMS,) = POLICY.issuers
TRUST = trust_in(
    key_set([signing_key("first").jwk, signing_key("second").jwk]),
    revocations=RevocationIndex().apply(
        [FeedEntry(1, EntryKind.USER, "someone", 3, NOW)]
    ),
)
GOOD = make_token(good_claims(NOW))
OTHER = make_token(good_claims(NOW, sub="bob"), key=signing_key("second"))
PAGE = FeedPage(
    ISSUER,
    "e",
    0,
    2,
    2,
    1,
    600,
    [FeedEntry(n, EntryKind.SID, "s", 0, 9) for n in (1, 2)],
)
JWK = signing_key().jwk.to_wire()

TOTAL = settings(deadline=None, max_examples=examples(150))

# Text of every kind, lone surrogates and controls among it.
TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
NUMBERS = st.one_of(
    st.integers(),
    st.integers(min_value=-(1 << 80), max_value=1 << 80),
    st.floats(),
    st.sampled_from([NOW, NOW + 600, 10**400, -(10**400)]),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXT),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(TEXT, inner, max_size=4)
    ),
    max_leaves=8,
)


def as_json(value: Any, **options: Any) -> bytes:
    """Write as Python does: NaN, huge numbers and lone surrogates included."""
    text = json.dumps(value, **options)
    return text.encode("utf-8", "surrogatepass")


def changed(good: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return objects in which some members of a good one are anything at all."""
    changes = st.dictionaries(st.sampled_from(sorted(good)), JSON, max_size=3)
    news = st.dictionaries(TEXT, JSON, max_size=2)
    gone = st.sets(st.sampled_from(sorted(good)), max_size=2)
    return st.builds(
        lambda changes, news, gone: {
            name: value
            for name, value in {**news, **good, **changes}.items()
            if name not in gone
        },
        changes,
        news,
        gone,
    )


def written(good: dict[str, Any]) -> st.SearchStrategy[bytes]:
    """Return such objects in several spellings, and bytes that are no JSON."""
    return st.one_of(
        st.binary(max_size=100),
        st.builds(as_json, changed(good)),
        st.builds(as_json, changed(good), ensure_ascii=st.just(False)),
        st.builds(as_json, changed(good), indent=st.just(1)),
        st.builds(lambda v: as_json(v)[:-1] + b',"exp":1}', changed(good)),
        st.builds(as_json, JSON),
    )


@st.composite
def mutations(draw: st.DrawFn, good: bytes) -> bytes:
    """Return `good` with a few slices replaced by other bytes."""
    data = bytearray(good)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 5)))
        data[start:end] = draw(
            st.one_of(
                st.binary(max_size=3),
                st.sampled_from([b".", b"=", b"-", b"_", b"A", b"\n", b'"', b"1"]),
            )
        )
    return bytes(data)


def is_denied(check: Callable[[], Any]) -> bool:
    """Return whether it refuses; anything but that is a fault and gets out."""
    try:
        check()
    except (Denied, JwsError):
        return True
    return False


def assert_acts_on(token: bytes) -> None:
    """Verify; the claims can be answered with."""
    try:
        claims = verify(token, TRUST, POLICY, NOW)
    except Denied:
        return
    assert allow_answer(claims, b"allow").status == 200


FOREIGN_TERMS = IssuerTerms(
    *("https://id.test/realms/main", "orders", "keycloak", frozenset(ALGORITHMS)),
    *(frozenset({"jwt", NO_TYP}), frozenset({"sub", "exp", "iat"}), 3_600),
    ClaimNames(roles=("realm_access", "roles"), user=("preferred_username",)),
)
FOREIGN_POLICIES = [TokenPolicy((FOREIGN_TERMS,)), TokenPolicy((TERMS, FOREIGN_TERMS))]
FOREIGN_CLAIMS: dict[str, Any] = {
    "iss": FOREIGN_TERMS.issuer,
    "aud": ["orders", "account"],
    "sub": "b7f1",
    "exp": NOW + 300,
    "iat": NOW,
    "scope": "orders:read openid",
    "realm_access": {"roles": ["clerk"]},
    "preferred_username": "jane",
}
FOREIGN_KEYS = [jose_key(alg) for alg in ALGORITHMS]


@cache
def foreign_trust() -> TrustSnapshot:
    trust = Trust(ISSUER)
    trust.follow([FOREIGN_TERMS.issuer])
    keys = keys_by_id([key.public() for key in FOREIGN_KEYS])
    trust.trust_keys(FOREIGN_TERMS.issuer, keys, math.inf)
    return trust.snapshot


# --- tokens --------------------------------------------------------------------------


@TOTAL
@given(st.binary(max_size=200))
@example(b"..")
@example(b"." * 9_000)
@example(b"a" * 8_001)
def test_any_bytes_are_denied(token: bytes) -> None:
    assert is_denied(lambda: verify(token, TRUST, POLICY, NOW))


@TOTAL
@given(mutations(GOOD))
def test_a_mutated_token_is_denied(token: bytes) -> None:
    """Only the issuer's own spelling passes."""
    assert is_denied(lambda: verify(token, TRUST, POLICY, NOW)) is (token != GOOD)


SEGMENTS = [*GOOD.split(b"."), *OTHER.split(b"."), b""]


@TOTAL
@given(st.lists(st.sampled_from(SEGMENTS), min_size=1, max_size=4))
def test_segments_of_good_tokens_recombined_are_denied(segments: list[bytes]) -> None:
    token = b".".join(segments)
    verdict = is_denied(lambda: verify(token, TRUST, POLICY, NOW))
    assert verdict is (token not in (GOOD, OTHER))


HEADER = {"alg": "RS256", "typ": "at+jwt", "kid": signing_key().kid}


@TOTAL
@given(written(HEADER))
def test_any_header_that_is_signed_is_verified_or_denied(header: bytes) -> None:
    assert_acts_on(make_token(good_claims(NOW), header=header))


@TOTAL
@given(
    st.sampled_from(FOREIGN_POLICIES),
    st.sampled_from([*[jose_key("ES256")] * 20, *FOREIGN_KEYS]),
    st.one_of(
        st.just(orjson.dumps({"alg": "ES256", "kid": "key-ES256", "typ": "JWT"})),
        written({"alg": "ES256", "kid": "key-ES256", "typ": "JWT"}),
    ),
    written(FOREIGN_CLAIMS),
)
def test_any_token_of_another_issuer_is_verified_or_denied(
    policy: TokenPolicy, key: JoseKey, header: bytes, payload: bytes
) -> None:
    token = key.compact(header, payload)
    try:
        claims = verify(token, foreign_trust(), policy, NOW)
    except Denied:
        return
    assert key.alg == "ES256"
    assert claims.iss == FOREIGN_TERMS.issuer
    assert allow_answer(claims, b"allow").status == 200


@TOTAL
@given(written(good_claims(NOW)))
def test_any_payload_that_is_signed_is_verified_or_denied(payload: bytes) -> None:
    assert_acts_on(make_token(payload))


@TOTAL
@given(written(good_claims(NOW, nbf=NOW)), st.integers(0, 1 << 40))
def test_any_payload_is_read_or_denied_and_can_be_acted_on(
    payload: bytes, now: int
) -> None:
    try:
        claims = read_claims(payload, REQUIRED_CLAIMS)
    except Denied:
        return
    signed = SignedToken(SignedClaims(claims), "kid", "version")
    is_denied(lambda: check_time(signed, 5, now))
    is_denied(lambda: TRUST.own.revocations.check(claims, "kid"))
    assert allow_answer(signed.claims, b"allow").status == 200


@TOTAL
@given(st.one_of(st.binary(max_size=100), mutations(GOOD)))
def test_a_compact_jws_is_taken_apart_or_denied(token: bytes) -> None:
    is_denied(lambda: parse_compact(token))


@TOTAL
@given(written(HEADER))
def test_any_header_is_checked_or_denied(header: bytes) -> None:
    try:
        members = read_object(header)
    except StrictJsonError:
        return
    for check in (
        lambda: check_header(members, TERMS.algorithms),
        lambda: check_typ(members, TERMS.accepted_typs),
        lambda: TRUST.own.keys.find(read_kid(members)),
    ):
        is_denied(check)


# --- the parsers beneath -------------------------------------------------------------


@TOTAL
@given(st.one_of(st.binary(max_size=40), st.text("AZaz09-_+/= \n", max_size=9)))
def test_base64url_is_canonical_or_refused(text: bytes | str) -> None:
    raw = text.encode() if isinstance(text, str) else text
    try:
        data = base64url.decode(raw)
    except base64url.Base64urlError:
        return
    assert base64url.encode(data).encode() == raw


@TOTAL
@given(st.binary(max_size=200))
def test_every_bytes_have_one_base64url_text(data: bytes) -> None:
    assert base64url.decode(base64url.encode(data).encode()) == data


@TOTAL
@given(written({"a": {"b": [1, 2.5]}, "exp": NOW}))
def test_an_object_is_read_or_refused(data: bytes) -> None:
    with contextlib.suppress(StrictJsonError):
        assert type(read_object(data)) is dict


@TOTAL
@given(
    st.one_of(
        written(orjson.loads(encode_page(PAGE))),
        mutations(encode_page(PAGE)),
        st.builds(
            lambda rows: as_json({**orjson.loads(encode_page(PAGE)), "entries": rows}),
            st.lists(st.lists(st.one_of(JSON, st.just("sid")), max_size=6), max_size=3),
        ),
    )
)
def test_a_page_is_read_or_refused(body: bytes) -> None:
    """And accepted input can be applied, and written again."""
    try:
        page = parse_page(body)
    except FeedError:
        return
    assert len(RevocationIndex().apply(page.entries)) <= len(page.entries)
    assert parse_page(encode_page(page)) == page


RSA_NUMBERS = st.one_of(
    st.integers(min_value=1 << 2047, max_value=1 << 2049),
    st.integers(min_value=1 << 4095, max_value=(1 << 4096) + 1),
    st.integers(min_value=0, max_value=1 << 20),
).map(lambda n: base64url.encode(n.to_bytes((n.bit_length() + 7) // 8, "big")))


@TOTAL
@given(
    st.one_of(
        written({"keys": [JWK]}),
        mutations(orjson.dumps({"keys": [JWK]})),
        st.builds(
            lambda keys: as_json({"keys": keys}),
            st.lists(
                st.one_of(
                    changed(JWK),
                    st.builds(lambda n: {**JWK, "n": n}, RSA_NUMBERS),
                    st.builds(lambda e: {**JWK, "e": e}, RSA_NUMBERS),
                ),
                max_size=3,
            ),
        ),
    )
)
def test_a_jwks_is_read_or_refused(body: bytes) -> None:
    try:
        keys = parse_jwks(body)
    except JwksError:
        return
    assert keys.keys
    for kid, key in keys.keys.items():
        assert keys.find(kid) is key
        assert 2_048 <= key.public_key.key_size <= 4_096


@TOTAL
@given(
    st.lists(
        st.sampled_from(FOREIGN_KEYS).flatmap(lambda key: changed(key.jwk)), max_size=1
    ),
    st.sampled_from([frozenset(ALGORITHMS), frozenset({"RS256", "ES256", "EdDSA"})]),
)
def test_a_jwks_of_any_issuer_is_read_or_refused(
    jwks: list[dict[str, Any]], allowed: frozenset[str]
) -> None:
    try:
        found = read_keys(as_json({"keys": jwks}), allowed)
    except JwksError:
        return
    for key in found.keys:
        with pytest.raises(InvalidSignature):
            key.algorithm.verify(key.public_key, b"signature", b"message")


@TOTAL
@given(changed(JWK))
def test_a_jwk_is_read_or_refused(jwk: dict[str, Any]) -> None:
    try:
        key = RsaPublicJwk.from_wire(jwk)
    except JwkError:
        return
    assert RsaPublicJwk.from_wire(key.to_wire()) == key


# --- the request ---------------------------------------------------------------------


@TOTAL
@given(st.one_of(st.binary(max_size=30), mutations(b"/a/%41%2e/b?x=1")))
def test_a_path_is_canonical_or_denied(uri: bytes) -> None:
    is_denied(lambda: canonical_segments(uri))


NAMES = st.one_of(
    st.sampled_from(
        [
            b"authorization",
            b"x-original-uri",
            b"x-original-method",
            b"x-forwarded-uri",
            b"x-forwarded-method",
            b"x_original_uri",
            b"x-forwarded_uri",
        ]
    ),
    st.binary(max_size=10),
)
VALUES = st.one_of(
    st.binary(max_size=20),
    st.sampled_from([b"Bearer a.b.c", b"bearer  x", b"GET", b"/a", b"/a, /b"]),
    mutations(b"Bearer a.b.c"),
)


@TOTAL
@given(
    st.one_of(
        mutations(b"/verify/envoy/p/strict/a?x"),
        mutations(b"/verify/caddy/p/strict?p/lax"),
        st.sampled_from([b"/verify/nginx", b"/verify/caddy?a", b"/verify/envoy/a"]),
        st.binary(max_size=20),
    ),
    st.lists(st.tuples(NAMES, VALUES), max_size=4),
)
def test_a_request_is_understood_or_denied(
    target: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    """An accepted header holds one visible token of one header line."""
    request = PlainCheckRequest(b"GET", target, headers, peer_is_trusted=True)
    try:
        authorization, _ = read_question(request, read_route(target))
        unverified_token = read_bearer(authorization)
    except Denied:
        return
    lines = [value for name, value in headers if name == b"authorization"]
    assert len(lines) == 1
    assert lines[0].endswith(unverified_token)
    assert all(0x21 <= byte <= 0x7E for byte in unverified_token)


@TOTAL
@given(st.sampled_from([b"nginx", b"caddy", b"traefik"]), st.binary(max_size=12))
@example(b"caddy", b"p/lax")
def test_no_query_changes_a_route(dialect: bytes, query: bytes) -> None:
    path = b"/verify/" + dialect
    assert read_route(path + b"?" + query) == read_route(path)
