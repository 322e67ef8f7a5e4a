"""The sessions of a user: listed, ended, kept to a number, and forgotten at last."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import func, select

from issuer.acts import Caller
from issuer.storage.tables.sessions import RefreshFamily, Session
from issuer.tokens.subjects import load_subject
from tests.support.issuer_harness import IssuerHarness, make_settings, running_issuer
from tests.support.issuer_story import (
    PASSWORD,
    Tokens,
    is_accepted,
    is_invalid_grant,
    log_in,
    post_refresh,
    read_audit,
    read_feed,
    refresh,
)

HOUR = 3_600
DAY = 24 * HOUR
LIMIT = 3


@pytest.fixture
async def issuer(database_url: str) -> AsyncIterator[IssuerHarness]:
    """An issuer with three sessions per user, idle for an hour, kept for a day."""
    settings = make_settings(
        database_url,
        max_sessions_per_user=LIMIT,
        refresh_idle_ttl=HOUR,
        refresh_ttl=DAY,
        session_retention=DAY,
    )
    async with running_issuer(settings) as harness:
        yield harness


@pytest.fixture
async def alice(issuer: IssuerHarness) -> str:
    """Alice's user id."""
    return (await issuer.create_user("alice", PASSWORD)).id


@pytest.fixture
async def admin(issuer: IssuerHarness) -> Tokens:
    """An administrator, logged in."""
    await issuer.issuer.accounts.users.create_admin("root", PASSWORD, caller=Caller())
    return await log_in(issuer, "root")


async def read_sids(
    issuer: IssuerHarness, tokens: Tokens, path: str = "/auth/sessions"
) -> list[str]:
    answer = await issuer.client.get(path, headers=tokens.bearer)
    assert answer.status_code == 200
    return [session["sid"] for session in answer.json()["sessions"]]


async def has_ended(issuer: IssuerHarness, tokens: Tokens) -> bool:
    is_refused = is_invalid_grant(await post_refresh(issuer, tokens.refresh_token))
    return is_refused and not await is_accepted(issuer, tokens)


async def count_rows(issuer: IssuerHarness) -> tuple[int, int]:
    async with issuer.database.read() as db:
        sessions = await db.scalar(select(func.count()).select_from(Session))
        families = await db.scalar(select(func.count()).select_from(RefreshFamily))
    return sessions or 0, families or 0


async def test_a_user_sees_the_own_sessions(issuer: IssuerHarness, alice: str) -> None:
    first = await log_in(issuer)
    issuer.clock.advance(60)
    began = issuer.clock.now
    body = {"username": "alice", "password": PASSWORD}
    headers = {"User-Agent": "a phone"}
    answer = await issuer.client.post("/auth/login", json=body, headers=headers)
    second = Tokens(answer.json()["access_token"], answer.json()["refresh_token"])
    issuer.clock.advance(60)
    second = await refresh(issuer, second.refresh_token)
    answer = await issuer.client.get("/auth/sessions", headers=second.bearer)
    newest, oldest = answer.json()["sessions"]
    assert newest == {
        "sid": second.sid,
        "client_id": "gatehouse",
        "device_label": "a phone",
        "address": "192.0.2.7",
        "created_at": began,
        "last_used_at": began + 60,
        "expires_at": began + DAY,
        "idle_expires_at": began + 60 + HOUR,
        "is_current": True,
    }
    assert (oldest["sid"], oldest["is_current"]) == (first.sid, False)


async def test_all_other_sessions_are_ended_at_once(
    issuer: IssuerHarness, alice: str, admin: Tokens
) -> None:
    ours, *others = [await log_in(issuer) for _ in range(3)]
    answer = await issuer.client.delete("/auth/sessions", headers=ours.bearer)
    assert answer.json() == {"revoked": True, "position": 2}
    assert await read_sids(issuer, ours) == [ours.sid]
    for tokens in others:
        assert await has_ended(issuer, tokens)
    assert await is_accepted(issuer, await refresh(issuer, ours.refresh_token))
    assert await is_accepted(issuer, admin)
    feed = [key for kind, key, _ in await read_feed(issuer) if kind == "sid"]
    assert sorted(feed) == sorted(tokens.sid for tokens in others)
    events = await read_audit(issuer, "session.ended")
    assert {event["facts"]["sid"] for event in events} == set(feed)
    again = await issuer.client.delete("/auth/sessions", headers=ours.bearer)
    assert again.json() == {"revoked": True, "position": 2}


