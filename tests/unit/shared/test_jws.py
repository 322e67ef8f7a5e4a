"""Compact JWS: three canonical segments, one key and its algorithm (R14 to R17)."""

from __future__ import annotations

import hashlib
import hmac
import tracemalloc
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.hashes import SHA256, SHA512
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from shared.claims import ACCEPTED_TYPS, MAX_TOKEN_BYTES
from shared.jose import base64url
from shared.jose.algorithms import ALGORITHMS
from shared.jose.jws import (
    FORBIDDEN_MEMBERS,
    NO_TYP,
    JwsError,
    JwsFault,
    check_header,
    check_signature,
    check_typ,
    parse_compact,
    read_kid,
)
from shared.jose.verification_keys import read_key
from tests.support.jose_keys import jose_key
from tests.support.tokens import good_claims, make_token, signing_key
from verifier.check.denials import DenyReason

TOKEN = make_token(good_claims(1_795_000_000))
HEADER, PAYLOAD, SIGNATURE = TOKEN.split(b".")
RS256 = frozenset({"RS256"})
KEY = read_key(signing_key().jwk.to_wire(), RS256)


def take_apart(token: bytes, max_bytes: int) -> None:
    jws = parse_compact(token, max_bytes)
    _ = jws.unverified_payload, jws.signature


def fault_of(token: bytes, max_bytes: int = MAX_TOKEN_BYTES) -> JwsFault:
    with pytest.raises(JwsError) as caught:
        take_apart(token, max_bytes)
    return caught.value.fault


def text(data: bytes) -> bytes:
    return base64url.encode(data).encode()


def test_a_compact_jws_is_taken_apart() -> None:
    jws = parse_compact(TOKEN)
    assert jws.unverified_header["alg"] == "RS256"
    assert orjson.loads(jws.unverified_payload)["username"] == "alice"
    assert jws.signing_input == HEADER + b"." + PAYLOAD
    assert len(jws.signature) == 256


def test_size_is_checked_before_anything_is_decoded() -> None:
    """R17: 8,000 bytes at most; its contents do not matter yet."""
    assert fault_of(b"\xff" * 8_001) is JwsFault.TOKEN_TOO_LARGE
    assert fault_of(b"\xff" * 8_000) is JwsFault.TOKEN_MALFORMED
    assert fault_of(TOKEN, max_bytes=len(TOKEN) - 1) is JwsFault.TOKEN_TOO_LARGE
    parse_compact(TOKEN, max_bytes=len(TOKEN))


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b".", id="one dot"),
        pytest.param(HEADER + b"." + PAYLOAD, id="no signature"),
        pytest.param(TOKEN + b".", id="a fourth segment, empty"),
        pytest.param(TOKEN + b"." + SIGNATURE, id="a fourth segment"),
        pytest.param(b"." + TOKEN, id="a segment in front"),
        pytest.param(TOKEN + b"=", id="padding"),
        pytest.param(TOKEN + b"\n", id="line break"),
        pytest.param(b" " + TOKEN, id="space in front"),
        pytest.param(TOKEN.replace(b".", b". ", 1), id="space inside"),
        pytest.param(HEADER + b"=." + PAYLOAD + b"." + SIGNATURE, id="padded header"),
        pytest.param(HEADER + b"." + PAYLOAD + b"=." + SIGNATURE, id="padded payload"),
        pytest.param(HEADER + b"." + PAYLOAD + b"." + SIGNATURE[:-1], id="cut off"),
        pytest.param(orjson.dumps({"payload": "", "signatures": []}), id="JSON form"),
    ],
)
def test_anything_but_three_canonical_segments_is_malformed(token: bytes) -> None:
    """R17: before any decoding."""
    assert fault_of(token) is JwsFault.TOKEN_MALFORMED


def test_a_second_spelling_of_the_signature_is_malformed() -> None:
    """R24: one token has one name (OWASP cheat sheet 2242)."""
    # 256 bytes leave four loose bits in the last character.
    last = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    others = [TOKEN[:-1] + bytes([c]) for c in last if c != TOKEN[-1]]
    outcomes = []
    for other in others:
        try:
            signature = parse_compact(other).signature
        except JwsError:
            continue
        outcomes.append(signature)
    assert len(outcomes) == 3  # those with other bits, none with loose ones
    assert parse_compact(TOKEN).signature not in outcomes


