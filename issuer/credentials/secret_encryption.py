"""A TOTP secret at rest: AES-256-GCM under a key of the settings.

Unlike a password it cannot be kept as a digest: each code is made from it. Stored form:
one version byte, a 12-byte nonce, the ciphertext with its tag. Its owner and the id of
the encrypting key are bound as associated data: a row copied to another user does not
open.
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from issuer.errors import UnavailableError
from issuer.settings.issuer_settings import KeyRing

_VERSION: Final = b"\x01"
NONCE_BYTES: Final = 12


def encrypt_secret(
    secret: bytes, *, user_id: str, nonce: bytes, key_ring: KeyRing
) -> bytes:
    """Return the stored form of a secret under the ring's current key.

    The caller stores `key_ring.current_id` beside it.

    Args:
        secret: of a second factor.
        user_id: whose.
        nonce: 12 random bytes.
        key_ring: the keys of the settings.
    """
    bound = _bind(user_id, key_ring.current_id)
    return _VERSION + nonce + AESGCM(key_ring.current).encrypt(nonce, secret, bound)


def decrypt_secret(
    stored: bytes, *, user_id: str, kek_id: str, key_ring: KeyRing
) -> bytes:
    """Return the secret behind its stored form.

    Raises:
        UnavailableError: when the ring lacks `kek_id`, or the form does not open: the
            settings or the database are not what they were.
    """
    kek = key_ring.get(kek_id)
    if kek is None:
        raise UnavailableError(
            detail=f"second factor: ISSUER_KEY_ENCRYPTION_KEYS lacks id {kek_id}"
        )
    nonce, ciphertext = stored[1 : 1 + NONCE_BYTES], stored[1 + NONCE_BYTES :]
    if stored[:1] != _VERSION or len(nonce) != NONCE_BYTES:
        raise UnavailableError(detail="second factor: stored in an unknown form")
    try:
        return AESGCM(kek).decrypt(nonce, ciphertext, _bind(user_id, kek_id))
    except InvalidTag:
        raise UnavailableError(
            detail=f"second factor: does not open under key {kek_id}"
        ) from None


def _bind(user_id: str, kek_id: str) -> bytes:
    return b"\0".join((b"gatehouse second factor", kek_id.encode(), user_id.encode()))
