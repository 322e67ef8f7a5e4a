"""Which JWKs of other issuers become keys, and for which algorithm (R20, R67, R68)."""

from __future__ import annotations

import re
from typing import Any

import orjson
import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec

from shared.jose import base64url, verification_keys
from shared.jose.algorithms import ALGORITHMS
from shared.jose.jwk import JwkError
from shared.jose.verification_keys import (
    MAX_KEYS,
    JwksError,
    VerificationKey,
    read_key,
    read_keys,
)
from tests.support.fixed_key import fixed_key
from tests.support.jose_keys import jose_key

ALL = frozenset(ALGORITHMS)
RS256 = frozenset({"RS256"})
every_algorithm = pytest.mark.parametrize("alg", ALGORITHMS)


def jwk(alg: str, /, **changes: Any) -> dict[str, Any]:
    """Return a good JWK with changes; a change to `...` removes the member."""
    members = {**jose_key(alg).jwk, **changes}
    return {name: value for name, value in members.items() if value is not ...}


def document(*jwks: Any, **more: Any) -> bytes:
    return orjson.dumps({"keys": list(jwks), **more})


def error_of(key: dict[str, Any], allowed: frozenset[str] = ALL) -> str:
    with pytest.raises(JwkError) as caught:
        read_key(key, allowed)
    return str(caught.value)


def set_error_of(data: bytes, allowed: frozenset[str] = ALL) -> str:
    with pytest.raises(JwksError) as caught:
        read_keys(data, allowed)
    return str(caught.value)


@every_algorithm
def test_a_good_key_is_read(alg: str) -> None:
    key = read_key(jwk(alg), ALL)
    assert (key.kid, key.algorithm.name) == (f"key-{alg}", alg)
    key.algorithm.verify(key.public_key, jose_key(alg).sign(b"text"), b"text")


@pytest.mark.parametrize(
    "alg", ["RS256", "PS512", "ES256", "ES384", "ES512", "Ed25519"]
)
def test_a_key_without_alg_takes_the_only_one_that_fits(alg: str) -> None:
    allowed = frozenset({alg} | {n for n in ALL if not n.startswith(("RS", "PS"))})
    assert read_key(jwk(alg, alg=...), allowed).algorithm is ALGORITHMS[alg]


def test_a_key_without_alg_is_refused_if_two_fit() -> None:
    """R67: else the token would choose between them."""
    message = error_of(jwk("RS256", alg=...), frozenset({"RS256", "PS256", "ES256"}))
    assert message.startswith("alg: is missing, and PS256, RS256 fit")


def test_the_two_names_of_ed25519_are_one_algorithm() -> None:
    both = frozenset({"EdDSA", "Ed25519"})
    for allowed in (both, frozenset({"EdDSA"}), frozenset({"Ed25519"})):
        key = read_key(jwk("Ed25519", alg=...), allowed)
        assert key.algorithm is ALGORITHMS["Ed25519"]
    for alg in both:
        key = read_key(jwk("Ed25519", alg=alg), both)
        assert key.algorithm is ALGORITHMS["Ed25519"]


def test_a_key_of_the_old_name_is_usable_only_if_it_is_listed() -> None:
    message = error_of(jwk("Ed25519", alg="EdDSA"), frozenset({"Ed25519"}))
    assert message == "alg: must be one of Ed25519"


@every_algorithm
def test_a_key_whose_algorithm_is_not_listed_is_refused(alg: str) -> None:
    assert error_of(jwk(alg), ALL - {alg}).startswith("alg: must be one of ")


@every_algorithm
def test_a_key_without_alg_that_fits_nothing_listed_is_refused(alg: str) -> None:
    kty = ALGORITHMS[alg].kty
    listed = frozenset(n for n in ALL if ALGORITHMS[n].kty != kty)
    message = error_of(jwk(alg, alg=...), listed)
    assert message.startswith("kty, crv: fit none of ")


