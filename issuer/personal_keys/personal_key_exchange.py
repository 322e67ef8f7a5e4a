"""A personal key becomes an access token of the usual lifetime.

The token's `sid` is the key's id: one `sid` entry of the feed ends every token that the
key was ever exchanged for, and what ends its owner's tokens ends them, for they carry the
owner's generation. Their `roles` are empty: a role would grant more than the key's scopes.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import or_, select, update

from issuer.acts import Act, Caller, TallyWriter
from issuer.clock import Clock, seconds
from issuer.errors import InvalidRequestError, InvalidScopeError
from issuer.http.authorization.principals import PERSONAL_KEY_CLIENT_ID
from issuer.http.authorization.scopes import (
    ADMIN_SCOPE,
    format_scope,
    parse_scope,
    require_subset,
)
from issuer.personal_keys.personal_key_form import digest_key
from issuer.storage.db import Database
from issuer.storage.lifetimes import is_future
from issuer.storage.rate_limits import RateLimits
from issuer.storage.tables.personal_keys import PersonalKey
from issuer.tokens.access import AccessTokens
from issuer.tokens.minting import AccessGrant, MintedToken
from issuer.tokens.subjects import Subject, load_subject

#: `last_used_at` is written when it is older than so many seconds, not at every use.
_USE_NOTED_EVERY: Final = 3_600


class PersonalKeyExchange:
    """Exchanges personal keys for access tokens.

    Args:
        database: where keys are kept.
        access_tokens: mint the tokens.
        limits: how often a user may exchange keys.
        clock: gives the time in milliseconds.
        note_grant: records each exchange before it is answered.
        note_failure: records each refusal before it is answered.
        may_administer: whether a key may have the scope `gatehouse:admin`.
    """

    def __init__(
        self,
        database: Database,
        access_tokens: AccessTokens,
        limits: RateLimits,
        *,
        clock: Clock,
        note_grant: TallyWriter,
        note_failure: TallyWriter,
        may_administer: bool,
    ) -> None:
        self._database = database
        self._access_tokens = access_tokens
        self._limits = limits
        self._clock = clock
        self._note_grant = note_grant
        self._note_failure = note_failure
        self._may_administer = may_administer

    async def exchange(
        self, key: str, scope: str | None, caller: Caller
    ) -> tuple[MintedToken, str]:
        """Return an access token for a key, and its scope.

        Args:
            key: as presented.
            scope: the part of the key's scopes it shall have, space-delimited; None:
                all that its owner still has.
            caller: where it comes from.

        Raises:
            InvalidRequestError: when the key does not count, whatever the cause (RFC
                8693, section 2.2.2, has this word for it).
            InvalidScopeError: when more is wanted than key and owner have.
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
        await self._note_grant(act, caller)
        grant = _build_grant(row, subject, format_scope(granted))
        return await self._access_tokens.mint(grant, now), grant.scope

    async def _find(
        self, key: str, now: int, caller: Caller
    ) -> tuple[PersonalKey, Subject]:
        """Return the living key and its owner, or record why there is none and raise."""
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
        # What was taken from the owner since was taken from the key.
        allowed = frozenset(row.scopes.split()) & frozenset(subject.scope.split())
        if not self._may_administer:
            # Keys of before the setting, or of while it was on, have the scope.
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
        await self._note_failure(act, caller)

    async def _note_use(self, key: PersonalKey, now: int) -> None:
        before = now - _USE_NOTED_EVERY
        # A note from the future is of a clock that was ahead (R53).
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
    """Return both when the key counts.

    Raises:
        InvalidRequestError: when it does not, with the reason in one word or two.
    """
    if row is None:
        raise _refuse("unknown")
    if row.revoked_at is not None:
        raise _refuse("revoked")
    if row.expires_at <= now:
        raise _refuse("expired")
    if is_future(row.created_at, now):
        # It would live until the clock gets there, and its lifetime on top (R53).
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
