"""Encrypts every TOTP secret under the present key-encryption key."""

from __future__ import annotations

import os
from typing import Final

from sqlalchemy import select

from issuer.credentials.secret_encryption import decrypt_secret, encrypt_secret
from issuer.settings.issuer_settings import KeyRing
from issuer.storage.db import Database
from issuer.storage.sealed_boxes import NONCE_BYTES
from issuer.storage.tables.login import SecondFactorRow

_BATCH: Final = 500


async def reencrypt_secrets(database: Database, key_ring: KeyRing) -> int:
    """Encrypt every secret under the ring's current key; return how many.

    It runs in short transactions; after an interruption, run it again.

    Raises:
        UnavailableError: when one does not open, or the database is away.
    """
    count = 0
    while True:
        async with database.write() as db:
            rows = (
                await db.scalars(
                    select(SecondFactorRow)
                    .where(SecondFactorRow.kek_id != key_ring.current_id)
                    .order_by(SecondFactorRow.user_id)
                    .limit(_BATCH)
                    .with_for_update()
                )
            ).all()
            for row in rows:
                secret = decrypt_secret(
                    row.secret_encrypted,
                    user_id=row.user_id,
                    kek_id=row.kek_id,
                    key_ring=key_ring,
                )
                row.secret_encrypted = encrypt_secret(
                    secret,
                    user_id=row.user_id,
                    nonce=os.urandom(NONCE_BYTES),
                    key_ring=key_ring,
                )
                row.kek_id = key_ring.current_id
        if not rows:
            return count
        count += len(rows)
