"""Personal access keys: for a user's scripts, instead of a password.

A gate never gets one: it is exchanged for access tokens (`personal_key_exchange.py`). A
key lives longer than the session that makes it, so its creation needs the same proof as
a login, and it ends with all sessions of its owner (`sessions/session_ending.py`).
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.accounts.visible_text import is_visible_text
from issuer.acts import Act, Caller
from issuer.clock import seconds
from issuer.errors import (
    ConflictError,
    FieldProblem,
    InvalidRequestError,
    InvalidScopeError,
    NotFoundError,
    UnauthenticatedError,
)
from issuer.feed.feed import Position, Revocation, RevocationFeed
from issuer.foundation import Foundation
from issuer.http.authorization.principals import Principal
from issuer.http.authorization.scopes import (
    ADMIN_SCOPE,
    format_scope,
    read_scopes,
    require_subset,
)
from issuer.personal_keys.personal_key_form import RANDOM_BYTES, digest_key, make_key
from issuer.sessions.key_ending import end_keys
from issuer.sessions.logout import require_person
from issuer.storage.database_attempts import retry_conflicts
from issuer.storage.tables.personal_keys import PersonalKey
from issuer.tokens.access import last_expiry
from issuer.tokens.living import require_living_subject
from issuer.tokens.subjects import load_subject
from shared.feed import EntryKind

#: Living keys of one user.
MAX_KEYS: Final = 50
MIN_TTL: Final = 300
_MAX_NAME_CHARS: Final = 100

#: Returns when the password is right, and the code if a factor is enrolled.
ProveOwner = Callable[[Principal, str, str | None, Caller], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class KeyWish:
    """A request for a new key.

    Attributes:
        name: for people, 1..100 characters.
        scopes: among those of the owner and of the access token.
        ttl: its lifetime, seconds.
    """

    name: str
    scopes: Sequence[str]
    ttl: int


class OwnerProof(NamedTuple):
    """The owner's proof, as typed; `code` if a second factor is enrolled."""

    password: str
    code: str | None = None


@dataclass(frozen=True, slots=True)
class PersonalKeyView:
    """A key as its owner sees it; times are Unix seconds.

    Attributes:
        id: its id, which is the `sid` of its tokens; not the key itself.
        name: for people.
        scopes: at its creation, sorted.
        created_at: when it was made.
        expires_at: when it expires.
        last_used_at: its last exchange, to the hour; None if never.
    """

    id: str
    name: str
    scopes: tuple[str, ...]
    created_at: int
    expires_at: int
    last_used_at: int | None


class NewPersonalKey(NamedTuple):
    """A new key. Its text is shown only once; the database keeps its digest."""

    view: PersonalKeyView
    key: str


