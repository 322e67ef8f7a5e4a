"""One test per reason of `verify`, and its edges in whole seconds."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from shared.claims import REQUIRED_CLAIMS
from shared.feed import EntryKind, FeedEntry
from shared.jose import base64url
from tests.support.tokens import (
    AUDIENCE,
    ISSUER,
    TestKey,
    good_claims,
    make_token,
    signing_key,
)
from tests.support.trusting import trust_in
from verifier.check.denials import Denied, DenyReason
from verifier.check.policy import TokenPolicy
from verifier.check.revocations import RevocationIndex
from verifier.check.trust import TrustSnapshot, key_set
from verifier.check.verify import read_signed, verify

NOW = 1_795_000_000
POLICY = TokenPolicy.own(ISSUER, AUDIENCE)
KEY = signing_key("first")
RETIRING_KEY = signing_key("second")
TRUST = trust_in(key_set([KEY.jwk, RETIRING_KEY.jwk]))
GOOD = make_token(good_claims(NOW))


def outcome(
    token: bytes,
    *,
    trust: TrustSnapshot = TRUST,
    policy: TokenPolicy = POLICY,
    now: int = NOW,
) -> str:
    """Return the reason of the refusal; empty when the token is verified."""
    try:
        verify(token, trust, policy, now)
    except Denied as denied:
        return denied.reason.value
    return ""


def token(key: TestKey = KEY, **changes: Any) -> bytes:
    return make_token(good_claims(NOW, **changes), key=key)


def headed(**changes: Any) -> bytes:
    header = {"alg": "RS256", "typ": "at+jwt", "kid": KEY.kid} | changes
    header = {name: value for name, value in header.items() if value is not ...}
    return make_token(good_claims(NOW), header=header)


def test_a_good_token_becomes_verified_claims() -> None:
    claims = verify(GOOD, TRUST, POLICY, NOW)
    assert claims.sub == "5f9c1e1e-0000-4000-8000-000000000001"
    assert claims.scopes == ("orders:read", "orders:write")


def test_a_retiring_key_still_verifies() -> None:
    assert outcome(token(RETIRING_KEY)) == ""


def test_a_good_token_may_be_written_with_white_space() -> None:
    raw = orjson.dumps(good_claims(NOW), option=orjson.OPT_INDENT_2)
    assert outcome(make_token(raw)) == ""


@pytest.mark.parametrize(
    ("unverified_token", "reason"),
    [
        (GOOD + b"A" * 8_000, DenyReason.TOKEN_TOO_LARGE),
        (GOOD + b"=", DenyReason.TOKEN_MALFORMED),
        (make_token({}, header=b"[]"), DenyReason.HEADER_MALFORMED),
        (headed(alg="none"), DenyReason.ALG_NOT_ALLOWED),
        (headed(alg="HS256"), DenyReason.ALG_NOT_ALLOWED),
        (headed(jku="https://evil.test/jwks"), DenyReason.HEADER_FORBIDDEN),
        (headed(typ="JWT"), DenyReason.TYP_NOT_ALLOWED),
        (headed(typ=...), DenyReason.TYP_NOT_ALLOWED),
        (headed(kid=...), DenyReason.KID_MISSING),
        (headed(kid="unknown"), DenyReason.KID_UNKNOWN),
        (headed(kid=RETIRING_KEY.kid), DenyReason.SIGNATURE_INVALID),
        (make_token(b"[]"), DenyReason.CLAIMS_MALFORMED),
        (token(exp="1795000600"), DenyReason.CLAIMS_MALFORMED),
        (token(exp=True), DenyReason.CLAIMS_MALFORMED),
        *(
            (token(**{name: None}), DenyReason.CLAIM_MISSING)
            for name in REQUIRED_CLAIMS
        ),
        (token(iss="https://evil.test"), DenyReason.ISSUER_MISMATCH),
        (token(iss=ISSUER + "/"), DenyReason.ISSUER_MISMATCH),
        (token(iss=ISSUER.upper()), DenyReason.ISSUER_MISMATCH),
        (token(aud="other"), DenyReason.AUDIENCE_MISMATCH),
        (token(aud="API"), DenyReason.AUDIENCE_MISMATCH),
        (token(aud=["other", "ap"]), DenyReason.AUDIENCE_MISMATCH),
        (token(exp=NOW - 5), DenyReason.EXPIRED),
        (token(nbf=NOW + 6), DenyReason.NOT_YET_VALID),
        (token(iat=NOW + 6), DenyReason.NOT_YET_VALID),
    ],
)
def test_each_fault_of_a_token_has_its_reason(
    unverified_token: bytes, reason: DenyReason
) -> None:
    assert outcome(unverified_token) == reason.value


@pytest.mark.parametrize(
    ("kind", "key", "reason"),
    [
        (EntryKind.JTI, "jti-1", DenyReason.REVOKED_JTI),
        (EntryKind.SID, "sid-1", DenyReason.REVOKED_SID),
        (EntryKind.USER, "app", DenyReason.REVOKED_USER),
        (EntryKind.CLIENT, "app", DenyReason.REVOKED_CLIENT),
        (EntryKind.KID, KEY.kid, DenyReason.REVOKED_KID),
    ],
    ids=["jti", "sid", "user", "client", "kid"],
)
def test_revoked_token_is_refused(
    kind: EntryKind, key: str, reason: DenyReason
) -> None:
    entry = FeedEntry(1, kind, key, 1, NOW + 600)
    trust = trust_in(TRUST.own.keys, RevocationIndex().apply([entry]))
    unverified_token = token(sub="app", client_id="app")
    assert outcome(unverified_token) == ""
    assert outcome(unverified_token, trust=trust) == reason.value


@pytest.mark.parametrize("aud", [AUDIENCE, [AUDIENCE], ["other", AUDIENCE]])
def test_one_of_the_audiences_must_be_ours(aud: object) -> None:
    assert outcome(token(aud=aud)) == ""


@pytest.mark.parametrize("leeway", [0, 5, 60])
def test_the_edges_of_a_tokens_time(leeway: int) -> None:
    """RFC 7519, 4.1.4 and 4.1.5: now < exp + leeway; nbf, iat <= now + leeway."""
    policy = TokenPolicy.own(ISSUER, AUDIENCE, leeway)
    edges = [
        ({"exp": NOW - leeway}, "expired"),
        ({"exp": NOW - leeway + 1}, ""),
        ({"exp": NOW - leeway + 0.5}, ""),
        ({"nbf": NOW + leeway}, ""),
        ({"nbf": NOW + leeway + 1}, "not_yet_valid"),
        ({"iat": NOW + leeway}, ""),
        ({"iat": NOW + leeway + 1}, "not_yet_valid"),
    ]
    for changes, reason in edges:
        assert outcome(token(**changes), policy=policy) == reason, changes


def test_a_token_lives_until_its_end_and_no_longer() -> None:
    assert outcome(GOOD, now=NOW + 604) == ""
    assert outcome(GOOD, now=NOW + 605) == "expired"
    assert outcome(GOOD, now=NOW - 5) == ""
    assert outcome(GOOD, now=NOW - 6) == "not_yet_valid"


@pytest.mark.parametrize("exp", [0, 1, 1e-300])
def test_an_end_long_ago_is_an_end(exp: float) -> None:
    payload = good_claims(NOW) | {"exp": exp}
    raw = orjson.dumps(payload | {"exp": 0}).replace(b'"exp":0', b'"exp":%a' % exp)
    assert outcome(make_token(raw)) == "expired"


@pytest.mark.parametrize(
    ("exp", "reason"),
    [
        (NOW + 3_600, ""),
        (NOW + 3_601, "lifetime_too_long"),
        (NOW + 3_600.5, "lifetime_too_long"),
        ((NOW + 600) * 1_000, "claims_malformed"),
        (253_402_300_800, "claims_malformed"),
    ],
    ids=["an hour", "a second more", "half a second more", "milliseconds", "10000"],
)
def test_lifetime_is_bounded_by_how_long_revocations_are_kept(
    exp: float, reason: str
) -> None:
    """R53: an entry of the feed is pruned after the longest lifetime."""
    assert outcome(make_token(orjson.dumps(good_claims(NOW, exp=exp)))) == reason


@pytest.mark.parametrize("name", ["iat", "nbf"])
def test_negative_begin_is_malformed(name: str) -> None:
    payload = orjson.dumps(good_claims(NOW) | {name: -1})
    assert outcome(make_token(payload)) == "claims_malformed"


def test_unverified_issuer_or_audience_looks_like_a_bad_signature() -> None:
    """Claims are checked only after the issuer's signature."""
    header, _, signature = GOOD.split(b".")
    payload = base64url.encode(
        orjson.dumps(good_claims(NOW, iss="x", aud="y"))
    ).encode()
    forged = b".".join([header, payload, signature])
    assert outcome(forged) == "signature_invalid"


def test_a_key_is_found_before_the_payload_is_read() -> None:
    """R19: the gate requests an unknown key, with any payload."""
    unknown = make_token(b"junk", header={"alg": "RS256", "typ": "at+jwt", "kid": "u"})
    assert outcome(unknown) == "kid_unknown"


def test_nothing_verifies_without_keys() -> None:
    assert outcome(GOOD, trust=trust_in()) == "kid_unknown"


def test_signed_token_names_the_key_that_signed() -> None:
    for key in (KEY, RETIRING_KEY):
        assert read_signed(token(key), TRUST, POLICY, -1).kid == key.kid


def test_no_part_of_a_refused_token_is_in_the_error() -> None:
    """Trap 6 of the style guide (Oathkeeper attached unverified claims)."""
    with pytest.raises(Denied) as caught:
        verify(token(exp=NOW - 100), TRUST, POLICY, NOW)
    assert caught.value.args == ("expired",)
    # Compiled, it has no dictionary at all.
    assert not getattr(caught.value, "__dict__", {})
    assert caught.value.reason is DenyReason.EXPIRED