@pytest.mark.parametrize(
    "alg", [None, 1, True, ["RS256"], "none", "HS256", "RSA-OAEP", "rs256", ""]
)
def test_any_other_alg_is_refused(alg: object) -> None:
    assert error_of(jwk("RS256", alg=alg)).startswith("alg: must be one of ")


@pytest.mark.parametrize(
    ("alg", "other"),
    [
        ("RS256", "ES256"),
        ("ES256", "RS256"),
        ("ES256", "ES384"),
        ("ES256", "Ed25519"),
        ("Ed25519", "ES256"),
        ("Ed25519", "ML-DSA-44"),
        ("ML-DSA-44", "PS256"),
    ],
)
def test_alg_and_key_must_agree(alg: str, other: str) -> None:
    assert error_of(jwk(alg, alg=other)) == f"kty, crv: do not fit alg {other}"


@pytest.mark.parametrize(
    "crv", [..., None, "p-256", "P-384", "secp256k1", "Ed25519", 256]
)
def test_a_curve_of_another_name_is_refused(crv: object) -> None:
    assert error_of(jwk("ES256", crv=crv)).startswith("kty, crv: ")


def test_an_akp_key_needs_its_alg() -> None:
    """RFC 9964, section 4: it is the only thing that names the parameters."""
    message = error_of(jwk("ML-DSA-44", alg=...), frozenset({"ML-DSA-44"}))
    assert message == "alg: must be present in a key of type AKP"


@pytest.mark.parametrize("kid", [..., None, 1, "", "k" * 257, "ü" * 129, ["k"]])
def test_a_kid_of_1_to_256_bytes_is_required(kid: object) -> None:
    assert error_of(jwk("ES256", kid=kid)) == "kid: must be a string of 1..256 bytes"
    assert read_key(jwk("ES256", kid="ü" * 128), ALL).kid == "ü" * 128


@pytest.mark.parametrize("use", ["enc", "", "SIG", None, 1, ["sig"]])
def test_any_other_use_is_refused(use: object) -> None:
    assert error_of(jwk("ES256", use=use)) == "use: must be sig"
    read_key(jwk("ES256", use="sig"), ALL)


@pytest.mark.parametrize(
    "key_ops", [[], ["sign"], ["verify", "verify"], "verify", None]
)
def test_any_other_key_ops_are_refused(key_ops: object) -> None:
    assert error_of(jwk("ES256", key_ops=key_ops)).startswith("key_ops: ")
    read_key(jwk("ES256", key_ops=["verify"]), ALL)


@pytest.mark.parametrize(
    "member", ["d", "p", "q", "dp", "dq", "qi", "oth", "k", "priv"]
)
def test_a_private_member_refuses_key_and_set(member: str) -> None:
    assert error_of(jwk("ES256", **{member: "AA"})) == (
        "a private or symmetric member is present"
    )
    bad = {"kid": "other", "use": "enc", member: "secret-text"}
    for data in (
        document(jwk("ES256"), bad),
        document(jwk("ES256"), **{member: "secret-text"}),
    ):
        message = set_error_of(data)
        assert message == "a private or symmetric key is in the set"


@pytest.mark.parametrize("member", ["x", "y"])
@pytest.mark.parametrize("alg", ["ES256", "ES384", "ES512"])
def test_a_coordinate_has_the_full_length(alg: str, member: str) -> None:
    """RFC 7518, section 6.2.1.2."""
    good = base64url.decode(jose_key(alg).jwk[member].encode())
    for data in (b"", good[1:], good[:-1], b"\0" + good, good + b"\0"):
        message = error_of(jwk(alg, **{member: base64url.encode(data)}))
        assert re.match(rf"{member}: must be \d+ bytes for P-", message)


def test_a_coordinate_may_begin_with_zeros() -> None:
    """Writers that cut them off are refused, and those that keep them are right."""
    number = 1
    while True:
        point = ec.derive_private_key(number, ec.SECP256R1()).public_key()
        numbers = point.public_numbers()
        if numbers.x >> 248 == 0:
            break
        number += 1
    x, y = (base64url.encode(n.to_bytes(32, "big")) for n in (numbers.x, numbers.y))
    assert read_key(jwk("ES256", x=x, y=y), ALL).public_key == point