class PersonalKeys:
    """Makes, lists and revokes personal keys.

    Args:
        base: gives the database, the clock, the audit, the settings and the rate
            limits.
        feed: carries revocations to the verifiers.
        prove: verifies the owner's password and code.
    """

    def __init__(
        self,
        base: Foundation,
        feed: RevocationFeed,
        prove: ProveOwner,
    ) -> None:
        self._database = base.database
        self._feed = feed
        self._prove = prove
        self._clock = base.clock
        self._audit = base.audit
        self._max_ttl = base.settings.personal_key_max_ttl
        self._may_administer = base.settings.personal_key_admin
        self._limits = base.limits

    async def create(
        self, principal: Principal, wish: KeyWish, proof: OwnerProof, caller: Caller
    ) -> NewPersonalKey:
        """Make a key for the user of a session.

        Args:
            principal: the owner, signed in.
            wish: its name, scopes and lifetime.
            proof: the same as for a login (R51): a token alone makes no key.
            caller: origin of the request.

        Raises:
            ForbiddenError: when the access token is not that of a session.
            InvalidRequestError: when the name or the lifetime breaks a rule, or a code
                is missing.
            InvalidScopeError: when a scope is malformed, not the owner's, or not for
                keys.
            InvalidCredentialsError: when the password or the code is wrong.
            TooManyRequestsError: while the owner has to wait after failures, or when
                the owner has made too many recently.
            ConflictError: when the owner has too many.
            UnauthenticatedError: when session or owner have ended meanwhile.
            UnavailableError: when the hashing queue is full or the database is away.
        """
        require_person(principal)
        wanted = self._read(wish, principal)
        await self._prove(principal, proof.password, proof.code, caller)
        now = seconds(self._clock)
        key = make_key(secrets.token_bytes(RANDOM_BYTES))
        view = _begin(wish, wanted, now)

        async def insert() -> None:
            async with self._database.write() as db:
                await self._insert(db, principal, view, digest_key(key), caller)

        # The whole request cannot be repeated: its code is spent.
        await retry_conflicts(insert)
        return NewPersonalKey(view, key)

    async def _insert(
        self,
        db: AsyncSession,
        principal: Principal,
        view: PersonalKeyView,
        digest: bytes,
        caller: Caller,
    ) -> None:
        """Write the key, unless its maker has lost the rights since the proof."""
        subject = await load_subject(db, principal.subject, is_locked=True)
        if subject is None:
            raise UnauthenticatedError(detail="the user is gone")
        # The owner is locked now: an end of all sessions during the hash has also ended
        # this one, and must not miss the key.
        await require_living_subject(db, principal, view.created_at)
        require_subset(frozenset(view.scopes), frozenset(subject.scope.split()))
        await _require_room(db, subject.user_id, view.created_at)
        await self._limits.keys.take(db, subject.user_id)
        await _insert(db, view, digest, subject.user_id, caller.address)
        await self._audit(db, _created(view, subject.user_id), caller)

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
        """Revoke a key of a user, and all its tokens.

        A repeated call is not an error: the answer may have been lost.

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
                await end_keys(db, PersonalKey.id == key_id, now)
                act = Act("personal_key.revoked", actor, user_id, {"key_id": key_id})
                await self._audit(db, act, caller)
                prune_at = last_expiry(now)
                entry = Revocation(EntryKind.SID, key_id, prune_at)
                return await self._feed.append(db, entry)
        return await self._feed.head_position()

    async def revoke_shown(self, key: str, *, actor: str, caller: Caller) -> Position:
        """Revoke a presented key: a finder may end it.

        Raises:
            InvalidRequestError: when it is not a key of ours.
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

    def _read(self, wish: KeyWish, principal: Principal) -> frozenset[str]:
        """Return the requested scopes; refuse everything that needs no hash."""
        problems = []
        if not 0 < len(wish.name) <= _MAX_NAME_CHARS or not is_visible_text(wish.name):
            rule = f"must have 1 to {_MAX_NAME_CHARS} characters, none of them unseen"
            problems.append(FieldProblem("name", rule))
        if not MIN_TTL <= wish.ttl <= self._max_ttl:
            rule = f"must be from {MIN_TTL} to {self._max_ttl} seconds"
            problems.append(FieldProblem("expires_in", rule))
        if problems:
            raise InvalidRequestError(problems=problems)
        wanted = read_scopes(wish.scopes)
        if ADMIN_SCOPE in wanted and not self._may_administer:
            raise InvalidScopeError(
                f"Personal keys cannot have {ADMIN_SCOPE} here: the setting "
                "ISSUER_PERSONAL_KEY_ADMIN is off."
            )
        # A narrowed token must not create a key with more scopes.
        return require_subset(wanted, principal.scopes)


async def _insert(
    db: AsyncSession,
    view: PersonalKeyView,
    digest: bytes,
    user_id: str,
    address: str,
) -> None:
    await db.execute(
        insert(PersonalKey).values(
            id=view.id,
            digest=digest,
            user_id=user_id,
            name=view.name,
            scopes=format_scope(view.scopes),
            address=address,
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


def _build_view(key: PersonalKey) -> PersonalKeyView:
    return PersonalKeyView(
        id=key.id,
        name=key.name,
        scopes=tuple(key.scopes.split()),
        created_at=key.created_at,
        expires_at=key.expires_at,
        last_used_at=key.last_used_at,
    )


def _begin(wish: KeyWish, wanted: frozenset[str], now: int) -> PersonalKeyView:
    return PersonalKeyView(
        id=str(uuid.uuid4()),
        name=wish.name,
        scopes=tuple(sorted(wanted)),
        created_at=now,
        expires_at=now + wish.ttl,
        last_used_at=None,
    )
