"""Codes of a second factor: verified and accepted once.

Every method works in the caller's transaction. Only one of two concurrent requests with
the same code succeeds: by the compare-and-swap of `last_step`, or the deletion of the
recovery code.
"""

from __future__ import annotations

import secrets
from typing import Final

from sqlalchemy import delete, exists, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.credentials import recovery_codes, totp
from issuer.credentials.secret_encryption import decrypt_secret
from issuer.errors import InvalidSecondFactorError
from issuer.settings.issuer_settings import KeyRing
from issuer.storage.tables.login import RecoveryCode, SecondFactorRow

#: The two kinds of code.
TOTP: Final = "totp"
RECOVERY_CODE: Final = "recovery_code"


class SecondFactorCodes:
    """Verifies the codes of users who have enrolled.

    Args:
        key_ring: decrypts the secrets.
    """

    def __init__(self, key_ring: KeyRing) -> None:
        self._key_ring = key_ring

    async def is_enrolled(self, db: AsyncSession, user_id: str) -> bool:
        """Return whether the user's logins need a code."""
        found = await db.scalar(
            select(
                exists().where(
                    SecondFactorRow.user_id == user_id,
                    SecondFactorRow.confirmed_at.is_not(None),
                )
            )
        )
        return bool(found)

    async def verify(self, db: AsyncSession, user_id: str, code: str, now: int) -> str:
        """Spend a code; return its kind, `totp` or `recovery_code`.

        Args:
            db: a write transaction.
            user_id: the user.
            code: as typed; six digits of the app, or a recovery code.
            now: Unix seconds.

        Raises:
            InvalidSecondFactorError: when it is wrong or spent, or the user has no
                second factor. Nothing is written.
            UnavailableError: when the secret cannot be opened.
        """
        row = await db.get(SecondFactorRow, user_id)
        if row is None or row.confirmed_at is None:
            raise InvalidSecondFactorError(detail="no second factor")
        if not totp.is_code(code):
            await self._spend_recovery_code(db, user_id, code)
            return RECOVERY_CODE
        step = totp.find_step(
            self.open_secret(row), code, now=now, last_step=row.last_step
        )
        swapped = await db.scalar(
            update(SecondFactorRow)
            .where(
                SecondFactorRow.user_id == user_id,
                or_(
                    SecondFactorRow.last_step < step,
                    SecondFactorRow.last_step > totp.latest_step(now),
                ),
            )
            .values(last_step=step)
            .returning(SecondFactorRow.user_id)
            .execution_options(synchronize_session=False)
        )
        if swapped is None:
            raise InvalidSecondFactorError(detail="spent code")
        return TOTP

    async def issue_recovery_codes(
        self, db: AsyncSession, user_id: str
    ) -> tuple[str, ...]:
        """Replace the user's recovery codes and return the new ones."""
        await self.void_recovery_codes(db, user_id)
        codes = tuple(
            recovery_codes.make_code(secrets.token_bytes(recovery_codes.RANDOM_BYTES))
            for _ in range(recovery_codes.COUNT)
        )
        rows = [
            {"digest": recovery_codes.digest_code(user_id, code), "user_id": user_id}
            for code in codes
        ]
        await db.execute(insert(RecoveryCode), rows)
        return codes

    async def void_recovery_codes(self, db: AsyncSession, user_id: str) -> None:
        """Delete a user's recovery codes."""
        await db.execute(delete(RecoveryCode).where(RecoveryCode.user_id == user_id))

    async def count_recovery_codes(self, db: AsyncSession, user_id: str) -> int:
        """Return how many recovery codes the user has left."""
        query = select(func.count()).where(RecoveryCode.user_id == user_id)
        return await db.scalar(query) or 0

    def open_secret(self, row: SecondFactorRow) -> bytes:
        """Return the secret of a second factor.

        Raises:
            UnavailableError: when it cannot be opened.
        """
        return decrypt_secret(
            row.secret_encrypted,
            user_id=row.user_id,
            kek_id=row.kek_id,
            key_ring=self._key_ring,
        )

    async def _spend_recovery_code(
        self, db: AsyncSession, user_id: str, code: str
    ) -> None:
        spent = await db.scalar(
            delete(RecoveryCode)
            .where(
                RecoveryCode.digest == recovery_codes.digest_code(user_id, code),
                RecoveryCode.user_id == user_id,
            )
            .returning(RecoveryCode.digest)
        )
        if spent is None:
            raise InvalidSecondFactorError(detail="wrong recovery code")
