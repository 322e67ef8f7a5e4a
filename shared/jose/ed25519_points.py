"""Which 32 bytes are a public key for Ed25519 (RFC 8032, section 5.1.3).

`cryptography` takes any 32 bytes. With a key of low order some signatures hold for many
messages, so such a key proves nothing.
"""

from __future__ import annotations

from typing import Final

from shared.jose.jwk import JwkError

#: The field, and `d` of the curve `-x^2 + y^2 = 1 + d x^2 y^2` (RFC 8032, section 5.1).
_FIELD: Final = 2**255 - 19
_D: Final = -121665 * pow(121666, -1, _FIELD) % _FIELD
_KEY_BYTES: Final = 32


def check_ed25519_point(data: bytes) -> None:
    """Check that the bytes are the one encoding of a point of high order.

    Args:
        data: `y`, little-endian, with the sign of `x` in the top bit.

    Raises:
        JwkError: naming the member `x` of the JWK, and the rule.
    """
    if len(data) != _KEY_BYTES:
        raise JwkError(f"x: must be {_KEY_BYTES} bytes for Ed25519")
    y = int.from_bytes(data, "little") & ((1 << 255) - 1)
    if y >= _FIELD:
        raise JwkError("x: is not the canonical encoding of a point")
    # 0 counts as no square: x is 0 for the points of order 1 and 2 alone.
    if not _is_square(_x_squared(y)):
        raise JwkError("x: is not a point of Ed25519 that can be a key")
    # The curve has 8 points of low order. Eight times such a point is the identity.
    eightfold = _double(_double(_double(y)))
    if eightfold == 1:
        raise JwkError("x: is a point of low order")


def _x_squared(y: int) -> int:
    """Return `x^2` by the equation of the curve; its denominator is never 0."""
    return (y * y - 1) * pow(_D * y * y + 1, -1, _FIELD) % _FIELD


def _is_square(value: int) -> bool:
    """Return whether a number has a root in the field, and is not 0 (Euler)."""
    return pow(value, (_FIELD - 1) // 2, _FIELD) == 1


def _double(y: int) -> int:
    """Return the `y` of twice the point (RFC 8032, section 5.1.4)."""
    x_squared = _x_squared(y)
    return (y * y + x_squared) * pow(2 + x_squared - y * y, -1, _FIELD) % _FIELD
