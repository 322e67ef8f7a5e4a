"""The private half of a signing key at rest: PKCS #8 in a sealed box.

The box is bound to the key's `kid`; `storage/sealed_boxes.py` describes its form.
"""

from __future__ import annotations

import os

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from issuer.errors import UnavailableError
from issuer.settings.key_ring import KeyRing
from issuer.storage.sealed_boxes import NONCE_BYTES, BoxLabel, seal, unseal


def encrypt_private_key(
    private_key: RSAPrivateKey, *, kid: str, key_ring: KeyRing
) -> bytes:
    """Return the stored form of `private_key` under the ring's current key.

    The caller stores `key_ring.current_id` beside it.
    """
    plaintext = private_key.private_bytes(
        Encoding.DER, PrivateFormat.PKCS8, NoEncryption()
    )
    return seal(
        plaintext, _label(kid), nonce=os.urandom(NONCE_BYTES), key_ring=key_ring
    )


def decrypt_private_key(
    stored: bytes, *, kid: str, kek_id: str, key_ring: KeyRing
) -> RSAPrivateKey:
    """Return the private key behind its stored form.

    Args:
        stored: what `encrypt_private_key` returned.
        kid: the key's own id.
        kek_id: the id of the encrypting key, as stored beside it.
        key_ring: every key that may have encrypted it.

    Raises:
        UnavailableError: when the ring lacks `kek_id` or the box does not open. Either
            the settings or the database have been replaced.
    """
    plaintext = unseal(stored, _label(kid), kek_id=kek_id, key_ring=key_ring)
    # The tag proves that these are the bytes we wrote. Checking again that the primes
    # are primes (46 ms) would delay each start and each rotation's first signature.
    private_key = load_der_private_key(
        plaintext, password=None, unsafe_skip_rsa_key_validation=True
    )
    if not isinstance(private_key, RSAPrivateKey):
        raise UnavailableError(detail=f"signing key {kid}: is not an RSA key")
    return private_key


def reencrypt_private_key(
    stored: bytes, *, kid: str, kek_id: str, key_ring: KeyRing
) -> bytes:
    """Return the stored form under the ring's current key.

    Args:
        stored: the present form.
        kid: the key's own id.
        kek_id: the id of the key that encrypted it until now.
        key_ring: holds both keys.

    Raises:
        UnavailableError: as `decrypt_private_key`.
    """
    private_key = decrypt_private_key(stored, kid=kid, kek_id=kek_id, key_ring=key_ring)
    return encrypt_private_key(private_key, kid=kid, key_ring=key_ring)


def _label(kid: str) -> BoxLabel:
    return BoxLabel(
        purpose=b"gatehouse signing key",
        owner=kid,
        name=f"signing key {kid}",
        advice="when it is lost, `rotate-keys --now` makes another signing key",
    )
