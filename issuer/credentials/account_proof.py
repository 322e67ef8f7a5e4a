"""Proof as for a login: the password, and a code if a second factor is enrolled.

Needed for credentials that outlive the session (R51): a stolen access token, or a token
and the password without the device, must not become a credential for a year.
"""

from __future__ import annotations

from issuer.acts import Caller
from issuer.clock import seconds
from issuer.credentials.code_guesses import CodeGuesses
from issuer.credentials.password_proof import PasswordProof
from issuer.credentials.second_factor_codes import SecondFactorCodes
from issuer.errors import InvalidRequestError
from issuer.foundation import Foundation
from issuer.http.authorization.principals import Principal


class AccountProof:
    """Verifies password and code of signed-in users; guesses count as at a login.

    Args:
        base: gives the database and the clock.
        proof: verifies the password.
        codes: verify codes.
        guesses: counts and records wrong codes.
    """

    def __init__(
        self,
        base: Foundation,
        proof: PasswordProof,
        codes: SecondFactorCodes,
        guesses: CodeGuesses,
    ) -> None:
        self._database = base.database
        self._proof = proof
        self._codes = codes
        self._guesses = guesses
        self._clock = base.clock

    async def prove(
        self, principal: Principal, password: str, code: str | None, caller: Caller
    ) -> None:
        """Return when the password is right, and the code if a factor is enrolled.

        The code is spent, also if the following act fails.

        Args:
            principal: the user, signed in.
            password: as typed.
            code: as typed, of the app or a recovery code; None if not given.
            caller: origin of the request.

        Raises:
            InvalidRequestError: when a code is needed and not given, or the reverse.
            InvalidSecondFactorError: when the code is wrong or spent; the failure has
                been recorded and counted.
            TooManyRequestsError: while the user has to wait after failures.
            UnavailableError: when the database is away.
            IssuerError: as `PasswordProof.prove` raises.
        """
        user = await self._proof.prove(principal, password, caller)
        async with self._database.read() as db:
            is_enrolled = await self._codes.is_enrolled(db, user.id)
        if code is None:
            if is_enrolled:
                raise _refuse("is needed, for a second factor is enrolled")
            return
        if not is_enrolled:
            # The owner expects a factor that does not exist (any more).
            raise _refuse("must be left out, for no second factor is enrolled")
        async with (
            self._guesses.guess(principal, caller) as attempt,
            self._database.write() as db,
        ):
            await self._codes.verify(db, user.id, code, seconds(self._clock))
            await self._guesses.succeed(db, attempt)


def _refuse(rule: str) -> InvalidRequestError:
    return InvalidRequestError.of_field("code", rule)
