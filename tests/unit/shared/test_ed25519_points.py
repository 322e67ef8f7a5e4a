"""Which 32 bytes are an Ed25519 public key (R68)."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from shared.jose.ed25519_points import check_ed25519_point
from shared.jose.jwk import JwkError

P = 2**255 - 19
SIGN = 1 << 255
ROOT_OF_MINUS_ONE = pow(2, (P - 1) // 4, P)
D = -121665 * pow(121666, -1, P) % P


def of_order_8() -> list[int]:
    """Return the y of the points whose double has y = 0: then x^2 = -y^2.

    By the equation, 2 y^2 = 1 - d y^4, so y^2 = (-1 +- sqrt(1 + d)) / d.
    """
    root = pow(1 + D, (P + 3) // 8, P)
    if root * root % P != (1 + D) % P:
        root = root * ROOT_OF_MINUS_ONE % P
    assert root * root % P == (1 + D) % P
    found = []
    for sign in (1, -1):
        square = (-1 + sign * root) * pow(D, -1, P) % P
        y = pow(square, (P + 3) // 8, P)
        for candidate in (y, y * ROOT_OF_MINUS_ONE % P):
            if candidate * candidate % P == square:
                found += [candidate, P - candidate]
    return found


LOW_ORDER = [0, 1, P - 1, *of_order_8()]


def encoded(number: int) -> bytes:
    return number.to_bytes(32, "little")


def test_every_generated_key_passes() -> None:
    for seed in range(100):
        private_key = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
        check_ed25519_point(private_key.public_key().public_bytes_raw())


def test_all_eight_points_of_low_order_are_known() -> None:
    """Order 1, 2: one point each; order 4: two of y = 0; order 8: four of two y."""
    assert len(set(LOW_ORDER)) == 5


@pytest.mark.parametrize("sign", [0, SIGN])
@pytest.mark.parametrize("y", LOW_ORDER)
def test_a_point_of_low_order_is_refused(y: int, sign: int) -> None:
    with pytest.raises(JwkError, match=r"^x: "):
        check_ed25519_point(encoded(y + sign))


def test_the_library_accepts_points_of_low_order() -> None:
    """Why the check is needed: this signature holds for any message."""
    key = Ed25519PublicKey.from_public_bytes(encoded(1))
    base = encoded(4 * pow(5, -1, P) % P)
    key.verify(base + encoded(1), b"any message")
    key.verify(base + encoded(1), b"another one")


@pytest.mark.parametrize("y", [P, P + 1, P + 3, 2**255 - 1])
def test_a_second_encoding_of_a_number_is_refused(y: int) -> None:
    with pytest.raises(JwkError, match="canonical"):
        check_ed25519_point(encoded(y))


def test_half_of_all_numbers_are_no_point() -> None:
    refused = 0
    for y in range(2, 202):
        try:
            check_ed25519_point(encoded(y))
        except JwkError:
            refused += 1
    assert 70 < refused < 130


@pytest.mark.parametrize("length", [0, 31, 33, 57, 64])
def test_another_length_is_refused(length: int) -> None:
    with pytest.raises(JwkError, match="32 bytes"):
        check_ed25519_point(bytes([9]) * length)
