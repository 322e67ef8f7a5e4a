"""Exchanges a personal key for an access token of the usual lifetime.

The token's `sid` is the key's id: one `sid` entry of the feed ends all tokens of the
key. They have the owner's generation, so they also end with the owner's tokens. Their
`roles` are empty: a role would grant more than the key's scopes.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import or_, select, update

from issuer.acts import Act, Caller
from issuer.audit.counts import AuditCounts
from issuer.clock import seconds
from issuer.errors import InvalidRequestError, InvalidScopeError
from issuer.foundation import Foundation
from issuer.http.authorization.principals import PERSONAL_KEY_CLIENT_ID
from issuer.http.authorization.scopes import (
    ADMIN_SCOPE,
    format_scope,
    parse_scope,
    require_subset,
)
from issuer.personal_keys.personal_key_form import digest_key
from issuer.storage.lifetimes import is_future
from issuer.storage.tables.personal_keys import PersonalKey
from issuer.tokens.access import AccessTokens
from issuer.tokens.minting import AccessGrant, MintedToken
from issuer.tokens.subjects import Subject, load_subject

#: `last_used_at` is written when it is older than this many seconds, not at every use.
_USE_NOTED_EVERY: Final = 3_600


class PersonalKeyExchange:
    """Exchanges personal keys for access tokens.

    Args:
        base: gives the database, the clock, the rate limits and the settings.
        access_tokens: mint the tokens.
        counts: records each exchange and each refusal before it is answered.
    """

    def __init__(
        self, base: Foundation, access_tokens: AccessTokens, counts: AuditCounts
    ) -> None:
        self._database = base.database
        self._access_tokens = access_tokens
        self._limits = base.limits
        self._clock = base.clock
        self._counts = counts
        self._may_administer = base.settings.personal_key_admin

    async def exchange(
        self, key: str, scope: str | None, caller: Caller
    ) -> tuple[MintedToken, str]:
        """Return an access token for a key, and its scope.

        Args:
            key: as presented.
            scope: the requested part of the key's scopes, space-delimited; None
                requests all that its owner still has.
            caller: origin of the request.

        Raises:
            InvalidRequestError: when the key is not valid, for any cause (the code of
                RFC 8693, section 2.2.2).
            InvalidScopeError: when the scope exceeds those of key and owner.
            TooManyRequestsError: when the owner's keys are exchanged too often.
            UnavailableError: when the database is away.
        """
        now = seconds(self._clock)
        row, subject = await self._find(key, now, caller)
        try:
            granted = self._choose_scopes(row, subject, scope)
        except InvalidScopeError:
            await self._note_refusal(row, "scope", caller)
            raise
        async with self._database.write() as db:
            await self._limits.exchanges.take(db, subject.user_id)
        await self._note_use(row, now)
        facts = {"key_id": row.id}
        act = Act("personal_key.exchanged", row.user_id, row.user_id, facts)
        await self._counts.note_grant(act, caller)
        grant = _build_grant(row, subject, format_scope(granted))
        return await self._access_tokens.mint(grant, now), grant.scope

    async def _find(
        self, key: str, now: int, caller: Caller
    ) -> tuple[PersonalKey, Subject]:
        """Return the valid key and its owner, or record the cause and raise."""
        try:
            digest = digest_key(key)
        except InvalidRequestError:
            await self._note_refusal(None, "malformed", caller)
            raise
        async with self._database.read() as db:
            row = await db.scalar(
                select(PersonalKey).where(PersonalKey.digest == digest)
            )
            subject = None if row is None else await load_subject(db, row.user_id)
        try:
            return _require_living(row, subject, now)
        except InvalidRequestError as error:
            await self._note_refusal(row, error.detail, caller)
            raise

    def _choose_scopes(
        self, row: PersonalKey, subject: Subject, scope: str | None
    ) -> frozenset[str]:
        # Scopes that the owner has lost are lost for the key.
        allowed = frozenset(row.scopes.split()) & frozenset(subject.scope.split())
        if not self._may_administer:
            # Keys made before the setting existed, or while it was on, have the scope.
            allowed -= {ADMIN_SCOPE}
        return allowed if scope is None else require_subset(parse_scope(scope), allowed)

    async def _note_refusal(
        self, row: PersonalKey | None, reason: str, caller: Caller
    ) -> None:
        """Record a refusal. The bearer need not be the owner: the actor is unknown."""
        subject, facts = "unknown", {"reason": reason}
        if row is not None:
            subject, facts = row.user_id, {"reason": reason, "key_id": row.id}
        act = Act("personal_key.exchange_failed", "unknown", subject, facts)
        await self._counts.note_failure(act, caller)

    async def _note_use(self, key: PersonalKey, now: int) -> None:
        before = now - _USE_NOTED_EVERY
        # A time in the future is from a clock that was ahead (R53).
        if key.last_used_at is not None and before < key.last_used_at <= now:
            return
        async with self._database.write() as db:
            await db.execute(
                update(PersonalKey)
                .where(
                    PersonalKey.id == key.id,
                    or_(
                        PersonalKey.last_used_at.is_(None),
                        PersonalKey.last_used_at <= before,
                        PersonalKey.last_used_at > now,
                    ),
                )
                .values(last_used_at=now)
                .execution_options(synchronize_session=False)
            )


def _require_living(
    row: PersonalKey | None, subject: Subject | None, now: int
) -> tuple[PersonalKey, Subject]:
    """Return both when the key is valid.

    Raises:
        InvalidRequestError: when it is not; the detail has the cause.
    """
    if row is None:
        raise _refuse("unknown")
    if row.revoked_at is not None:
        raise _refuse("revoked")
    if row.expires_at <= now:
        raise _refuse("expired")
    if is_future(row.created_at, now):
        # It would live until the clock reaches that time, and its lifetime in addition
        # (R53).
        raise _refuse("made while the clock was ahead")
    if subject is None or subject.is_disabled:
        raise _refuse("owner disabled")
    return row, subject


def _refuse(detail: str) -> InvalidRequestError:
    return InvalidRequestError("The personal key is not valid.", detail=detail)


def _build_grant(row: PersonalKey, subject: Subject, scope: str) -> AccessGrant:
    return AccessGrant(
        subject=subject.user_id,
        client_id=PERSONAL_KEY_CLIENT_ID,
        sid=row.id,
        generation=subject.generation,
        scope=scope,
        roles=(),
        auth_time=row.created_at,
        not_after=row.expires_at,
        username=subject.username,
    )
