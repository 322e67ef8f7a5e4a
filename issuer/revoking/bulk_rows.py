"""Finds what the rows of a bulk revocation name in the database, chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.errors import InvalidRequestError
from issuer.revoking.bulk_items import BulkItem, BulkKind, RefusedItem
from issuer.sessions.ended import find_done_sids, find_done_users, find_published
from issuer.storage.tables.clients import Client
from issuer.storage.tables.users import User
from issuer.tokens.generations import raise_generations
from shared.claims import MAX_LEEWAY
from shared.feed import EntryKind


@dataclass(slots=True)
class ChunkPlan:
    """The changes for a chunk.

    Attributes:
        jtis: tokens to revoke, each with its `exp` if that is known.
        sids: sessions, personal keys and grants to end.
        user_ids: users to log out everywhere.
        client_ids: clients whose own tokens are to be revoked.
        already: rows with nothing left to revoke.
        refused: rows whose key names nothing.
    """

    jtis: dict[str, int | None] = field(default_factory=dict)
    sids: list[str] = field(default_factory=list)
    user_ids: list[str] = field(default_factory=list)
    client_ids: list[str] = field(default_factory=list)
    already: int = 0
    refused: list[RefusedItem] = field(default_factory=list)

    @property
    def size(self) -> int:
        """The number of tokens, sids, users and clients to revoke."""
        found = (self.jtis, self.sids, self.user_ids, self.client_ids)
        return sum(map(len, found))


class BulkRows:
    """Plans a chunk and changes its rows, always in the caller's transaction.

    Args:
        normalise_username: gives a user name's normal form, or raises
            `InvalidRequestError`.
    """

    def __init__(self, normalise_username: Callable[[str], str]) -> None:
        self._normalise_username = normalise_username

    async def plan(
        self, db: AsyncSession, items: Sequence[BulkItem], now: int
    ) -> ChunkPlan:
        """Return the changes for a chunk; change nothing.

        A repeated key is done once. Every kind except `kid` is planned here.

        Args:
            db: an open transaction.
            items: the chunk.
            now: Unix seconds.
        """
        by_kind: dict[BulkKind, dict[str, BulkItem]] = {kind: {} for kind in BulkKind}
        for item in items:
            first = by_kind[item.kind].setdefault(item.key, item)
            if (item.exp or 0) > (first.exp or 0):
                by_kind[item.kind][item.key] = first._replace(exp=item.exp)
        plan = ChunkPlan()
        await self._plan_tokens(db, plan, by_kind[BulkKind.JTI])
        await self._plan_sessions(db, plan, list(by_kind[BulkKind.SID]))
        users = by_kind[BulkKind.USER]
        await self._find_users(db, plan, by_kind[BulkKind.USERNAME], users)
        await self._plan_users(db, plan, users, now)
        await self._plan_clients(db, plan, by_kind[BulkKind.CLIENT])
        # A row that is neither planned nor refused has nothing left to revoke.
        plan.already = len(items) - plan.size - len(plan.refused)
        return plan

    async def raise_users(
        self, db: AsyncSession, user_ids: Collection[str], now: int
    ) -> list[tuple[str, int]]:
        """Raise the users' generations, and return them with the ids."""
        if not user_ids:
            return []
        chosen = User.id.in_(user_ids)
        return await raise_generations(db, User, chosen, updated_at=now)

    async def raise_clients(
        self, db: AsyncSession, client_ids: Collection[str]
    ) -> list[tuple[str, int]]:
        """Raise the clients' generations, and return them with the ids."""
        if not client_ids:
            return []
        return await raise_generations(db, Client, Client.id.in_(client_ids))

    async def _plan_tokens(
        self, db: AsyncSession, plan: ChunkPlan, items: dict[str, BulkItem]
    ) -> None:
        """Plan tokens.

        The caller chooses `exp`, so it never shortens an entry and never makes one
        unnecessary.
        """
        published = await find_published(db, EntryKind.JTI, items)
        plan.jtis = {
            jti: item.exp
            for jti, item in items.items()
            if jti not in published or published[jti] < (item.exp or 0) + MAX_LEEWAY
        }

    async def _plan_sessions(
        self, db: AsyncSession, plan: ChunkPlan, sids: Sequence[str]
    ) -> None:
        """Plan sids; one without a row is a client's grant, which has no row."""
        if sids:
            done = await find_done_sids(db, sids)
            plan.sids = [sid for sid in sids if sid not in done]

    async def _find_users(
        self,
        db: AsyncSession,
        plan: ChunkPlan,
        items: dict[str, BulkItem],
        users: dict[str, BulkItem],
    ) -> None:
        """Add the users with these names to `users`, by their ids."""
        names: dict[str, BulkItem] = {}
        for item in items.values():
            try:
                names.setdefault(self._normalise_username(item.key), item)
            except InvalidRequestError:
                plan.refused.append(_refuse(item, "cannot be a user name"))
        if not names:
            return
        rows = await db.execute(
            select(User.username, User.id).where(User.username.in_(names))
        )
        found = {row.username: row.id for row in rows}
        for name, item in names.items():
            if name in found:
                users.setdefault(found[name], item)
            else:
                plan.refused.append(_refuse(item, "there is no such user"))

    async def _plan_users(
        self, db: AsyncSession, plan: ChunkPlan, items: dict[str, BulkItem], now: int
    ) -> None:
        """Plan users; a user is skipped only if the feed has the entry that ends all
        tokens.
        """
        if not items:
            return
        rows = await db.execute(
            select(User.id, User.generation).where(User.id.in_(items))
        )
        known = {row.id: row.generation for row in rows}
        plan.refused += [
            _refuse(item, "there is no such user")
            for user_id, item in items.items()
            if user_id not in known
        ]
        plan.user_ids = sorted(known.keys() - await find_done_users(db, known, now))

    async def _plan_clients(
        self, db: AsyncSession, plan: ChunkPlan, items: dict[str, BulkItem]
    ) -> None:
        """Plan every client: no rows show whether its own tokens are revoked."""
        if not items:
            return
        known = set(await db.scalars(select(Client.id).where(Client.id.in_(items))))
        plan.refused += [
            _refuse(item, "there is no such client")
            for client_id, item in items.items()
            if client_id not in known
        ]
        plan.client_ids = sorted(known)


def _refuse(item: BulkItem, rule: str) -> RefusedItem:
    return RefusedItem(item.line, "key", rule)
