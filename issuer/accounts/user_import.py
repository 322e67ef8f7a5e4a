"""Imports accounts in chunks; existing accounts are not changed.

A row of an existing account with the same roles counts as already there, so an
interrupted run can be repeated. A row with other roles is refused and reported, never
changed silently.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.accounts.look_alikes import (
    LOOKS_TAKEN,
    LookAlikeError,
    LookAlikes,
    skeleton_values,
)
from issuer.accounts.names import read_new_username
from issuer.accounts.skeletons import make_skeleton
from issuer.accounts.user_rows import RefusedRow, UserRow
from issuer.accounts.users import NO_PASSWORD, read_roles
from issuer.acts import Act, Caller
from issuer.clock import seconds
from issuer.errors import FieldProblem, InvalidRequestError, UnavailableError
from issuer.foundation import Foundation
from issuer.hashing.hash_work import Work
from issuer.hashing.hashing_pool import HashingPool
from issuer.hashing.passwords import PasswordHasher, check_new_password
from issuer.hashing.stored_work import note_stored
from issuer.roles.role_limits import require_granted_fits
from issuer.roles.roles import hold_roles
from issuer.storage.tables.roles import Role, UserRole
from issuer.storage.tables.users import User

_CHUNK: Final = 50
#: Others may create one of the accounts, or delete a role, at the same time.
_ATTEMPTS: Final = 3
_EXISTS_OTHERWISE: Final = "is taken by an account with other roles"


class ImportOutcome(NamedTuple):
    """The outcome of some rows.

    Attributes:
        created: accounts created, or in a trial to be created.
        already: rows of existing accounts.
        refused: the others.
    """

    created: int = 0
    already: int = 0
    refused: tuple[RefusedRow, ...] = ()

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.created + self.already + len(self.refused)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A row that breaks no rule; `ready_hash` is empty without an imported hash."""

    row: UserRow
    username: str
    roles: frozenset[str]
    ready_hash: str
    work: Work | None


class _Plan(NamedTuple):
    new: list[_Candidate]
    already: int
    refused: list[RefusedRow]