async def test_an_administrator_ends_one_session_or_all_of_a_user(
    issuer: IssuerHarness, alice: str, admin: Tokens
) -> None:
    one, two, three = [await log_in(issuer) for _ in range(3)]
    path = f"/users/{alice}/sessions"
    assert set(await read_sids(issuer, admin, path)) == {one.sid, two.sid, three.sid}
    delete = issuer.client.delete
    answer = await delete(f"{path}/{one.sid}", headers=admin.bearer)
    assert answer.json() == {"revoked": True, "position": 1}
    assert await has_ended(issuer, one)
    assert await is_accepted(issuer, two)
    (event,) = await read_audit(issuer, "session.ended")
    assert (event["actor"], event["subject"]) == (admin.claims["sub"], alice)
    # Neither an ended one nor another user's is there under this user.
    for sid in (one.sid, admin.sid):
        answer = await delete(f"{path}/{sid}", headers=admin.bearer)
        assert answer.status_code == 404
    answer = await delete(path, headers=admin.bearer)
    assert answer.json() == {"revoked": True, "position": 2}
    assert await has_ended(issuer, two)
    assert await has_ended(issuer, three)
    assert await read_sids(issuer, admin, path) == []
    assert await is_accepted(issuer, admin)
    nobody = "/users/00000000-0000-4000-8000-000000000000/sessions"
    for method in ("GET", "DELETE"):
        answer = await issuer.client.request(method, nobody, headers=admin.bearer)
        assert answer.status_code == 404


async def test_idle_and_expired_sessions_are_not_listed(
    issuer: IssuerHarness, alice: str
) -> None:
    idle, used = await log_in(issuer), await log_in(issuer)
    issuer.clock.advance(HOUR - 1)
    used = await refresh(issuer, used.refresh_token)
    issuer.clock.advance(1)
    assert await read_sids(issuer, used) == [used.sid]
    assert is_invalid_grant(await post_refresh(issuer, idle.refresh_token))


