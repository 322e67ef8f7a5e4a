"""A rotation or a login that is overtaken between its reading and its writing.

Only PostgreSQL lets two transactions be that far at once; SQLite's writers go one after
the other. A third transaction holds the family's row until the one under test waits for
it, so the order of events is the same in every run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.acts import Caller
from issuer.errors import InvalidGrantError, ReuseDetectedError
from issuer.sessions.families import Exchanged, RefreshFamilies
from issuer.sessions.refresh import RefreshTimes
from issuer.sessions.session_ending import SessionsToEnd
from issuer.sessions.sessions import TokenPair
from issuer.storage.tables.sessions import RefreshFamily, Session
from issuer.storage.tables.users import User
from tests.support.issuer_harness import IssuerHarness, make_settings, running_issuer
from tests.support.issuer_story import PASSWORD, log_in, post_login, read_feed
from tests.support.processes import eventually

pytestmark = pytest.mark.postgres


@pytest.fixture
async def issuer(postgres_url: str) -> AsyncIterator[IssuerHarness]:
    """A running issuer with one user."""
    async with running_issuer(make_settings(postgres_url)) as harness:
        await harness.create_user("alice", PASSWORD)
        yield harness


@pytest.fixture
def families(issuer: IssuerHarness) -> RefreshFamilies:
    """The families, to be moved by hand."""
    return RefreshFamilies(issuer.settings.refresh_keys, RefreshTimes(10, 10_000))


async def is_somebody_waiting(issuer: IssuerHarness) -> bool:
    """Whether a transaction waits for another's row."""
    async with issuer.database.read() as observer:
        waiting = text("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return bool(await observer.scalar(waiting))


#: A refresh that names scopes goes the long way, any other is one statement at first.
WAYS = pytest.mark.parametrize("scope", [None, ""], ids=["quick", "long"])


async def refresh_overtaken_by(
    issuer: IssuerHarness,
    token: str,
    overtake: Callable[[AsyncSession], Awaitable[object]],
    *,
    scope: str | None,
    held: type[RefreshFamily | Session] = RefreshFamily,
) -> TokenPair:
    """Refresh; `overtake` is committed after it has read and before it may write."""
    async with issuer.database.write() as db:
        await db.execute(select(held).with_for_update())
        refreshing = asyncio.create_task(
            issuer.issuer.sessions.sessions.refresh(token, Caller(), scope=scope)
        )

        await eventually(
            lambda: is_somebody_waiting(issuer), what="the rotation to wait for the row"
        )
        await overtake(db)
    return await refreshing


@WAYS
async def test_a_rotation_that_was_overtaken_twice_does_not_turn_the_family_back(
    issuer: IssuerHarness, families: RefreshFamilies, scope: str | None
) -> None:
    """R28: it would bring a spent token back to life."""
    first = await log_in(issuer)
    now = issuer.clock.now

    async def rotate_twice(db: AsyncSession) -> None:
        token = first.refresh_token
        for _ in range(2):
            outcome = await families.exchange(
                db, families.parse(token), now, client_id="gatehouse"
            )
            assert isinstance(outcome, Exchanged)
            token = outcome.refresh_token

    with pytest.raises(ReuseDetectedError):
        await refresh_overtaken_by(
            issuer, first.refresh_token, rotate_twice, scope=scope
        )
    assert await read_feed(issuer) == [("sid", first.sid, 0)]


@WAYS
async def test_a_rotation_that_was_overtaken_once_gives_the_same_successor(
    issuer: IssuerHarness, families: RefreshFamilies, scope: str | None
) -> None:
    """R28, R29."""
    first = await log_in(issuer)
    given: list[str] = []

    async def rotate(db: AsyncSession) -> None:
        presented = families.parse(first.refresh_token)
        outcome = await families.exchange(
            db, presented, issuer.clock.now, client_id="gatehouse"
        )
        assert isinstance(outcome, Exchanged)
        given.append(outcome.refresh_token)

    pair = await refresh_overtaken_by(issuer, first.refresh_token, rotate, scope=scope)
    assert [pair.refresh_token] == given


@WAYS
async def test_a_rotation_that_a_revocation_overtook_is_refused(
    issuer: IssuerHarness, families: RefreshFamilies, scope: str | None
) -> None:
    """R28: the family alone, so that nothing but the swap can refuse."""
    first = await log_in(issuer)

    async def revoke(db: AsyncSession) -> None:
        await families.revoke(
            db, RefreshFamily.sid == first.sid, reason="test", now=issuer.clock.now
        )

    with pytest.raises(InvalidGrantError):
        await refresh_overtaken_by(issuer, first.refresh_token, revoke, scope=scope)
    async with issuer.database.read() as db:
        family = (await db.scalars(select(RefreshFamily))).one()
    assert (family.generation, family.revoked_reason) == (0, "test")


@WAYS
async def test_a_rotation_that_its_sessions_end_overtook_is_refused(
    issuer: IssuerHarness, scope: str | None
) -> None:
    """R28: the session alone, so that nothing but the mark of its use can refuse."""
    first = await log_in(issuer)

    async def end(db: AsyncSession) -> None:
        await db.execute(update(Session).values(ended_at=issuer.clock.now))

    with pytest.raises(InvalidGrantError):
        await refresh_overtaken_by(
            issuer, first.refresh_token, end, scope=scope, held=Session
        )


async def test_a_login_waits_for_the_logout_everywhere_that_it_met(
    issuer: IssuerHarness,
) -> None:
    """R28: else its session would be opened beside it, unseen, and outlive it."""
    async with issuer.database.write() as db:
        user_id = await db.scalar(
            update(User).values(generation=User.generation + 1).returning(User.id)
        )
        assert user_id is not None
        which = SessionsToEnd(user_ids=[user_id])
        await issuer.issuer.sessions.ending.end_sessions(
            db, which, reason="test", now=issuer.clock.now
        )
        logging_in = asyncio.create_task(post_login(issuer))
        await eventually(
            lambda: is_somebody_waiting(issuer), what="the login to wait for the row"
        )
    assert (await logging_in).status_code == 401
    async with issuer.database.read() as reader:
        assert (await reader.scalars(select(Session))).all() == []
