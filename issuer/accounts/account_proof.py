"""Proving again all that a login asks for: the password, and a code where one is enrolled.

For what outlives the session that asks for it (R51): a stolen access token, or a token
and the password without the device, must not be turned into a credential of a year.
"""

from __future__ import annotations

from issuer.accounts.password_proof import PasswordProof
from issuer.accounts.second_factor_codes import SecondFactorCodes
from issuer.accounts.throttle import Attempt, LoginThrottling, Proof
from issuer.acts import Act, AuditWriter, Caller
from issuer.clock import Clock, seconds
from issuer.db import Database
from issuer.errors import (
    FieldProblem,
    InvalidRequestError,
    InvalidSecondFactorError,
)
from issuer.models import User
from issuer.tokens.access import Principal


class AccountProof:
    """Asks signed-in users for password and code; guesses count as a login's do.

    Args:
        database: where accounts are kept.
        proof: asks for the password.
        codes: verify codes.
        throttling: counts wrong codes, together with those of logins.
        clock: gives the time in milliseconds.
        audit: records failures.
    """

    def __init__(
        self,
        database: Database,
        proof: PasswordProof,
        codes: SecondFactorCodes,
        throttling: LoginThrottling,
        *,
        clock: Clock,
        audit: AuditWriter,
    ) -> None:
        self._database = database
        self._proof = proof
        self._codes = codes
        self._throttling = throttling
        self._clock = clock
        self._audit = audit

    async def prove(
        self, principal: Principal, password: str, code: str | None, caller: Caller
    ) -> None:
        """Return when the password is the user's, and the code where one is enrolled.

        The code is spent by it, whatever becomes of what it was shown for.

        Args:
            principal: the user, signed in.
            password: as typed.
            code: as typed: of the app, or a recovery code; None: not given.
            caller: where it comes from.

        Raises:
            InvalidRequestError: when a code is needed and not given, or the reverse.
            InvalidSecondFactorError: when the code is wrong or spent; recorded and
                counted by then.
            TooManyRequestsError: when it has to wait after failures.
            UnavailableError: when the database is away.
            IssuerError: as `PasswordProof.prove` raises.
        """
        user = await self._proof.prove(principal, password, caller)
        attempt = await self._admit(user, code, caller)
        if attempt is None or code is None:
            return
        failure: InvalidSecondFactorError | None = None
        async with self._database.write() as db:
            try:
                now = seconds(self._clock)
                await self._codes.verify(db, user.id, code, now)
            except InvalidSecondFactorError as error:
                failure = error
                facts = {"reason": error.detail}
                act = Act("second_factor.proof_failed", user.id, user.id, facts)
                await self._audit(db, act, caller)
            else:
                await self._throttling.succeed(db, attempt)
        if failure is not None:
            raise failure

    async def _admit(
        self, user: User, code: str | None, caller: Caller
    ) -> Attempt | None:
        """Count the guess at a code before it is made; None: no code is needed."""
        now = seconds(self._clock)
        async with self._database.read() as db:
            is_enrolled = await self._codes.is_enrolled(db, user.id)
            standing = await self._throttling.look(
                db, user.username, address=caller.address, now=now, proof=Proof.CODE
            )
        if is_enrolled and code is None:
            raise _refuse("is needed, for a second factor is enrolled")
        if not is_enrolled:
            if code is not None:
                # Its owner believes in a factor that is not there (any more).
                raise _refuse("must be left out, for no second factor is enrolled")
            return None
        return await self._throttling.admit(standing, now)


def _refuse(rule: str) -> InvalidRequestError:
    return InvalidRequestError(problems=[FieldProblem("code", rule)])
