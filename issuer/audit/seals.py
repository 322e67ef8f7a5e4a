"""Seals: proof that an issuer wrote an audit row and its place in the chain.

Anyone with write access to the database can write rows and compute digests. A seal is
an HMAC-SHA-256 under a key of the settings, which is not in the database. Text form
`ID.MAC`, or `ID.NONCE.MAC` for an event: the nonce makes every seal different, so a
copied event is detected.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Mapping
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from issuer.settings.issuer_settings import KeyRing
from shared.jose import base64url

_NONCE_BYTES: Final = 16
_KEY_BYTES: Final = 32


class SealError(Exception):
    """A seal is not one of ours; the message gives the reason, not the row."""


class UnknownSealKeyError(SealError):
    """A seal names a key that the settings lack: `key_id`."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"ISSUER_KEY_ENCRYPTION_KEYS lacks id {key_id}")
        self.key_id = key_id


class Sealer:
    """Makes seals and checks them.

    Args:
        key_ring: the settings' key-encryption keys; the sealing keys are derived from
            them, so that neither use affects the other.
    """

    def __init__(self, key_ring: KeyRing) -> None:
        self._current_id = key_ring.current_id
        self._keys: Mapping[str, bytes] = {
            key_id: _derive(key) for key_id, key in key_ring.items()
        }

    def seal(self, content: bytes) -> str:
        """Return the seal of a link or a checkpoint."""
        mac = _mac(self._keys[self._current_id], content)
        return f"{self._current_id}.{mac}"

    def seal_event(self, content: bytes) -> str:
        """Return a seal of an event, different at each call."""
        nonce = base64url.encode(os.urandom(_NONCE_BYTES))
        mac = _mac(self._keys[self._current_id], nonce.encode() + b"\0" + content)
        return f"{self._current_id}.{nonce}.{mac}"

    def check(self, seal: str, content: bytes) -> None:
        """Return when the seal was made by `seal` for this content.

        Raises:
            UnknownSealKeyError: when the settings lack the key it names.
            SealError: when it was not.
        """
        key_id, _, mac = seal.partition(".")
        self._compare(key_id, mac, content)

    def check_event(self, seal: str, content: bytes) -> None:
        """Return when the seal was made by `seal_event` for this content.

        Raises:
            UnknownSealKeyError: when the settings lack the key it names.
            SealError: when it was not.
        """
        key_id, _, rest = seal.partition(".")
        nonce, _, mac = rest.partition(".")
        self._compare(key_id, mac, nonce.encode() + b"\0" + content)

    def _compare(self, key_id: str, mac: str, content: bytes) -> None:
        key = self._keys.get(key_id)
        if key is None:
            raise UnknownSealKeyError(key_id)
        if not hmac.compare_digest(_mac(key, content).encode(), mac.encode()):
            raise SealError("its seal does not fit")


def _derive(key: bytes) -> bytes:
    return HKDF(SHA256(), _KEY_BYTES, None, b"gatehouse audit seal").derive(key)


def _mac(key: bytes, content: bytes) -> str:
    return base64url.encode(hmac.digest(key, content, "sha256"))
