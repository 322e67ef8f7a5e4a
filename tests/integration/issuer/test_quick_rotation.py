"""The one-statement refresh on PostgreSQL: its conditions, and that it refuses
nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from sqlalchemy import delete, event, select, update
from sqlalchemy.sql.dml import Delete, Update

from issuer.acts import Caller
from issuer.errors import InvalidGrantError, InvalidScopeError, ReuseDetectedError
from issuer.sessions.families import RefreshFamilies
from issuer.sessions.quick_rotation import QuickRotation
from issuer.sessions.refresh import RefreshTimes
from issuer.storage.rate_limits import RateLimit
from issuer.storage.tables.sessions import RefreshFamily, Session
from issuer.storage.tables.users import User
from tests.support.issuer_harness import IssuerHarness, make_settings, running_issuer
from tests.support.issuer_story import PASSWORD, log_in
from tests.support.processes import eventually

pytestmark = pytest.mark.postgres

Change = Update | Delete


@pytest.fixture
async def issuer(postgres_url: str) -> AsyncIterator[IssuerHarness]:
    """A running issuer with one user."""
    async with running_issuer(make_settings(postgres_url)) as harness:
        await harness.create_user("alice", PASSWORD)
        yield harness


@contextmanager
def statements_of_this_task(issuer: IssuerHarness) -> Iterator[list[str]]:
    """Collect the statements of this task for the refresh itself.

    Not the background's, nor the keys', which are read anew now and then.
    """
    found: list[str] = []
    task = asyncio.current_task()

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if asyncio.current_task() is task and "signing_keys" not in statement:
            found.append(statement)

    engine = issuer.database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    yield found
    event.remove(engine, "before_cursor_execute", note)


async def refresh(issuer: IssuerHarness, token: str, scope: str | None = None) -> str:
    """Refresh, and return the successor."""
    pair = await issuer.issuer.sessions.sessions.refresh(token, Caller(), scope=scope)
    return pair.refresh_token


async def rotate_quickly(
    issuer: IssuerHarness, token: str, client_id: str = "gatehouse"
) -> object:
    """Ask the quick rotation alone."""
    settings = issuer.settings
    limits = RefreshTimes(settings.refresh_grace, settings.refresh_idle_ttl)
    families = RefreshFamilies(settings.refresh_keys, limits)
    quick = QuickRotation(
        issuer.database, families, RateLimit(settings.refresh_limit, 60)
    )
    presented = families.parse(token)
    return await quick.rotate(presented, issuer.clock.now, client_id=client_id)


async def write(issuer: IssuerHarness, changes: Sequence[Change]) -> None:
    """Change the rows by hand, so that one thing alone speaks against a refresh."""
    async with issuer.database.write() as db:
        for change in changes:
            await db.execute(change)


async def read_rows(issuer: IssuerHarness) -> list[tuple[Any, ...]]:
    """Return all that a refresh may write."""
    async with issuer.database.read() as db:
        families = await db.execute(select(*RefreshFamily.__table__.c))
        sessions = await db.execute(select(*Session.__table__.c))
        return [tuple(row) for row in (*families, *sessions)]


async def test_a_current_token_is_exchanged_in_one_statement(
    issuer: IssuerHarness,
) -> None:
    """R28: swap, mark of use and reading are one; the successor works likewise."""
    token = (await log_in(issuer)).refresh_token
    for generation in (1, 2):
        issuer.clock.advance(60)
        with statements_of_this_task(issuer) as statements:
            token = await refresh(issuer, token)
        assert len(statements) == 1
        async with issuer.database.read() as db:
            family = (await db.scalars(select(RefreshFamily))).one()
            session = (await db.scalars(select(Session))).one()
        assert (family.generation, family.rotated_at) == (generation, issuer.clock.now)
        assert session.last_used_at == issuer.clock.now


def against(issuer: IssuerHarness, what: str) -> Change:
    """Return the change after which one thing alone speaks against a refresh."""
    now = issuer.clock.now
    family, session, user = update(RefreshFamily), update(Session), update(User)
    return {
        "another digest": family.values(current_digest=b"\x00" * 32),
        "a revoked family": family.values(revoked_at=now, revoked_reason="test"),
        "an expired family": family.values(expires_at=now),
        "a family that rested": family.values(
            rotated_at=now - issuer.settings.refresh_idle_ttl
        ),
        "an ended session": session.values(ended_at=now),
        "a disabled user": user.values(disabled_at=now),
        "no family": delete(RefreshFamily),
    }[what]


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("another digest", ReuseDetectedError),
        ("a revoked family", InvalidGrantError),
        ("an expired family", InvalidGrantError),
        ("a family that rested", InvalidGrantError),
        ("an ended session", InvalidGrantError),
        ("a disabled user", InvalidGrantError),
        ("no family", InvalidGrantError),
    ],
)
async def test_a_refresh_that_may_be_refused_takes_the_long_way(
    issuer: IssuerHarness, what: str, error: type[Exception]
) -> None:
    """R28: nothing is written or logged; the long way refuses."""
    token = (await log_in(issuer)).refresh_token
    await write(issuer, [against(issuer, what)])
    before = await read_rows(issuer)
    assert await rotate_quickly(issuer, token) is None
    assert await read_rows(issuer) == before
    with statements_of_this_task(issuer) as statements, pytest.raises(error):
        await refresh(issuer, token)
    assert len(statements) > 1


@pytest.mark.parametrize("member", ["expires_at", "rotated_at"])
async def test_the_last_second_of_a_family_still_counts(
    issuer: IssuerHarness, member: str
) -> None:
    """R29: both ways end a family in the same second."""
    token = (await log_in(issuer)).refresh_token
    idle_ttl = issuer.settings.refresh_idle_ttl
    ends = {"expires_at": 1, "rotated_at": 1 - idle_ttl}
    values = {member: issuer.clock.now + ends[member]}
    await write(issuer, [update(RefreshFamily).values(values)])
    assert await rotate_quickly(issuer, token) is not None


async def test_a_spent_token_is_left_to_the_long_way(issuer: IssuerHarness) -> None:
    """R29: within the grace that gives the same successor, after it the session
    ends.
    """
    first = (await log_in(issuer)).refresh_token
    second = await refresh(issuer, first)
    before = await read_rows(issuer)
    assert await rotate_quickly(issuer, first) is None
    assert await read_rows(issuer) == before
    assert await refresh(issuer, first) == second
    issuer.clock.advance(issuer.settings.refresh_grace)
    assert await rotate_quickly(issuer, first) is None
    with pytest.raises(ReuseDetectedError):
        await refresh(issuer, first)
    assert await rotate_quickly(issuer, second) is None


async def test_another_clients_token_is_left_to_the_long_way(
    issuer: IssuerHarness,
) -> None:
    """RFC 6749, section 6: and stays unchanged for the client that it belongs to."""
    token = (await log_in(issuer)).refresh_token
    assert await rotate_quickly(issuer, token, client_id="another") is None
    with pytest.raises(InvalidGrantError):
        await issuer.issuer.sessions.sessions.refresh(
            token, Caller(), client_id="another"
        )
    assert await rotate_quickly(issuer, token) is not None


async def test_wanting_too_much_does_not_spend_the_token(
    issuer: IssuerHarness,
) -> None:
    """RFC 6749, section 6: so a refresh that names scopes goes the long way."""
    token = (await log_in(issuer)).refresh_token
    with pytest.raises(InvalidScopeError):
        await refresh(issuer, token, scope="not:granted")
    with statements_of_this_task(issuer) as statements:
        await refresh(issuer, token, scope="")
    assert len(statements) > 1


async def test_a_refresh_that_is_given_up_gives_its_connection_back(
    issuer: IssuerHarness,
) -> None:
    """R38: losing a connection at each departing caller would end all refreshes."""
    token = (await log_in(issuer)).refresh_token
    async with issuer.database.write() as db:
        await db.execute(select(RefreshFamily.id).with_for_update())
        refreshing = asyncio.create_task(refresh(issuer, token))
        # This transaction's and the waiting one's.
        await eventually(
            lambda: has_in_use(issuer, 2), what="the refresh to have a connection"
        )
        refreshing.cancel()
        with suppress(asyncio.CancelledError):
            await refreshing
    await eventually(lambda: has_in_use(issuer, 0), what="the connections to be back")
    await refresh(issuer, token)


async def has_in_use(issuer: IssuerHarness, count: int) -> bool:
    return issuer.database.measure().in_use == count