def test_long_headers_are_not_kept() -> None:
    """Anyone can send a header, and one full of lists takes 150 KB."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(300):
            header = b'{"n":%d,"a":[%b1]}' % (number, b"[]," * 1_900)
            parse_compact(text(header) + b".e30.AAAA")
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 5_000_000


def is_kept(token: bytes) -> bool:
    """Return whether the same header object is returned twice."""
    first, second = parse_compact(token), parse_compact(token)
    return first.unverified_header is second.unverified_header


def test_headers_of_good_tokens_alone_are_kept() -> None:
    """A flood of garbage must not push out the header that all good tokens share."""
    key = jose_key("Ed25519")
    token = key.token(x="a header of its own")
    bad = token.rpartition(b".")[0] + b"." + text(bytes(64))
    for _ in range(2):
        with pytest.raises(JwsError):
            check_signature(parse_compact(bad), key.public())
    assert not is_kept(token)
    check_signature(parse_compact(token), key.public())
    assert is_kept(token)


def test_kept_headers_are_bounded_in_size_and_number() -> None:
    key = jose_key("Ed25519")
    tokens = [key.token(x="x" * 600), *[key.token(x=str(n)) for n in range(300)]]
    for token in tokens:
        check_signature(parse_compact(token), key.public())
    assert not is_kept(tokens[0])
    assert is_kept(tokens[-1])
    assert 0 < sum(map(is_kept, tokens)) <= 256


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"RS256", id="no JSON"),
        pytest.param(b'["RS256"]', id="no object"),
        pytest.param(b'{"alg":"none","alg":"RS256"}', id="alg twice"),
        pytest.param(b'\xef\xbb\xbf{"alg":"RS256"}', id="BOM"),
        pytest.param('{"alg":"RS256"}'.encode("utf-16-le"), id="UTF-16"),
        pytest.param(b'{"alg":"RS256","x":NaN}', id="NaN"),
    ],
)
def test_a_header_that_is_not_a_strict_object_is_malformed(header: bytes) -> None:
    token = text(header) + b"." + PAYLOAD + b"." + SIGNATURE
    assert fault_of(token) is JwsFault.HEADER_MALFORMED


def header_fault(**members: Any) -> JwsFault:
    with pytest.raises(JwsError) as caught:
        check_header(members, RS256)
    return caught.value.fault


@pytest.mark.parametrize(
    "alg",
    [
        "none",
        "None",
        "NONE",
        "",
        "HS256",
        "RS384",
        "RS512",
        "PS256",
        "ES256",
        "EdDSA",
        "rs256",
        "RS256 ",
        None,
        256,
        ["RS256"],
        {"RS256": 1},
    ],
)
def test_cve_2026_48523_any_other_alg_is_refused(alg: object) -> None:
    """R15: header, key and allow-list agree exactly; `none` cannot be expressed."""
    assert header_fault(alg=alg) is JwsFault.ALG_NOT_ALLOWED


def test_a_header_without_alg_is_refused() -> None:
    assert header_fault(typ="at+jwt") is JwsFault.ALG_NOT_ALLOWED


@pytest.mark.parametrize("value", [None, False, [], ["exp"], "https://evil.test", {}])
@pytest.mark.parametrize(
    "member", ["crit", "b64", "jku", "x5u", "x5c", "jwk", "zip", "cty"]
)
def test_cve_2026_48525_header_with_keys_or_rules_is_refused(
    member: str, value: object
) -> None:
    """R16 (also GHSA-752w-5fwx-jx9f): with any value."""
    fault = header_fault(**{"alg": "RS256", member: value})
    assert fault is JwsFault.HEADER_FORBIDDEN
    assert member in FORBIDDEN_MEMBERS


def test_an_unknown_header_member_is_ignored() -> None:
    """RFC 7515, section 4: unknown members that are not critical."""
    check_header({"alg": "RS256", "x-note": 1}, RS256)


@pytest.mark.parametrize(
    "typ", ["at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt"]
)
def test_both_spellings_of_the_type_are_accepted(typ: str) -> None:
    """R18: media types know no case (RFC 7515, section 4.1.9)."""
    check_typ({"typ": typ}, ACCEPTED_TYPS)


@pytest.mark.parametrize(
    "header",
    [
        {},
        *(
            {"typ": typ}
            for typ in (
                "JWT",
                "jwt",
                "",
                "at+jwt ",
                "rt+jwt",
                "statuslist+jwt",
                "secevent+jwt",
                "application/jwt",
                None,
                1,
                ["at+jwt"],
            )
        ),
    ],
)
def test_any_other_type_is_refused(header: dict[str, Any]) -> None:
    """R18, R23 (Pomerium CVE-2024-47616): another kind of token is no access token."""
    with pytest.raises(JwsError) as caught:
        check_typ(header, ACCEPTED_TYPS)
    assert caught.value.fault is JwsFault.TYP_NOT_ALLOWED


@pytest.mark.parametrize("kid", ["k", "k" * 256, "ü" * 128, "../../etc/passwd", "' --"])
def test_a_kid_is_any_text_up_to_256_bytes(kid: str) -> None:
    assert read_kid({"kid": kid}) == kid


@pytest.mark.parametrize(
    "header",
    [
        {},
        *(
            {"kid": kid}
            for kid in ("", "k" * 257, "ü" * 129, None, 1, True, ["k"], {"k": "k"})
        ),
    ],
)
def test_impossible_kid_is_refused(header: dict[str, Any]) -> None:
    """R22."""
    with pytest.raises(JwsError) as caught:
        read_kid(header)
    assert caught.value.fault is JwsFault.KID_MISSING


def check(token: bytes) -> None:
    check_signature(parse_compact(token), KEY)


def test_a_right_signature_passes() -> None:
    check(TOKEN)


def _other(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:]


def _hmac_with_public_key() -> bytes:
    pem = KEY.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return hmac.new(pem, HEADER + b"." + PAYLOAD, hashlib.sha256).digest()


SIGNING_INPUT = HEADER + b"." + PAYLOAD
PRIVATE = signing_key().private_key
MODULUS_BYTES = 256


@pytest.mark.parametrize(
    "signature",
    [
        pytest.param(b"", id="empty"),
        pytest.param(bytes(MODULUS_BYTES), id="zero"),
        pytest.param(signing_key().jwk.n.to_bytes(MODULUS_BYTES, "big"), id="modulus"),
        pytest.param(b"\xff" * MODULUS_BYTES, id="over the modulus"),
        pytest.param(_other(base64url.decode(SIGNATURE)), id="first bit"),
        pytest.param(b"\0" + base64url.decode(SIGNATURE), id="a zero in front"),
        pytest.param(base64url.decode(SIGNATURE)[:-1], id="one byte short"),
        pytest.param(_hmac_with_public_key(), id="CVE-2024-33663 HMAC by public key"),
        pytest.param(
            PRIVATE.sign(SIGNING_INPUT, padding.PKCS1v15(), SHA512()), id="RS512"
        ),
        pytest.param(
            PRIVATE.sign(
                SIGNING_INPUT, padding.PSS(padding.MGF1(SHA256()), 32), SHA256()
            ),
            id="PS256",
        ),
        pytest.param(signing_key("second").sign(SIGNING_INPUT), id="another key"),
    ],
)
def test_a_wrong_signature_is_refused(signature: bytes) -> None:
    """R14 (PyJWT CVE-2026-48526): one key, one algorithm."""
    with pytest.raises(JwsError) as caught:
        check(SIGNING_INPUT + b"." + text(signature))
    assert caught.value.fault is JwsFault.SIGNATURE_INVALID


def test_header_and_payload_are_both_signed() -> None:
    payload = text(orjson.dumps(good_claims(1_795_000_000, sub="mallory")))
    header = text(orjson.dumps({"alg": "RS256", "typ": "at+jwt", "kid": "other"}))
    for forged in (
        HEADER + b"." + payload + b"." + SIGNATURE,
        header + b"." + PAYLOAD + b"." + SIGNATURE,
    ):
        with pytest.raises(JwsError) as caught:
            check(forged)
        assert caught.value.fault is JwsFault.SIGNATURE_INVALID


every_algorithm = pytest.mark.parametrize("alg", ALGORITHMS)


@every_algorithm
def test_a_token_of_every_algorithm_passes(alg: str) -> None:
    jws = parse_compact(jose_key(alg).token())
    check_header(jws.unverified_header, frozenset({alg}))
    check_signature(jws, jose_key(alg).public())


@every_algorithm
def test_a_token_of_an_algorithm_that_is_not_listed_is_refused(alg: str) -> None:
    jws = parse_compact(jose_key(alg).token())
    with pytest.raises(JwsError) as caught:
        check_header(jws.unverified_header, frozenset(ALGORITHMS) - {alg})
    assert caught.value.fault is JwsFault.ALG_NOT_ALLOWED


@pytest.mark.parametrize("alg", ["none", "HS256", "", "RS256,", "ES256K"])
def test_what_is_no_algorithm_is_refused_whatever_is_listed(alg: str) -> None:
    """The list cannot make it one: no key has it."""
    token = text(orjson.dumps({"alg": alg, "kid": "k"})) + b".e30."
    with pytest.raises(JwsError) as caught:
        check_signature(parse_compact(token), KEY)
    assert caught.value.fault is JwsFault.ALG_NOT_ALLOWED


@every_algorithm
def test_the_header_names_the_algorithm_of_the_key(alg: str) -> None:
    """R15, R67: another one is refused, even if the signature would be good."""
    key = jose_key(alg).public()
    for named in ALGORITHMS.keys() - {alg}:
        jws = parse_compact(jose_key(named).token())
        check_header(jws.unverified_header, frozenset(ALGORITHMS))
        with pytest.raises(JwsError) as caught:
            check_signature(jws, key)
        assert caught.value.fault is JwsFault.ALG_NOT_ALLOWED


def test_the_algorithm_is_compared_before_the_signature_is_decoded() -> None:
    token = jose_key("ES256").token().rpartition(b".")[0] + b".!"
    with pytest.raises(JwsError) as caught:
        check_signature(parse_compact(token), KEY)
    assert caught.value.fault is JwsFault.ALG_NOT_ALLOWED


@pytest.mark.parametrize("alg", [..., None, 1, ["RS256"], {"RS256": 1}])
def test_a_header_without_a_name_never_passes_a_key(alg: object) -> None:
    jws = parse_compact(jose_key("RS256").token(alg=alg))
    with pytest.raises(JwsError) as caught:
        check_header(jws.unverified_header, RS256)
    assert caught.value.fault is JwsFault.ALG_NOT_ALLOWED
    with pytest.raises(JwsError) as caught:
        check_signature(jws, jose_key("RS256").public())
    assert caught.value.fault is JwsFault.ALG_NOT_ALLOWED


@pytest.mark.parametrize(
    ("alg", "allowed", "passes"),
    [
        ("EdDSA", {"EdDSA"}, True),
        ("EdDSA", {"EdDSA", "Ed25519"}, True),
        ("Ed25519", {"EdDSA", "Ed25519"}, True),
        ("Ed25519", {"Ed25519"}, True),
        ("EdDSA", {"Ed25519"}, False),
        ("Ed25519", {"EdDSA"}, False),
        ("eddsa", {"EdDSA"}, False),
    ],
)
def test_the_old_name_is_accepted_only_if_it_is_listed(
    alg: str, allowed: set[str], passes: bool
) -> None:
    """RFC 9864: `EdDSA` is the old name of Ed25519."""
    jws = parse_compact(jose_key("Ed25519").token(alg=alg))
    if passes:
        check_header(jws.unverified_header, frozenset(allowed))
        check_signature(jws, jose_key("Ed25519").public())
    else:
        with pytest.raises(JwsError) as caught:
            check_header(jws.unverified_header, frozenset(allowed))
        assert caught.value.fault is JwsFault.ALG_NOT_ALLOWED


def test_a_token_without_type_passes_only_if_that_is_accepted() -> None:
    check_typ({}, frozenset({NO_TYP, "jwt"}))
    check_typ({"typ": "JWT"}, frozenset({NO_TYP, "jwt"}))
    for header in ({"typ": ""}, {"typ": None}, {"typ": "at+jwt"}):
        with pytest.raises(JwsError) as caught:
            check_typ(header, frozenset({NO_TYP, "jwt"}))
        assert caught.value.fault is JwsFault.TYP_NOT_ALLOWED


def test_the_words_are_those_of_the_verifier() -> None:
    assert {fault.value for fault in JwsFault} <= {word.value for word in DenyReason}


def test_an_error_has_nothing_of_the_token() -> None:
    """R25: it may be logged."""
    with pytest.raises(JwsError) as caught:
        parse_compact(b"secret")
    assert str(caught.value) == "token_malformed"
    assert caught.value.__cause__ is None


@every_algorithm
def test_a_token_of_every_algorithm_fits_into_the_limit(alg: str) -> None:
    """The signature of ML-DSA-87 leaves 1,800 bytes for the rest."""
    assert len(jose_key(alg).token(orjson.dumps(good_claims(1_795_000_000)))) < 8_000
