"""Personal access keys: what a user's scripts show instead of a password.

A gate never sees one. It is exchanged at `/oauth2/token` for an access token of the usual
lifetime, whose `sid` is the key's id: one `sid` entry of the feed ends every token that
the key was ever exchanged for, and disabling its owner ends them as it ends all of the
owner's. Their `roles` are empty: a role would grant more than the key's scopes.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from sqlalchemy import func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.acts import Act, AuditWriter, Caller
from issuer.clients.personal_key_form import RANDOM_BYTES, digest_key, make_key
from issuer.clock import Clock, seconds
from issuer.db import Database
from issuer.errors import (
    ConflictError,
    FieldProblem,
    InvalidRequestError,
    NotFoundError,
    UnauthenticatedError,
)
from issuer.lifetimes import is_future
from issuer.models import PersonalKey
from issuer.rate_limits import RateLimits
from issuer.revocation.feed import Position, Revocation, RevocationFeed
from issuer.tokens.access import AccessGrant, AccessTokens, MintedToken, Principal
from issuer.tokens.logout import require_person
from issuer.tokens.principals import PERSONAL_KEY_CLIENT_ID
from issuer.tokens.scopes import (
    format_scope,
    parse_scope,
    read_scopes,
    require_subset,
)
from issuer.tokens.subjects import Subject, load_subject
from issuer.visible_text import is_visible_text
from shared.feed import EntryKind

#: Living keys of one user.
MAX_KEYS: Final = 50
MIN_TTL: Final = 300
_MAX_NAME_CHARS: Final = 100
#: `last_used_at` is written when it is older than so many seconds, not at every use.
_USE_NOTED_EVERY: Final = 3_600


@dataclass(frozen=True, slots=True)
class PersonalKeyView:
    """A key as its owner sees it; times are Unix seconds.

    Attributes:
        id: its id, which is the `sid` of its tokens; not the key itself.
        name: for people.
        scopes: what it was made for, sorted.
        created_at: when it was made.
        expires_at: when it ends.
        last_used_at: when it was last exchanged, to the hour; None: never.
    """

    id: str
    name: str
    scopes: tuple[str, ...]
    created_at: int
    expires_at: int
    last_used_at: int | None


class NewPersonalKey(NamedTuple):
    """A key just made. The key itself is shown this once; only its digest is kept."""

    view: PersonalKeyView
    key: str


class PersonalKeys:
    """Makes, lists, revokes and exchanges personal keys.

    Args:
        database: where they are kept.
        access_tokens: mints the tokens they are exchanged for.
        feed: carries revocations to the verifiers.
        clock: gives the time in milliseconds.
        audit: records each act with the act.
        max_ttl: the longest lifetime of a key, seconds.
        limits: how often a user may make and exchange keys.
    """

    def __init__(
        self,
        database: Database,
        access_tokens: AccessTokens,
        feed: RevocationFeed,
        *,
        clock: Clock,
        audit: AuditWriter,
        max_ttl: int,
        limits: RateLimits,
    ) -> None:
        self._database = database
        self._access_tokens = access_tokens
        self._feed = feed
        self._clock = clock
        self._audit = audit
        self._max_ttl = max_ttl
        self._limits = limits

    async def create(
        self,
        principal: Principal,
        name: str,
        scopes: Iterable[str],
        ttl: int,
        caller: Caller,
    ) -> NewPersonalKey:
        """Make a key for the user of a session.

        Args:
            principal: the owner, who is signed in.
            name: for people, 1..100 characters.
            scopes: what it is for; the owner's own, and the access token's.
            ttl: seconds it lives.
            caller: where the wish came from.

        Raises:
            ForbiddenError: when the access token is not that of a session.
            InvalidRequestError: when the name or the lifetime breaks a rule.
            InvalidScopeError: when a scope is malformed or not the owner's.
            ConflictError: when the owner has too many.
            TooManyRequestsError: when the owner has made too many of late.
            UnauthenticatedError: when the owner is gone meanwhile.
            UnavailableError: when the database is away.
        """
        require_person(principal)
        self._check(name, ttl)
        wanted = read_scopes(scopes)
        now = seconds(self._clock)
        key = make_key(secrets.token_bytes(RANDOM_BYTES))
        view = PersonalKeyView(
            id=str(uuid.uuid4()),
            name=name,
            scopes=tuple(sorted(wanted)),
            created_at=now,
            expires_at=now + ttl,
            last_used_at=None,
        )
        async with self._database.write() as db:
            subject = await load_subject(db, principal.subject, is_locked=True)
            if subject is None or subject.is_disabled:
                raise UnauthenticatedError(detail="the user is gone")
            # The token's too: one that was narrowed must not make more of itself.
            require_subset(wanted, _scopes_of(subject) & principal.scopes)
            await _require_room(db, subject.user_id, now)
            await self._limits.keys.take(db, subject.user_id)
            await _insert(db, view, digest_key(key), subject.user_id)
            await self._audit(db, _created(view, subject.user_id), caller)
        return NewPersonalKey(view, key)

    async def list_of(self, user_id: str) -> Sequence[PersonalKeyView]:
        """Return a user's keys that are not revoked, expired ones too, newest first.

        Raises:
            UnavailableError: when the database is away.
        """
        async with self._database.read() as db:
            keys = await db.scalars(
                select(PersonalKey)
                .where(PersonalKey.user_id == user_id, PersonalKey.revoked_at.is_(None))
                .order_by(PersonalKey.created_at.desc(), PersonalKey.id)
            )
            return [_build_view(key) for key in keys]

    async def revoke(
        self, user_id: str, key_id: str, *, actor: str, caller: Caller
    ) -> Position:
        """Revoke a key of a user, and every token it was exchanged for.

        Revoking again is no error: who lost the answer asks again.

        Raises:
            NotFoundError: when the user never had such a key.
            UnavailableError: when the database is away.
        """
        now = seconds(self._clock)
        async with self._database.write() as db:
            found = await db.execute(
                select(PersonalKey.revoked_at)
                .where(PersonalKey.id == key_id, PersonalKey.user_id == user_id)
                .with_for_update()
            )
            row = found.one_or_none()
            if row is None:
                raise NotFoundError
            if row.revoked_at is None:
                await db.execute(
                    update(PersonalKey)
                    .where(PersonalKey.id == key_id)
                    .values(revoked_at=now)
                    .execution_options(synchronize_session=False)
                )
                act = Act("personal_key.revoked", actor, user_id, {"key_id": key_id})
                await self._audit(db, act, caller)
                prune_at = self._access_tokens.last_expiry(now)
                entry = Revocation(EntryKind.SID, key_id, prune_at)
                return await self._feed.append(db, entry)
        return await self._feed.head_position()

    async def revoke_shown(self, key: str, *, actor: str, caller: Caller) -> Position:
        """Revoke a key that somebody shows: whoever finds one may end it.

        Raises:
            InvalidRequestError: when it is no key of ours.
            NotFoundError: when it is unknown.
            UnavailableError: when the database is away.
        """
        digest = digest_key(key)
        async with self._database.read() as db:
            found = await db.execute(
                select(PersonalKey.user_id, PersonalKey.id).where(
                    PersonalKey.digest == digest
                )
            )
            row = found.one_or_none()
        if row is None:
            raise NotFoundError
        return await self.revoke(row.user_id, row.id, actor=actor, caller=caller)

    async def exchange(self, key: str, scope: str | None) -> tuple[MintedToken, str]:
        """Return an access token for a key, and its scope.

        Args:
            key: as presented.
            scope: the part of the key's scopes it shall have, space-delimited; None:
                all that its owner still has.

        Raises:
            InvalidRequestError: when the key does not count, whatever the cause (RFC
                8693, section 2.2.2, has this word for it).
            InvalidScopeError: when more is wanted than key and owner have.
            TooManyRequestsError: when the owner's keys are exchanged too often.
            UnavailableError: when the database is away.
        """
        now = seconds(self._clock)
        digest = digest_key(key)
        async with self._database.read() as db:
            row = await db.scalar(
                select(PersonalKey).where(PersonalKey.digest == digest)
            )
            subject = None if row is None else await load_subject(db, row.user_id)
        if row is None or row.revoked_at is not None or row.expires_at <= now:
            raise _refuse("unknown, revoked or expired")
        if is_future(row.created_at, now):
            # It would live until the clock gets there, and its lifetime on top (R53).
            raise _refuse("made while the clock was ahead")
        if subject is None or subject.is_disabled:
            raise _refuse("its owner is disabled")
        # What was taken from the owner since was taken from the key.
        granted = frozenset(row.scopes.split()) & _scopes_of(subject)
        if scope is not None:
            granted = require_subset(parse_scope(scope), granted)
        async with self._database.write() as db:
            await self._limits.exchanges.take(db, subject.user_id)
        await self._note_use(row, now)
        grant = AccessGrant(
            subject=subject.user_id,
            client_id=PERSONAL_KEY_CLIENT_ID,
            sid=row.id,
            generation=subject.generation,
            scope=format_scope(granted),
            roles=(),
            auth_time=row.created_at,
            not_after=row.expires_at,
            username=subject.username,
        )
        return await self._access_tokens.mint(grant, now), grant.scope

    async def _note_use(self, key: PersonalKey, now: int) -> None:
        before = now - _USE_NOTED_EVERY
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

    def _check(self, name: str, ttl: int) -> None:
        problems = []
        if not 0 < len(name) <= _MAX_NAME_CHARS or not is_visible_text(name):
            rule = f"must have 1 to {_MAX_NAME_CHARS} characters, none of them unseen"
            problems.append(FieldProblem("name", rule))
        if not MIN_TTL <= ttl <= self._max_ttl:
            rule = f"must be from {MIN_TTL} to {self._max_ttl} seconds"
            problems.append(FieldProblem("expires_in", rule))
        if problems:
            raise InvalidRequestError(problems=problems)


def _scopes_of(subject: Subject) -> frozenset[str]:
    return frozenset(subject.scope.split())


async def _insert(
    db: AsyncSession, view: PersonalKeyView, digest: bytes, user_id: str
) -> None:
    await db.execute(
        insert(PersonalKey).values(
            id=view.id,
            digest=digest,
            user_id=user_id,
            name=view.name,
            scopes=format_scope(view.scopes),
            created_at=view.created_at,
            expires_at=view.expires_at,
        )
    )


def _created(view: PersonalKeyView, user_id: str) -> Act:
    facts: dict[str, str | int] = {
        "key_id": view.id,
        "scope": format_scope(view.scopes),
        "expires_at": view.expires_at,
    }
    return Act("personal_key.created", user_id, user_id, facts)


async def _require_room(db: AsyncSession, user_id: str, now: int) -> None:
    living = await db.scalar(
        select(func.count()).where(
            PersonalKey.user_id == user_id,
            PersonalKey.revoked_at.is_(None),
            PersonalKey.expires_at > now,
        )
    )
    if (living or 0) >= MAX_KEYS:
        raise ConflictError(f"There are {MAX_KEYS} living keys: revoke one first.")


def _refuse(detail: str) -> InvalidRequestError:
    return InvalidRequestError("The personal key is not valid.", detail=detail)


def _build_view(key: PersonalKey) -> PersonalKeyView:
    return PersonalKeyView(
        id=key.id,
        name=key.name,
        scopes=tuple(key.scopes.split()),
        created_at=key.created_at,
        expires_at=key.expires_at,
        last_used_at=key.last_used_at,
    )
