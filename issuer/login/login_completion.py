"""The end of every login, with or without a second factor: a session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from issuer.acts import Act, AuditWriter, Caller
from issuer.credentials.failure_counts import LoginAttempt
from issuer.credentials.throttle import LoginThrottling
from issuer.login.device_tokens import DeviceTokens
from issuer.sessions.open_sessions import OpenSession
from issuer.sessions.sessions import Sessions, TokenPair
from issuer.tokens.subjects import Subject


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """The answer to a login.

    Attributes:
        pair: the session's tokens.
        device_token: for the next login on this device; None if they are off.
    """

    pair: TokenPair
    device_token: str | None


class LoginCompletion:
    """Opens the session of a login after all proofs.

    Args:
        sessions: opens the session.
        devices: make the device's token.
        throttling: stores the network of the login.
        audit: records the login.
    """

    def __init__(
        self,
        sessions: Sessions,
        devices: DeviceTokens,
        throttling: LoginThrottling,
        audit: AuditWriter,
    ) -> None:
        self._sessions = sessions
        self._devices = devices
        self._throttling = throttling
        self._audit = audit

    async def complete(
        self,
        db: AsyncSession,
        subject: Subject,
        attempt: LoginAttempt,
        caller: Caller,
        *,
        scope: str,
        amr: tuple[str, ...],
        now: int,
        facts: Mapping[str, str],
    ) -> OpenSession:
        """Return the session, opened in the write transaction that loaded `subject`.

        Args:
            db: the transaction; it holds the user's row.
            subject: the user, enabled.
            attempt: the last proof, which succeeded.
            caller: origin of the request.
            scope: the session's scope, space-delimited.
            amr: the methods of the login (RFC 8176).
            now: Unix seconds.
            facts: further facts for the audit event.
        """
        session = await self._sessions.open(db, subject, caller, scope=scope, amr=amr)
        await self._throttling.succeed(db, attempt)
        await self._throttling.remember_source(
            db, attempt.recorded, subject.user_id, now
        )
        sid, device = session.grant.sid, caller.device_label
        recorded = {"sid": sid, "device": device, **facts}
        act = Act("login.succeeded", subject.user_id, subject.user_id, recorded)
        await self._audit(db, act, caller)
        await self._sessions.keep_limit(db, session, caller)
        return session

    async def answer(self, session: OpenSession) -> LoggedIn:
        """Return the tokens of a session whose transaction is committed.

        Raises:
            UnavailableError: when there is no signing key; the session remains open.
        """
        grant = session.grant
        device_token = self._devices.issue(grant.subject, grant.generation, session.now)
        return LoggedIn(await self._sessions.answer(session), device_token)
