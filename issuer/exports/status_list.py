"""Token Status List (draft-ietf-oauth-status-list-20): a bit per session, signed.

For resource servers that are not behind a verifier. Coarser than the feed: a bit stands
for all tokens of one session, or for those a client got for itself, minted since the
last revocation of one of them. One index per token would need one row per token.

A token's position is the last part of its `jti`, so that a revocation that knows the
`jti` alone finds the bit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from typing import Final, NamedTuple, cast

from sqlalchemy import Table, and_, bindparam, delete, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.clock import Clock, seconds
from issuer.errors import UnavailableError
from issuer.feed.feed import Revocation
from issuer.storage.db import Database
from issuer.storage.tables.clients import Client
from issuer.storage.tables.personal_keys import PersonalKey
from issuer.storage.tables.sessions import Session
from issuer.storage.tables.status_lists import StatusIndex, StatusListHead
from issuer.storage.tables.users import User
from shared.claims import (
    CLOCK_ALLOWANCE,
    LONGEST_ACCESS_TTL,
    MAX_LEEWAY,
    MAX_NUMERIC_DATE,
)
from shared.feed import GENERATION_KINDS, EntryKind

#: Bits of one list: 32 KiB before compression, 3.5 KB with one in a hundred set.
LIST_SIZE: Final = 1 << 18
#: `GET` on this path with the list's number.
LISTS_PATH: Final = "/status-lists"
#: Indices reserved at once: one write of the head row for so many sessions.
_BLOCK: Final = 256
_ATTEMPTS: Final = 3
#: A revoked bit stays until every token that points at it has expired, by clocks that
#: differ at both ends, as an entry of the feed does.
_KEPT: Final = LONGEST_ACCESS_TTL + MAX_LEEWAY + 2 * CLOCK_ALLOWANCE
#: The end of the year 9999: a client in use keeps its index.
_NEVER: Final = MAX_NUMERIC_DATE
_HALF: Final = LIST_SIZE.bit_length() // 2
_HALF_MASK: Final = (1 << _HALF) - 1
_ROUNDS: Final = 4


class StatusReference(NamedTuple):
    """Where a token's bit stands: the list's URL, and which bit of it."""

    uri: str
    idx: int
    position: int

    @classmethod
    def at(cls, issuer_url: str, position: int) -> StatusReference:
        """Return the reference to a position that counts through all lists."""
        number, idx = divmod(position, LIST_SIZE)
        return cls(f"{issuer_url}{LISTS_PATH}/{number}", idx, position)

    def to_claim(self) -> dict[str, dict[str, str | int]]:
        """Return the `status` claim (draft, section 6.2)."""
        return {"status_list": {"idx": self.idx, "uri": self.uri}}

    def mark(self, token_id: str) -> str:
        """Return an id that tells the position to whoever revokes by it."""
        return f"{token_id}.{self.position}"


class StatusOwner(NamedTuple):
    """Whose tokens share a bit.

    Attributes:
        owner: the sid, or the client_id of a client that speaks for itself.
        subject: the user's or the client's id.
        generation: the subject's.
        ends_at: Unix seconds at which the session ends; None: a client.
    """

    owner: str
    subject: str
    generation: int
    ends_at: int | None


class StatusIndices:
    """Gives out positions, and notes which are revoked.

    Args:
        database: where they are kept.
        clock: gives the time in milliseconds.
        issuer_url: base of the lists' URLs.
        prune_time: gives the Unix seconds to prune by.
    """

    def __init__(
        self,
        database: Database,
        *,
        clock: Clock,
        issuer_url: str,
        prune_time: Callable[[], int],
    ) -> None:
        self._database = database
        self._clock = clock
        self._issuer_url = issuer_url
        self._prune_time = prune_time
        self._block: list[int] = []
        self._reserving = asyncio.Lock()

    async def find(self, owner: StatusOwner) -> StatusReference:
        """Return where the bit of the owner's next token stands.

        Written once per session, and again after one of its tokens was revoked alone.

        Raises:
            UnavailableError: when the database is away.
        """
        for _ in range(_ATTEMPTS):
            async with self._database.read() as db:
                position = await db.scalar(
                    select(StatusIndex.position).where(
                        StatusIndex.owner == owner.owner,
                        StatusIndex.generation == owner.generation,
                        StatusIndex.revoked_at.is_(None),
                    )
                )
            if position is None:
                try:
                    position = await self._allot(owner)
                except IntegrityError:
                    continue  # another process allotted: read what it wrote
            return StatusReference.at(self._issuer_url, position)
        raise UnavailableError(detail="a status index cannot be read as it is")

    async def mark_revoked(
        self, db: AsyncSession, revocations: Sequence[Revocation]
    ) -> None:
        """Set the bits that these revocations concern (a `feed.WriteAlso`).

        A withdrawn signing key sets none: it leaves the JWKS, and a reader verifies the
        token before it looks at its bit (draft, section 8.3).
        """
        now = seconds(self._clock)
        table = cast(Table, StatusIndex.__table__)
        revoke = (
            update(table)
            .where(table.c.revoked_at.is_(None))
            .values(revoked_at=now, prune_at=now + _KEPT)
        )
        sids = [item.key for item in revocations if item.kind is EntryKind.SID]
        positions = list(_read_positions(revocations))
        if sids or positions:
            concerned = or_(table.c.owner.in_(sids), table.c.position.in_(positions))
            await db.execute(revoke.where(concerned))
        raised = [
            {"raised": item.key, "least": item.minimum_generation}
            for item in revocations
            if item.kind in GENERATION_KINDS
        ]
        if raised:
            earlier = and_(
                table.c.subject == bindparam("raised"),
                table.c.generation < bindparam("least"),
            )
            await db.execute(revoke.where(earlier), raised)

    async def prune(self) -> int:
        """Delete what no living token points at; return how many.

        A position is never given out again.

        Raises:
            UnavailableError: when the database is away.
        """
        now = self._prune_time()
        async with self._database.write() as db:
            gone = await db.scalars(
                delete(StatusIndex)
                .where(StatusIndex.prune_at < now)
                .returning(StatusIndex.position)
            )
            return len(gone.all())

    async def _allot(self, owner: StatusOwner) -> int:
        position = await self._next_position()
        now = seconds(self._clock)
        last = _NEVER if owner.ends_at is None else owner.ends_at
        async with self._database.write() as db:
            # Locks what a revocation changes: it is either seen here, or it finds the
            # row. Without, a bit could stay 0 for a session that has ended meanwhile.
            is_dead = not await _lock_living(db, owner)
            db.add(
                StatusIndex(
                    position=position,
                    owner=owner.owner,
                    subject=owner.subject,
                    generation=owner.generation,
                    revoked_at=now if is_dead else None,
                    prune_at=(now if is_dead else last) + _KEPT,
                )
            )
        return position

    async def _next_position(self) -> int:
        async with self._reserving:
            if not self._block:
                async with self._database.write() as db:
                    head = (
                        await db.execute(
                            update(StatusListHead)
                            .where(StatusListHead.id == 1)
                            .values(allotted=StatusListHead.allotted + _BLOCK)
                            .returning(
                                StatusListHead.allotted, StatusListHead.scatter_key
                            )
                        )
                    ).one()
                self._block = [
                    scatter(head.scatter_key, count)
                    for count in range(head.allotted - _BLOCK, head.allotted)
                ]
            return self._block.pop()


def scatter(key: bytes, count: int) -> int:
    """Return the position of the `count`-th index: random to look at, never twice.

    A Feistel network permutes the positions of each list. Allotted in a row, a bearer
    could tell from two tokens which session is older (draft, section 12.1).
    """
    number, rest = divmod(count, LIST_SIZE)
    left, right = rest >> _HALF, rest & _HALF_MASK
    for turn in range(_ROUNDS):
        told = b"%d.%d.%d" % (number, turn, right)
        digest = blake2b(told, key=key, digest_size=4).digest()
        left, right = right, left ^ (int.from_bytes(digest) & _HALF_MASK)
    return number * LIST_SIZE + (left << _HALF | right)


def _read_positions(revocations: Iterable[Revocation]) -> Iterable[int]:
    """A `jti`, and the `sid` of a client's grant, end in their token's position."""
    for revocation in revocations:
        if revocation.kind in {EntryKind.JTI, EntryKind.SID}:
            _, dot, text = revocation.key.rpartition(".")
            if dot and text.isascii() and text.isdecimal() and len(text) < 18:
                yield int(text)


async def _lock_living(db: AsyncSession, owner: StatusOwner) -> bool:
    """Keep the owner as it is until the commit; whether its tokens count.

    Lock order: see `tokens/families.py`.
    """
    if owner.ends_at is None:
        generation = await db.scalar(
            select(Client.generation)
            .where(Client.id == owner.subject, Client.disabled_at.is_(None))
            .with_for_update(read=True)
        )
        return generation == owner.generation
    generation = await db.scalar(
        select(User.generation)
        .where(User.id == owner.subject, User.disabled_at.is_(None))
        .with_for_update(read=True)
    )
    sid = await db.scalar(
        select(Session.sid)
        .where(Session.sid == owner.owner, Session.ended_at.is_(None))
        .with_for_update(read=True)
    )
    if sid is None:
        sid = await db.scalar(
            select(PersonalKey.id)
            .where(PersonalKey.id == owner.owner, PersonalKey.revoked_at.is_(None))
            .with_for_update(read=True)
        )
    return generation == owner.generation and sid is not None