@pytest.mark.parametrize("alg", ["ES256", "ES384", "ES512"])
def test_a_point_beside_the_curve_is_refused(alg: str) -> None:
    """An invalid curve may have few points."""
    x, y = (base64url.decode(jose_key(alg).jwk[n].encode()) for n in "xy")
    length = len(x)
    for pair in ((x, bytes(length)), (bytes(length), bytes(length)), (y, x)):
        members = dict(zip("xy", map(base64url.encode, pair), strict=True))
        message = error_of(jwk(alg, **members))
        assert message == f"x, y: are not a point of {ALGORITHMS[alg].curve}"


def test_a_coordinate_past_the_field_is_refused() -> None:
    """0 is the x of a point of P-256, and the prime of the field is the same number."""
    prime = 2**256 - 2**224 + 2**192 + 2**96 - 1
    b = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
    y = base64url.encode(pow(b, (prime + 1) // 4, prime).to_bytes(32, "big"))
    x, other = (base64url.encode(n.to_bytes(32, "big")) for n in (0, prime))
    read_key(jwk("ES256", x=x, y=y), ALL)
    message = error_of(jwk("ES256", x=other, y=y))
    assert message == "x, y: are not below the field of P-256"


def test_an_ed25519_key_must_be_a_good_point() -> None:
    assert "point" in error_of(jwk("Ed25519", x=base64url.encode(bytes(32))))
    assert "32 bytes" in error_of(jwk("Ed25519", x=base64url.encode(bytes(31))))


@pytest.mark.parametrize("alg", ["ML-DSA-44", "ML-DSA-65", "ML-DSA-87"])
def test_a_lattice_key_of_another_length_is_refused(alg: str) -> None:
    good = base64url.decode(jose_key(alg).jwk["pub"].encode())
    for data in (b"", good[:-1], good + b"\0"):
        message = error_of(jwk(alg, pub=base64url.encode(data)))
        assert message == f"pub: has a wrong length for {alg}"


class OpenSslWithoutEd25519:
    """Answers as `cryptography` does above an OpenSSL that lacks the algorithm."""

    @classmethod
    def from_public_bytes(cls, _data: bytes) -> None:
        raise UnsupportedAlgorithm("ed25519 is not supported by this OpenSSL")


def test_an_algorithm_that_openssl_lacks_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # No OpenSSL here lacks one, so the name that the module uses is replaced.
    name = "Ed25519PublicKey"
    monkeypatch.setattr(verification_keys, name, OpenSslWithoutEd25519)
    assert error_of(jwk("Ed25519")) == "alg: OpenSSL here has no Ed25519"


@pytest.mark.parametrize(
    ("changes", "beginning"),
    [
        (
            {"n": base64url.encode((3 * 2**2046 + 3).to_bytes(256, "big"))},
            "n: has a prime",
        ),
        ({"n": base64url.encode(b"\1" * 255)}, "n: must be odd, of 2048..4096"),
        ({"e": "Aw"}, "e: must be odd, 65537.."),
        (
            {
                "n": base64url.encode(
                    b"\0" + fixed_key("ours").jwk.n.to_bytes(256, "big")
                )
            },
            "n: ",
        ),
        ({"n": ...}, "n: must be base64url text"),
        ({"e": 65537}, "e: must be base64url text"),
    ],
)
def test_a_weak_or_malformed_rsa_key_is_refused(
    changes: dict[str, Any], beginning: str
) -> None:
    assert error_of(jwk("RS256", **changes)).startswith(beginning)


@pytest.mark.parametrize(
    ("alg", "member"), [("ES256", "x"), ("Ed25519", "x"), ("ML-DSA-44", "pub")]
)
@pytest.mark.parametrize("value", [..., None, 1, "=", "AA==", "A A", "é", ["AA"]])
def test_key_material_is_canonical_base64url(
    alg: str, member: str, value: object
) -> None:
    assert error_of(jwk(alg, **{member: value})).startswith(f"{member}: must be ")


def test_a_key_is_bound_to_its_type_and_curve() -> None:
    with pytest.raises(TypeError):
        VerificationKey(
            "kid", ALGORITHMS["ES256"], jose_key("ES384").public().public_key
        )


def test_the_fingerprint_covers_kid_algorithm_and_key() -> None:
    """R27: it is an input of cached facts."""
    keys = [
        read_key(jwk("RS256"), ALL),
        read_key(jwk("RS256", kid="other"), ALL),
        read_key(jwk("RS256", alg="PS256"), ALL),
        read_key({**jose_key("RS256", "theirs").jwk}, ALL),
    ]
    fingerprints = [key.fingerprint for key in keys]
    assert len(set(fingerprints)) == len(keys)
    assert read_key(jwk("RS256", x5t="AA"), ALL).fingerprint == fingerprints[0]


def test_a_set_of_all_algorithms_is_read() -> None:
    found = read_keys(document(*map(jwk, ALGORITHMS)), ALL)
    assert [key.algorithm.name for key in found.keys] == list(ALGORITHMS)
    assert found.unusable == ()


def test_keys_for_encryption_are_skipped() -> None:
    enc = {"kty": "RSA", "use": "enc", "alg": "RSA-OAEP", "kid": "enc"}
    found = read_keys(document(enc, jwk("ES256")), ALL)
    assert [key.kid for key in found.keys] == ["key-ES256"]
    assert found.unusable == ()


def test_unusable_keys_are_named_with_the_reason() -> None:
    odd = jwk("ES384", kid="a\nb", alg="ES256")
    found = read_keys(
        document(jwk("ES256"), jwk("RS256", e="Aw"), jwk("ES384", kid=...), odd), ALL
    )
    assert [key.kid for key in found.keys] == ["key-ES256"]
    assert found.unusable == (
        ("key-RS256", "e: must be odd, 65537..4294967295"),
        ("keys[2]", "kid: must be a string of 1..256 bytes"),
        ("keys[3]", "kty, crv: do not fit alg ES256"),
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not strict JSON"),
        (b"[]", "not strict JSON"),
        (b'{"keys":[],"keys":[]}', "not strict JSON"),
        (b"\xef\xbb\xbf{}", "not strict JSON"),
        (b"{}", "keys: must be a list of objects"),
        (b'{"keys":{}}', "keys: must be a list of objects"),
        (b'{"keys":[1]}', "keys: must be a list of objects"),
        (b'{"keys":[]}', "no key for "),
    ],
)
def test_a_malformed_set_is_refused(data: bytes, message: str) -> None:
    assert message in set_error_of(data)


def test_more_than_100_keys_are_refused() -> None:
    keys = [jwk("ES256", kid=str(number)) for number in range(MAX_KEYS + 1)]
    assert len(read_keys(document(*keys[1:]), ALL).keys) == 100
    assert set_error_of(document(*keys)) == "keys: more than 100"


def test_a_repeated_kid_refuses_the_set() -> None:
    """R20, R67: a kid names one key."""
    for other in (jwk("ES384", kid="key-ES256"), {"use": "enc", "kid": "key-ES256"}):
        assert set_error_of(document(jwk("ES256"), other)) == "a kid is repeated"


def test_a_set_without_a_usable_key_says_why() -> None:
    enc = {"kty": "RSA", "use": "enc", "alg": "RSA-OAEP", "kid": "enc"}
    message = set_error_of(document(jwk("ES256"), jwk("RS256", e="Aw"), enc), RS256)
    assert message == (
        "no key for RS256 can be used; key-ES256: alg: must be one of RS256; "
        "key-RS256: e: must be odd, 65537..4294967295"
    )


def test_the_message_is_bounded() -> None:
    keys = [jwk("ES256", kid=f"{number:0256}") for number in range(MAX_KEYS)]
    message = set_error_of(document(*keys), RS256)
    assert message.endswith("; and 90 more")
    assert len(message) < 4_000
