"""Each algorithm verifies its own signatures and nothing else (R14, R15)."""

from __future__ import annotations

from math import ceil

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import (
    SHA1,
    SHA256,
    SHA384,
    SHA512,
    HashAlgorithm,
)

from shared.jose.algorithms import ALGORITHMS, CURVES, Algorithm, canonical_name
from tests.support.fixed_key import fixed_key
from tests.support.jose_keys import jose_key

MESSAGE = b"header.payload"
RSA_KEY = fixed_key("ours").private_key
ECDSA = ("ES256", "ES384", "ES512")
RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")

every_algorithm = pytest.mark.parametrize("alg", ALGORITHMS)


def verify(alg: str, signature: bytes, message: bytes = MESSAGE) -> None:
    ALGORITHMS[alg].verify(jose_key(alg).public().public_key, signature, message)


def refuse(alg: str, signature: bytes, message: bytes = MESSAGE) -> None:
    with pytest.raises(InvalidSignature):
        verify(alg, signature, message)


def test_the_algorithms_are_these() -> None:
    """No `none`, no HMAC, no curve that others accept by accident."""
    rsa_and_ecdsa = {
        f"{kind}{size}" for kind in ("RS", "PS", "ES") for size in (256, 384, 512)
    }
    lattices = {"ML-DSA-44", "ML-DSA-65", "ML-DSA-87"}
    assert set(ALGORITHMS) == rsa_and_ecdsa | {"Ed25519"} | lattices
    assert {name: algorithm.name for name, algorithm in ALGORITHMS.items()} == {
        name: name for name in ALGORITHMS
    }


def test_eddsa_is_the_old_name_of_ed25519() -> None:
    """RFC 9864. Names are compared with case."""
    assert canonical_name("EdDSA") == "Ed25519"
    assert [canonical_name(n) for n in ("RS256", "eddsa", "Ed448")] == [
        "RS256",
        "eddsa",
        "Ed448",
    ]


@every_algorithm
def test_a_right_signature_passes(alg: str) -> None:
    verify(alg, jose_key(alg).sign(MESSAGE))


@every_algorithm
def test_another_message_is_refused(alg: str) -> None:
    refuse(alg, jose_key(alg).sign(MESSAGE), MESSAGE + b"x")


@every_algorithm
def test_a_signature_of_another_key_is_refused(alg: str) -> None:
    refuse(alg, jose_key(alg, "theirs").sign(MESSAGE))


@every_algorithm
def test_a_signature_of_another_algorithm_is_refused(alg: str) -> None:
    """The RSA algorithms have one key here, so that the key is no obstacle."""
    for other in ALGORITHMS.keys() - {alg}:
        refuse(alg, jose_key(other).sign(MESSAGE))


@every_algorithm
def test_another_length_is_refused(alg: str) -> None:
    signature = jose_key(alg).sign(MESSAGE)
    for changed in (
        b"",
        signature[:-1],
        signature[1:],
        signature + b"\0",
        b"\0" + signature,
        signature + signature,
    ):
        refuse(alg, changed)


@every_algorithm
def test_a_changed_bit_anywhere_is_refused(alg: str) -> None:
    signature = bytearray(jose_key(alg).sign(MESSAGE))
    # 64 bits of each: an ML-DSA signature has thousands of bytes.
    step = ceil(len(signature) / 64)
    for at in range(0, len(signature), step):
        signature[at] ^= 1 << at % 8
        refuse(alg, bytes(signature))
        signature[at] ^= 1 << at % 8
    verify(alg, bytes(signature))


@pytest.mark.parametrize("alg", ECDSA)
def test_an_ecdsa_signature_is_two_numbers_and_no_der(alg: str) -> None:
    """RFC 7518, section 3.4."""
    signature = jose_key(alg).sign(MESSAGE)
    half = len(signature) // 2
    r, s = (int.from_bytes(p, "big") for p in (signature[:half], signature[half:]))
    refuse(alg, encode_dss_signature(r, s))
    for length in (half - 1, half + 1):
        if r < 1 << 8 * length and s < 1 << 8 * length:
            refuse(alg, r.to_bytes(length, "big") + s.to_bytes(length, "big"))


