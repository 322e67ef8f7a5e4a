"""Sealed boxes: secrets at rest, in AES-256-GCM under a key of the settings.

A secret that is needed again cannot be stored as a digest. Stored form: one version
byte, a 12-byte nonce, the ciphertext with its tag. The associated data binds the
purpose, the id of the encrypting key and the owner: a box that is copied to another
row or relabelled does not open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from issuer.errors import UnavailableError
from issuer.settings.key_ring import KeyRing

NONCE_BYTES: Final = 12
_VERSION: Final = b"\x01"


@dataclass(frozen=True, slots=True)
class BoxLabel:
    """The purpose and the owner of a box.

    Attributes:
        purpose: separates the kinds of boxes; part of the stored form.
        owner: id of the row's owner; part of the stored form.
        name: names the box in error texts.
        advice: what an operator does when the encrypting key is missing.
    """

    purpose: bytes
    owner: str
    name: str
    advice: str

    def bind(self, kek_id: str) -> bytes:
        """Return the associated data for a box under this key-encryption key."""
        return b"\0".join((self.purpose, kek_id.encode(), self.owner.encode()))


def seal(
    plaintext: bytes, label: BoxLabel, *, nonce: bytes, key_ring: KeyRing
) -> bytes:
    """Return the stored form of `plaintext` under the ring's current key.

    The caller stores `key_ring.current_id` beside it.

    Args:
        plaintext: the secret.
        label: its purpose and owner.
        nonce: 12 random bytes, never used before with the same key.
        key_ring: the key-encryption keys.
    """
    bound = label.bind(key_ring.current_id)
    return _VERSION + nonce + AESGCM(key_ring.current).encrypt(nonce, plaintext, bound)


def unseal(stored: bytes, label: BoxLabel, *, kek_id: str, key_ring: KeyRing) -> bytes:
    """Return the secret in a box.

    Args:
        stored: what `seal` returned.
        label: the label it was sealed with.
        kek_id: id of the encrypting key, as stored beside it.
        key_ring: every key that may have encrypted it.

    Raises:
        UnavailableError: when the ring lacks `kek_id` or the box does not open. Either
            the settings or the database have been replaced.
    """
    kek = key_ring.get(kek_id)
    if kek is None:
        raise UnavailableError(
            detail=f"{label.name}: ISSUER_KEY_ENCRYPTION_KEYS lacks id {kek_id}: "
            f"put it back behind the first; {label.advice}"
        )
    nonce, ciphertext = stored[1 : 1 + NONCE_BYTES], stored[1 + NONCE_BYTES :]
    if stored[:1] != _VERSION or len(nonce) != NONCE_BYTES:
        raise UnavailableError(detail=f"{label.name}: stored in an unknown form")
    try:
        return AESGCM(kek).decrypt(nonce, ciphertext, label.bind(kek_id))
    except InvalidTag:
        raise UnavailableError(
            detail=f"{label.name}: does not open under key {kek_id}"
        ) from None
