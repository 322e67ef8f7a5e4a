"""`python -m issuer reencrypt-keys`: moves every stored secret to the present key."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from issuer.credentials.secret_reencryption import reencrypt_secrets

if TYPE_CHECKING:
    from issuer.composition import Issuer


async def run(issuer: Issuer, actor: str) -> None:
    """Run the command.

    Args:
        issuer: the composed parts.
        actor: for the audit.

    Raises:
        UnavailableError: when a secret does not open, or the database is away.
    """
    ring = issuer.base.settings.key_encryption_keys
    keys = await issuer.keys.rotation.reencrypt(ring, actor=actor)
    factors = await reencrypt_secrets(issuer.base.database, ring)
    sys.stdout.write(
        f"Under key {ring.current_id} now: {keys} more signing keys, {factors} more "
        "second factors.\n"
    )
    sys.stderr.write(
        "Audit events stay sealed by the keys of their time: keep those keys, or name "
        "them to `audit verify --retired-key`.\n"
    )
