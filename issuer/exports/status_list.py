"""Token Status List (draft-ietf-oauth-status-list-20): a bit per session, signed.

It is for resource servers without a verifier, and coarser than the feed: a bit
represents all tokens of one session, or those of a client for itself, since the last
revocation of one of them. One index per token would need one row per token.

A token's position is the last part of its `jti`, so a revocation by `jti` alone finds
the bit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Final, NamedTuple, cast

from sqlalchemy import Table, and_, bindparam, delete, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.clock import seconds
from issuer.errors import UnavailableError
from issuer.feed.feed import Revocation
from issuer.foundation import Foundation
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
#: Indices reserved at once: one write of the head row for this many sessions.
_BLOCK: Final = 256
_ATTEMPTS: Final = 3
#: A revoked bit stays until every token with it has expired, with the difference of
#: clocks at both ends, like an entry of the feed.
_KEPT: Final = LONGEST_ACCESS_TTL + MAX_LEEWAY + 2 * CLOCK_ALLOWANCE
#: The end of the year 9999: a client in use keeps its index.
_NEVER: Final = MAX_NUMERIC_DATE
_HALF: Final = LIST_SIZE.bit_length() // 2
_HALF_MASK: Final = (1 << _HALF) - 1
_ROUNDS: Final = 4


class StatusReference(NamedTuple):
    """The place of a token's bit: the list's URL and the index."""

    uri: str
    idx: int
    position: int

    @classmethod
    def at(cls, issuer_url: str, position: int) -> StatusReference:
        """Return the reference to a position, counted through all lists."""
        number, idx = divmod(position, LIST_SIZE)
        return cls(f"{issuer_url}{LISTS_PATH}/{number}", idx, position)

    def to_claim(self) -> dict[str, dict[str, str | int]]:
        """Return the `status` claim (draft, section 6.2)."""
        return {"status_list": {"idx": self.idx, "uri": self.uri}}

    def mark(self, token_id: str) -> str:
        """Return an id with the position, for revocations by this id."""
        return f"{token_id}.{self.position}"


class StatusOwner(NamedTuple):
    """The owner of tokens that share a bit.

    Attributes:
        owner: the sid, or the client_id for a client's own tokens.
        subject: the user's or the client's id.
        generation: the subject's.
        ends_at: Unix seconds at which the session ends; None: a client.
    """

    owner: str
    subject: str
    generation: int
    ends_at: int | None


class StatusIndices:
    """Allots positions and marks the revoked ones.

    Args:
        base: gives the database, the clock, the settings and the time to prune by.
    """

    def __init__(self, base: Foundation) -> None:
        self._database = base.database
        self._clock = base.clock
        self._issuer_url = base.settings.url
        self._prune_time = base.prune_time
        self._block: list[int] = []
        self._reserving = asyncio.Lock()

    async def find(self, owner: StatusOwner) -> StatusReference:
        """Return the place of the bit of the owner's next token.

        A row is written once per session, and again after a single token was revoked.

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
                    continue  # another process allotted a position: read it
            return StatusReference.at(self._issuer_url, position)
        raise UnavailableError(detail="a status index cannot be read as it is")

    async def mark_revoked(
        self, db: AsyncSession, revocations: Sequence[Revocation]
    ) -> None:
        """Set the bits that these revocations concern (a `feed.WriteAlso`).

        A withdrawn signing key sets none: it leaves the JWKS, and a reader verifies the
        token before it reads the bit (draft, section 8.3).
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
        """Delete the rows of positions without living tokens; return their number.

        A position is never allotted again.

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
            # This locks the row that a revocation changes: the revocation is either
            # seen here, or finds the new row. Otherwise a bit could stay 0 for a
            # session that ended meanwhile.
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
    """Return the position of the `count`-th index: it looks random and is unique.

    A Feistel network permutes the positions of each list. With consecutive positions,
    two tokens would show which session is older (draft, section 12.1).
    """
    number, rest = divmod(count, LIST_SIZE)
    left, right = rest >> _HALF, rest & _HALF_MASK
    for turn in range(_ROUNDS):
        hashed = b"%d.%d.%d" % (number, turn, right)
        digest = blake2b(hashed, key=key, digest_size=4).digest()
        left, right = right, left ^ (int.from_bytes(digest) & _HALF_MASK)
    return number * LIST_SIZE + (left << _HALF | right)


def _read_positions(revocations: Iterable[Revocation]) -> Iterable[int]:
    """Yield the positions in the ids: of a `jti`, and of a client grant's `sid`."""
    for revocation in revocations:
        if revocation.kind in {EntryKind.JTI, EntryKind.SID}:
            _, dot, text = revocation.key.rpartition(".")
            if dot and text.isascii() and text.isdecimal() and len(text) < 18:
                yield int(text)


async def _lock_living(db: AsyncSession, owner: StatusOwner) -> bool:
    """Lock the owner until the commit; return whether its tokens are valid.

    Lock order: see `sessions/families.py`.
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