class UserImport:
    """Makes accounts from rows.

    Args:
        base: gives the database, the clock, the audit and the settings.
        hasher: hashes passwords.
        pool: runs the hasher.
    """

    def __init__(
        self, base: Foundation, hasher: PasswordHasher, pool: HashingPool
    ) -> None:
        self._database = base.database
        self._hasher = hasher
        self._pool = pool
        self._clock = base.clock
        self._audit = base.audit
        self._password_min_length = base.settings.password_min_length
        self._look_alikes = LookAlikes(base.database)

    async def run(
        self,
        rows: Iterable[UserRow | RefusedRow],
        *,
        actor: str,
        caller: Caller,
        is_trial: bool = False,
    ) -> AsyncIterator[ImportOutcome]:
        """Import the rows and yield the outcome of each chunk after its commit.

        Args:
            rows: from `UserRows`.
            actor: subject of the importer.
            caller: origin of the request.
            is_trial: check everything, create nothing.

        Raises:
            UnavailableError: when the database is away; yielded chunks are committed.
        """
        # A trial creates no account that later rows of the same name would find.
        seen: dict[str, frozenset[str]] = {}
        rest = iter(rows)
        while chunk := list(itertools.islice(rest, _CHUNK)):
            unread = [row for row in chunk if isinstance(row, RefusedRow)]
            checked = [self._check(row) for row in chunk if isinstance(row, UserRow)]
            candidates = [each for each in checked if isinstance(each, _Candidate)]
            refused = [each for each in checked if isinstance(each, RefusedRow)]
            if is_trial:
                plan = await self._plan(candidates, seen)
                seen |= {each.username: each.roles for each in plan.new}
            else:
                plan = await self._make(candidates, actor, caller)
            refusals = sorted([*unread, *refused, *plan.refused])
            yield ImportOutcome(len(plan.new), plan.already, tuple(refusals))

    def _check(self, row: UserRow) -> _Candidate | RefusedRow:
        """Check the rules that need no database."""
        try:
            name = read_new_username(row.username)
            if row.password is not None:
                check_new_password(
                    row.password, username=name, minimum=self._password_min_length
                )
            ready, work = NO_PASSWORD, None
            if row.password_hash is not None:
                ready, work = self._hasher.adopt(
                    row.password_hash, field="password_hash"
                )
        except InvalidRequestError as error:
            return _refuse(row, error.problems[0])
        return _Candidate(row, name, frozenset(row.roles), ready, work)

    async def _make(
        self, candidates: Sequence[_Candidate], actor: str, caller: Caller
    ) -> _Plan:
        hashes: dict[int, str] = {}
        for _ in range(_ATTEMPTS):
            plan = await self._plan(candidates, {})
            for each in plan.new:
                hashes.setdefault(each.row.line, each.ready_hash)
            await self._hash([each for each in plan.new if each.row.password], hashes)
            try:
                async with self._database.write() as db:
                    await self._insert(db, plan.new, hashes, actor, caller)
            except (IntegrityError, InvalidRequestError, LookAlikeError):
                continue  # changed since the plan: read again
            return plan
        raise UnavailableError(detail="the accounts change while they are imported")

    async def _plan(
        self, candidates: Sequence[_Candidate], seen: dict[str, frozenset[str]]
    ) -> _Plan:
        names = [each.username for each in candidates]
        async with self._database.read() as db:
            found = (
                await db.execute(
                    select(User.id, User.username).where(User.username.in_(names))
                )
            ).all()
            held = await read_roles(db, [row.id for row in found])
            alike = await self._look_alikes.find(db, names)
            rows = await db.execute(select(Role.name, Role.scopes))
            scopes_of = {row.name: row.scopes for row in rows}
        there = {**seen}
        there |= {row.username: frozenset(held.get(row.id, ())) for row in found}
        skeletons = {make_skeleton(name) for name in seen}
        plan = _Plan([], 0, [])
        for each in candidates:
            if each.username in there:
                if there[each.username] == each.roles:
                    plan = plan._replace(already=plan.already + 1)
                else:
                    problem = FieldProblem("username", _EXISTS_OTHERWISE)
                    plan.refused.append(_refuse(each.row, problem))
                continue
            skeleton = make_skeleton(each.username)
            if each.username in alike or skeleton in skeletons:
                problem = FieldProblem("username", LOOKS_TAKEN)
                plan.refused.append(_refuse(each.row, problem))
                continue
            try:
                _require_known(each.roles, scopes_of)
            except InvalidRequestError as error:
                plan.refused.append(_refuse(each.row, error.problems[0]))
            else:
                there[each.username] = each.roles
                skeletons.add(skeleton)
                plan.new.append(each)
        return plan

    async def _hash(
        self, candidates: Sequence[_Candidate], hashes: dict[int, str]
    ) -> None:
        """Hash the passwords, on all threads of the pool."""
        free = asyncio.Semaphore(self._pool.workers)

        async def hash_one(row: UserRow) -> None:
            async with free:
                work = partial(self._hasher.hash, row.password or "")
                hashes[row.line] = await self._pool.run(work)

        waiting = [c.row for c in candidates if not hashes[c.row.line]]
        await asyncio.gather(*map(hash_one, waiting))

    async def _insert(
        self,
        db: AsyncSession,
        new: Sequence[_Candidate],
        hashes: dict[int, str],
        actor: str,
        caller: Caller,
    ) -> None:
        if not new:
            return
        now = seconds(self._clock)
        scopes_of = await hold_roles(db, {role for each in new for role in each.roles})
        for each in new:
            # A role can have got more scopes since the plan was made.
            require_granted_fits(each.roles, scopes_of)
        await self._look_alikes.require_distinct(db, [each.username for each in new])
        made = [(str(uuid.uuid4()), each) for each in new]
        users = [
            _build_user(user_id, each, hashes[each.row.line], now)
            for user_id, each in made
        ]
        await db.execute(insert(User), users)
        for work in _find_costliest(each.work for each in new):
            await note_stored(self._database, db, work)
        held = [
            {"user_id": user_id, "role_name": role}
            for user_id, each in made
            for role in sorted(each.roles)
        ]
        if held:
            await db.execute(insert(UserRole), held)
        for user_id, each in made:
            facts: dict[str, str | int] = {
                "roles": " ".join(sorted(each.roles)),
                "source": "import",
            }
            await self._audit(db, Act("user.created", actor, user_id, facts), caller)


def _build_user(
    user_id: str, candidate: _Candidate, password_hash: str, now: int
) -> dict[str, str | int]:
    return {
        "id": user_id,
        "username": candidate.username,
        **skeleton_values(candidate.username),
        "password_hash": password_hash,
        "generation": 0,
        "version": 1,
        "created_at": now,
        "updated_at": now,
        "password_changed_at": now,
    }


def _find_costliest(works: Iterable[Work | None]) -> list[Work]:
    """Return the largest of each family, in the order of the families' names."""
    largest: dict[str, Work] = {}
    for work in works:
        if work is not None:
            known = largest.get(work.family)
            largest[work.family] = work if known is None else max(known, work)
    return [largest[family] for family in sorted(largest)]


def _require_known(roles: frozenset[str], scopes_of: dict[str, str]) -> None:
    if not roles <= scopes_of.keys():
        raise InvalidRequestError.of_field("roles", "must name roles that exist")
    require_granted_fits(roles, scopes_of)


def _refuse(row: UserRow, problem: FieldProblem) -> RefusedRow:
    return RefusedRow(row.line, row.raw, problem.field, problem.rule)
