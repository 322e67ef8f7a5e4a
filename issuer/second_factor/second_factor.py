"""A user's second factor: enrolled, confirmed, removed; reset by an administrator.

A stolen access token alone can neither add one (and lock out its owner) nor remove it:
both need the password.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from sqlalchemy import delete, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.acts import Act, Caller
from issuer.clock import seconds
from issuer.credentials import totp
from issuer.credentials.code_guesses import CodeGuesses
from issuer.credentials.failure_counts import LoginAttempt
from issuer.credentials.password_proof import PasswordProof, hold_proved
from issuer.credentials.second_factor_codes import SecondFactorCodes
from issuer.credentials.secret_encryption import encrypt_secret
from issuer.errors import ConflictError, NotFoundError
from issuer.foundation import Foundation
from issuer.http.authorization.principals import Principal
from issuer.login.login_challenges import end_challenges, lock_user
from issuer.sessions.logout import require_person
from issuer.storage.lifetimes import is_future
from issuer.storage.sealed_boxes import NONCE_BYTES
from issuer.storage.tables.login import SecondFactorRow
from issuer.storage.tables.users import User

#: Seconds in which an enrolment must be confirmed by a first code.
ENROLMENT_TTL: Final = 600


@dataclass(frozen=True, slots=True)
class Enrolment:
    """The data for an authenticator app; `expires_in` is in seconds."""

    secret: str
    otpauth_uri: str
    expires_in: int = ENROLMENT_TTL


@dataclass(frozen=True, slots=True)
class FactorStatus:
    """Whether a second factor is on, since when (Unix seconds), and the codes left."""

    enrolled_at: int | None
    recovery_codes_left: int


class SecondFactors:
    """Manages users' second factors.

    Args:
        base: gives the database, the clock, the audit and the settings.
        codes: verify codes.
        proof: verifies the password.
        guesses: counts and records wrong codes.
    """

    def __init__(
        self,
        base: Foundation,
        codes: SecondFactorCodes,
        proof: PasswordProof,
        guesses: CodeGuesses,
    ) -> None:
        self._database = base.database
        self._key_ring = base.settings.key_encryption_keys
        self._codes = codes
        self._proof = proof
        self._guesses = guesses
        self._clock = base.clock
        self._audit = base.audit
        url = base.settings.url
        #: Shown by apps beside the user name.
        self._issuer_name = urlsplit(url).hostname or url

    async def show(self, principal: Principal) -> FactorStatus:
        """Return whether the user has a second factor.

        Raises:
            ForbiddenError: when the access token is a client's own.
            UnavailableError: when the database is away.
        """
        require_person(principal)
        async with self._database.read() as db:
            row = await db.get(SecondFactorRow, principal.subject)
            left = await self._codes.count_recovery_codes(db, principal.subject)
        return FactorStatus(row.confirmed_at if row else None, left)

    async def enrol(
        self, principal: Principal, password: str, caller: Caller
    ) -> Enrolment:
        """Return a new secret; it is in force once `confirm` has accepted a code.

        Raises:
            ConflictError: when the user has a second factor already, or the account
                was changed at the same time.
            IssuerError: as `PasswordProof.prove` raises.
        """
        user = await self._proof.prove(principal, password, caller)
        secret = secrets.token_bytes(totp.SECRET_BYTES)
        encrypted = encrypt_secret(
            secret,
            user_id=user.id,
            nonce=secrets.token_bytes(NONCE_BYTES),
            key_ring=self._key_ring,
        )
        row = SecondFactorRow(
            user_id=user.id,
            secret_encrypted=encrypted,
            kek_id=self._key_ring.current_id,
            created_at=seconds(self._clock),
            last_step=0,
        )
        try:
            async with self._database.write() as db:
                await hold_proved(db, user)
                # Never one that is on, also if it is confirmed at this moment.
                await db.execute(
                    delete(SecondFactorRow).where(
                        SecondFactorRow.user_id == user.id,
                        SecondFactorRow.confirmed_at.is_(None),
                    )
                )
                db.add(row)
        except IntegrityError:
            raise ConflictError("There is a second factor already.") from None
        uri = totp.build_uri(secret, username=user.username, issuer=self._issuer_name)
        return Enrolment(totp.show_secret(secret), uri)

    async def confirm(
        self, principal: Principal, code: str, caller: Caller
    ) -> tuple[str, ...]:
        """Switch the enrolled factor on by a first code; return the recovery codes.

        Raises:
            ForbiddenError: when the access token is a client's own.
            InvalidSecondFactorError: when the code is wrong. The failure has been
                counted and recorded, and the enrolment stays.
            TooManyRequestsError: while the user has to wait after wrong codes.
            NotFoundError: when there is no enrolment, or it is too old.
            ConflictError: when the factor is on already, or was enrolled anew at the
                same time.
            UnavailableError: when the database is away.
        """
        require_person(principal)
        user_id, now = principal.subject, seconds(self._clock)
        async with self._database.read() as db:
            await _read_enrolment(db, user_id, now)
        async with (
            self._guesses.guess(principal, caller) as attempt,
            self._database.write() as db,
        ):
            row = await _read_enrolment(db, user_id, now)
            step = totp.find_step(
                self._codes.open_secret(row), code, now=now, last_step=row.last_step
            )
            await _mark_confirmed(db, row, step, now)
            await self._guesses.succeed(db, attempt)
            codes = await self._codes.issue_recovery_codes(db, user_id)
            act = Act("second_factor.enrolled", actor=user_id, subject=user_id)
            await self._audit(db, act, caller)
        return codes

    async def replace_recovery_codes(
        self, principal: Principal, password: str, code: str, caller: Caller
    ) -> tuple[str, ...]:
        """Return new recovery codes; the old ones are void.

        Raises:
            InvalidSecondFactorError: when the code is wrong or spent.
            ConflictError: when the account was changed at the same time.
            IssuerError: as `PasswordProof.prove` raises.
        """
        user = await self._proof.prove(principal, password, caller)
        async with (
            self._guesses.guess(principal, caller) as attempt,
            self._database.write() as db,
        ):
            await self._require_code(db, user, attempt, code)
            codes = await self._codes.issue_recovery_codes(db, user.id)
            act = Act("second_factor.recovery_codes_replaced", user.id, user.id)
            await self._audit(db, act, caller)
        return codes

    async def remove(
        self, principal: Principal, password: str, code: str, caller: Caller
    ) -> None:
        """Switch the second factor off.

        Raises:
            InvalidSecondFactorError: when the code is wrong or spent, or there is no
                second factor.
            ConflictError: when the account was changed at the same time.
            IssuerError: as `PasswordProof.prove` raises.
        """
        user = await self._proof.prove(principal, password, caller)
        async with (
            self._guesses.guess(principal, caller) as attempt,
            self._database.write() as db,
        ):
            await self._require_code(db, user, attempt, code)
            await self._delete(db, user.id)
            act = Act("second_factor.removed", actor=user.id, subject=user.id)
            await self._audit(db, act, caller)

    async def reset(self, user_id: str, caller: Caller, *, actor: str) -> None:
        """Switch off the second factor of a user who has lost device and codes.

        Args:
            user_id: the user.
            caller: origin of the request.
            actor: subject of the administrator.

        Raises:
            NotFoundError: when the user has none.
            UnavailableError: when the database is away.
        """
        async with self._database.write() as db:
            await lock_user(db, user_id)
            if not await self._delete(db, user_id):
                raise NotFoundError
            act = Act("second_factor.reset", actor=actor, subject=user_id)
            await self._audit(db, act, caller)

    async def _require_code(
        self, db: AsyncSession, user: User, attempt: LoginAttempt, code: str
    ) -> None:
        await hold_proved(db, user)
        await self._codes.verify(db, user.id, code, seconds(self._clock))
        await self._guesses.succeed(db, attempt)

    async def _delete(self, db: AsyncSession, user_id: str) -> bool:
        deleted = await db.scalar(
            delete(SecondFactorRow)
            .where(SecondFactorRow.user_id == user_id)
            .returning(SecondFactorRow.user_id)
        )
        await self._codes.void_recovery_codes(db, user_id)
        await end_challenges(db, user_id)
        return deleted is not None


async def _read_enrolment(db: AsyncSession, user_id: str, now: int) -> SecondFactorRow:
    """Return the unconfirmed enrolment.

    Raises:
        NotFoundError: when there is none, or it is too old.
        ConflictError: when it is confirmed.
    """
    row = await db.get(SecondFactorRow, user_id)
    if row is None or row.created_at + ENROLMENT_TTL <= now:
        raise NotFoundError
    if is_future(row.created_at, now):
        raise NotFoundError
    if row.confirmed_at is not None:
        raise ConflictError("The second factor is on already.")
    return row


async def _mark_confirmed(
    db: AsyncSession, row: SecondFactorRow, step: int, now: int
) -> None:
    """Switch on the factor that was read.

    Raises:
        ConflictError: when it has been confirmed or enrolled anew since.
    """
    confirmed = await db.scalar(
        update(SecondFactorRow)
        .where(
            SecondFactorRow.user_id == row.user_id,
            SecondFactorRow.confirmed_at.is_(None),
            SecondFactorRow.secret_encrypted == row.secret_encrypted,
        )
        .values(confirmed_at=now, last_step=step)
        .returning(SecondFactorRow.user_id)
        .execution_options(synchronize_session=False)
    )
    if confirmed is None:
        raise ConflictError("The second factor was changed at the same time.")
