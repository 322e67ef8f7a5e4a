"""A TOTP secret at rest: a sealed box that is bound to its user.

`storage/sealed_boxes.py` describes its form.
"""

from __future__ import annotations

from issuer.settings.key_ring import KeyRing
from issuer.storage.sealed_boxes import BoxLabel, seal, unseal


def encrypt_secret(
    secret: bytes, *, user_id: str, nonce: bytes, key_ring: KeyRing
) -> bytes:
    """Return the stored form of a secret under the ring's current key.

    The caller stores `key_ring.current_id` beside it.

    Args:
        secret: the TOTP secret.
        user_id: its owner.
        nonce: 12 random bytes.
        key_ring: the key-encryption keys.
    """
    return seal(secret, _label(user_id), nonce=nonce, key_ring=key_ring)


def decrypt_secret(
    stored: bytes, *, user_id: str, kek_id: str, key_ring: KeyRing
) -> bytes:
    """Return the secret behind its stored form.

    Raises:
        UnavailableError: when the ring lacks `kek_id` or the box does not open. Either
            the settings or the database have been replaced.
    """
    return unseal(stored, _label(user_id), kek_id=kek_id, key_ring=key_ring)


def _label(user_id: str) -> BoxLabel:
    return BoxLabel(
        purpose=b"gatehouse second factor",
        owner=user_id,
        name="second factor",
        advice="when it is lost, reset the second factor of the user",
    )
