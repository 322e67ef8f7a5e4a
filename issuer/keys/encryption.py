"""The private half of a signing key at rest: AES-256-GCM under a key of the settings.

Stored form: one version byte, a 12-byte nonce, the ciphertext with its tag. The key's
`kid` and the id of the encrypting key are bound as associated data: a row that was
copied under another kid, or relabelled, does not open.
"""

from __future__ import annotations

import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from issuer.errors import UnavailableError
from issuer.settings.issuer_settings import KeyRing

_VERSION: Final = b"\x01"
_NONCE_BYTES: Final = 12


def encrypt_private_key(
    private_key: RSAPrivateKey, *, kid: str, key_ring: KeyRing
) -> bytes:
    """Return the stored form of `private_key` under the ring's current key.

    The caller stores `key_ring.current_id` beside it.
    """
    plaintext = private_key.private_bytes(
        Encoding.DER, PrivateFormat.PKCS8, NoEncryption()
    )
    nonce = os.urandom(_NONCE_BYTES)
    bound = _bind(kid, key_ring.current_id)
    return _VERSION + nonce + AESGCM(key_ring.current).encrypt(nonce, plaintext, bound)


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
        UnavailableError: when the ring lacks `kek_id`, or the form does not open: the
            settings or the database are not what they were.
    """
    kek = key_ring.get(kek_id)
    if kek is None:
        raise UnavailableError(
            detail=f"signing key {kid}: ISSUER_KEY_ENCRYPTION_KEYS lacks id {kek_id}: "
            "put it back behind the first; when it is lost, `rotate-keys --now` makes "
            "another signing key"
        )
    version, nonce = stored[:1], stored[1 : 1 + _NONCE_BYTES]
    if version != _VERSION or len(nonce) != _NONCE_BYTES:
        raise UnavailableError(detail=f"signing key {kid}: stored in an unknown form")
    ciphertext = stored[1 + _NONCE_BYTES :]
    try:
        plaintext = AESGCM(kek).decrypt(nonce, ciphertext, _bind(kid, kek_id))
    except InvalidTag:
        raise UnavailableError(
            detail=f"signing key {kid}: does not open under key {kek_id}"
        ) from None
    # The seal tells that we wrote these very bytes. Checking once more that the primes
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
        stored: as it is.
        kid: the key's own id.
        kek_id: the id of the key that encrypted it until now.
        key_ring: holds both.

    Raises:
        UnavailableError: as `decrypt_private_key`.
    """
    private_key = decrypt_private_key(stored, kid=kid, kek_id=kek_id, key_ring=key_ring)
    return encrypt_private_key(private_key, kid=kid, key_ring=key_ring)


def _bind(kid: str, kek_id: str) -> bytes:
    return b"\0".join((b"gatehouse signing key", kek_id.encode(), kid.encode()))