async def test_a_session_ends_at_its_absolute_lifetime_however_much_it_is_used(
    issuer: IssuerHarness, alice: str
) -> None:
    """R29, ASVS 10.4.8."""
    tokens = await log_in(issuer)
    for _ in range(47):
        issuer.clock.advance(HOUR // 2)
        tokens = await refresh(issuer, tokens.refresh_token)
    issuer.clock.advance(HOUR // 2)
    assert await has_ended(issuer, tokens)


async def test_a_login_past_the_limit_ends_the_oldest_session(
    issuer: IssuerHarness, alice: str
) -> None:
    tokens = []
    for _ in range(LIMIT):
        tokens.append(await log_in(issuer))
        issuer.clock.advance(1)
    # Used last, and still begun first.
    tokens[0] = await refresh(issuer, tokens[0].refresh_token)
    assert await read_feed(issuer) == []
    newest = await log_in(issuer)
    assert await has_ended(issuer, tokens[0])
    for each in (*tokens[1:], newest):
        assert await is_accepted(issuer, each)
    assert await read_feed(issuer) == [("sid", tokens[0].sid, 0)]
    (event,) = await read_audit(issuer, "session.ended")
    assert event["facts"] == {"sid": tokens[0].sid, "reason": "limit"}


async def test_idle_sessions_leave_room(issuer: IssuerHarness, alice: str) -> None:
    for _ in range(LIMIT):
        await log_in(issuer)
    issuer.clock.advance(HOUR)
    tokens = await log_in(issuer)
    assert await read_feed(issuer) == []
    assert await read_sids(issuer, tokens) == [tokens.sid]


async def test_a_prune_that_waited_dates_no_session_back(
    issuer: IssuerHarness, alice: str
) -> None:
    """It took the time before it waited for its turn to write."""
    sessions, session_list = (
        issuer.issuer.sessions.sessions,
        issuer.issuer.sessions.session_list,
    )
    async with issuer.database.write() as db:
        subject = await load_subject(db, alice, is_locked=True)
        assert subject is not None
        pruning = asyncio.create_task(session_list.prune())
        await asyncio.sleep(0)  # as far as its first wait
        issuer.clock.advance(HOUR)
        await sessions.open(db, subject, Caller())
    await pruning
    (session,) = await session_list.list_of(alice)
    assert session.created_at == issuer.clock.now


async def test_logins_at_once_keep_to_the_limit(
    issuer: IssuerHarness, alice: str
) -> None:
    """Each would count without the others if they were not made to take turns."""
    sessions, caller = issuer.issuer.sessions.sessions, Caller()

    async def complete_login() -> None:
        # What follows a login's hash, which would put them in a row by itself.
        async with issuer.database.write() as db:
            subject = await load_subject(db, alice, is_locked=True)
            assert subject is not None
            session = await sessions.open(db, subject, caller)
            await sessions.keep_limit(db, session, caller)

    await asyncio.gather(*(complete_login() for _ in range(3 * LIMIT)))
    # Not by a further login: that would end what these left over.
    assert len(await issuer.issuer.sessions.session_list.list_of(alice)) == LIMIT
    assert len(await read_feed(issuer)) == 2 * LIMIT


async def test_every_session_stays_without_a_limit(database_url: str) -> None:
    settings = make_settings(database_url, max_sessions_per_user=0)
    async with running_issuer(settings) as issuer:
        await issuer.create_user("alice", PASSWORD)
        tokens = [await log_in(issuer) for _ in range(LIMIT + 1)]
        assert len(await read_sids(issuer, tokens[0])) == LIMIT + 1


@pytest.mark.parametrize("end", ["logout", "idle", "expired"])
async def test_ended_sessions_are_kept_for_a_while_and_then_deleted(
    issuer: IssuerHarness, alice: str, end: str
) -> None:
    tokens = await log_in(issuer)
    lifetime = 0
    if end == "logout":
        await issuer.client.post("/auth/logout", headers=tokens.bearer)
    elif end == "idle":
        lifetime = HOUR
    else:
        lifetime = DAY
        for _ in range(47):
            issuer.clock.advance(HOUR // 2)
            tokens = await refresh(issuer, tokens.refresh_token)
        lifetime -= 47 * (HOUR // 2)
    issuer.clock.advance(lifetime + DAY)
    session_list = issuer.issuer.sessions.session_list
    assert await session_list.prune() == 0
    assert await count_rows(issuer) == (1, 1)
    issuer.clock.advance(1)
    assert await session_list.prune() == 1
    assert await count_rows(issuer) == (0, 0)
    assert is_invalid_grant(await post_refresh(issuer, tokens.refresh_token))


async def test_a_living_session_is_never_forgotten(database_url: str) -> None:
    """It is older than the retention time, which counts from its end."""
    settings = make_settings(database_url, refresh_ttl=30 * DAY, session_retention=DAY)
    async with running_issuer(settings) as issuer:
        await issuer.create_user("alice", PASSWORD)
        tokens = await log_in(issuer)
        for _ in range(5):
            issuer.clock.advance(DAY)
            tokens = await refresh(issuer, tokens.refresh_token)
        assert await issuer.issuer.sessions.session_list.prune() == 0
        assert await is_accepted(issuer, tokens)


async def test_two_replicas_may_forget_at_once(
    issuer: IssuerHarness, alice: str
) -> None:
    tokens = [await log_in(issuer) for _ in range(LIMIT)]
    await issuer.client.post("/auth/logout-all", headers=tokens[0].bearer)
    issuer.clock.advance(DAY + 1)
    session_list = issuer.issuer.sessions.session_list
    await asyncio.gather(session_list.prune(), session_list.prune())
    assert await count_rows(issuer) == (0, 0)


async def test_refreshes_and_logins_and_endings_at_once_end_in_one_truth(
    issuer: IssuerHarness, alice: str, admin: Tokens
) -> None:
    """R28: no deadlock, and exactly the listed sessions work."""
    tokens = [await log_in(issuer) for _ in range(LIMIT)]
    await asyncio.gather(
        *(post_refresh(issuer, each.refresh_token) for each in tokens),
        issuer.client.delete("/auth/sessions", headers=tokens[0].bearer),
        issuer.client.delete(
            f"/users/{alice}/sessions/{tokens[1].sid}", headers=admin.bearer
        ),
        log_in(issuer),
        log_in(issuer),
    )
    probe = await log_in(issuer)
    living = set(await read_sids(issuer, probe))
    assert len(living) <= LIMIT
    for each in tokens:
        assert await is_accepted(issuer, each) == (each.sid in living)