@pytest.mark.parametrize("alg", ECDSA)
def test_an_s_without_its_leading_zero_is_refused(alg: str) -> None:
    """It is the same number: two spellings of one signature."""
    messages = (b"%d" % number for number in range(10_000))
    for message in messages:
        signature = jose_key(alg).sign(message)
        half = len(signature) // 2
        if signature[half] == 0:
            break
    verify(alg, signature, message)
    refuse(alg, signature[:half] + signature[half + 1 :], message)
    refuse(alg, signature[:half] + b"\0" + signature[half:], message)


@pytest.mark.parametrize("alg", ECDSA)
def test_cve_2022_21449_numbers_out_of_range_are_refused(alg: str) -> None:
    curve = CURVES[ALGORITHMS[alg].curve]
    order, length = curve.group_order, (curve.key_size + 7) // 8
    signature = jose_key(alg).sign(MESSAGE)
    r, s = (int.from_bytes(p, "big") for p in (signature[:length], signature[length:]))
    edges = (0, order, order + 1, (1 << 8 * length) - 1)
    pairs = [(0, 0), *((edge, s) for edge in edges), *((r, edge) for edge in edges)]
    for pair in pairs:
        refuse(alg, b"".join(number.to_bytes(length, "big") for number in pair))


def test_a_number_is_reduced_nowhere() -> None:
    """r + order fits into 66 bytes for P-521, and is the same number modulo it."""
    order = CURVES["P-521"].group_order
    signature = jose_key("ES512").sign(MESSAGE)
    r = int.from_bytes(signature[:66], "big") + order
    refuse("ES512", r.to_bytes(66, "big") + signature[66:])


@pytest.mark.parametrize("alg", RSA)
def test_an_rsa_signature_without_its_leading_zero_is_refused(alg: str) -> None:
    """RFC 8017, section 8.1.2, step 1. OpenSSL takes the shorter spelling for PSS."""
    messages = (b"%d" % number for number in range(10_000))
    for message in messages:
        signature = jose_key(alg).sign(message)
        if signature[0] == 0:
            break
    verify(alg, signature, message)
    refuse(alg, signature[1:], message)
    refuse(alg, b"\0" + signature, message)


@pytest.mark.parametrize("salt", [0, 20, 31, 33, 64, 222])
def test_the_salt_is_as_long_as_the_digest(salt: int) -> None:
    """RFC 7518, section 3.5."""
    scheme = padding.PSS(padding.MGF1(SHA256()), salt)
    refuse("PS256", RSA_KEY.sign(MESSAGE, scheme, SHA256()))


@pytest.mark.parametrize("inner", [SHA1(), SHA384(), SHA512()])
def test_the_mask_has_the_same_hash(inner: HashAlgorithm) -> None:
    scheme = padding.PSS(padding.MGF1(inner), 32)
    refuse("PS256", RSA_KEY.sign(MESSAGE, scheme, SHA256()))


def test_an_ed25519_signature_has_one_spelling() -> None:
    """RFC 8032, section 5.1.7: S is below the order."""
    signature = jose_key("Ed25519").sign(MESSAGE)
    order = 2**252 + 27742317777372353535851937790883648493
    s = int.from_bytes(signature[32:], "little") + order
    refuse("Ed25519", signature[:32] + s.to_bytes(32, "little"))


def test_a_key_of_another_type_or_curve_is_a_fault_of_the_program() -> None:
    p384 = ec.derive_private_key(7, ec.SECP384R1()).public_key()
    cases: list[tuple[Algorithm, str]] = [
        (algorithm, other)
        for algorithm in ALGORITHMS.values()
        for other in ALGORITHMS
        if (algorithm.key_type, algorithm.curve)
        != (ALGORITHMS[other].key_type, ALGORITHMS[other].curve)
    ]
    for algorithm, other in cases:
        with pytest.raises(TypeError, match=algorithm.name):
            algorithm.check_key(jose_key(other).public().public_key)
    with pytest.raises(TypeError, match="curve"):
        ALGORITHMS["ES256"].check_key(p384)
