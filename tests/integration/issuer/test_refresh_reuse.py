"""Refresh tokens rotate once, survive lost answers, and end when they are copied."""

from __future__ import annotations

import asyncio
import uuid

import httpx
import pytest
from sqlalchemy import update

from issuer.storage.tables.roles import Role, UserRole
from issuer.storage.tables.users import User
from tests.support.issuer_harness import (
    FakeClock,
    IssuerHarness,
    make_settings,
    running_issuer,
)
from tests.support.issuer_story import (
    PASSWORD,
    is_accepted,
    is_invalid_grant,
    log_in,
    post_refresh,
    read_audit,
    read_feed,
    refresh,
)


@pytest.fixture
async def alice(issuer: IssuerHarness) -> str:
    """Alice's user id."""
    user = await issuer.create_user("alice", PASSWORD)
    return user.id


@pytest.mark.usefixtures("alice")
async def test_a_refresh_answers_a_new_pair_of_the_same_session(
    issuer: IssuerHarness,
) -> None:
    first = await log_in(issuer)
    issuer.clock.advance(60)
    second = await refresh(issuer, first.refresh_token)
    assert second.refresh_token != first.refresh_token
    assert second.claims["jti"] != first.claims["jti"]
    assert second.claims["exp"] == first.claims["exp"] + 60
    for claim in ("sub", "sid", "gen", "auth_time", "client_id", "scope", "username"):
        assert second.claims[claim] == first.claims[claim]
    third = await refresh(issuer, second.refresh_token)
    assert await is_accepted(issuer, third)


@pytest.mark.usefixtures("alice")
async def test_a_hundred_uses_at_once_give_exactly_one_successor(
    issuer: IssuerHarness,
) -> None:
    """R28: all are answered, all with the same token, and it alone lives.

    An overloaded machine may answer 503; the client then asks again, within the grace.
    """
    first = await log_in(issuer)

    async def refresh_until_answered() -> httpx.Response:
        while True:
            answer = await post_refresh(issuer, first.refresh_token)
            if answer.status_code != 503:
                return answer
            assert int(answer.headers["Retry-After"]) > 0

    answers = await asyncio.gather(*(refresh_until_answered() for _ in range(100)))
    assert {answer.status_code for answer in answers} == {200}
    (successor,) = {answer.json()["refresh_token"] for answer in answers}
    assert len({answer.json()["access_token"] for answer in answers}) == 100
    assert await read_feed(issuer) == []
    await refresh(issuer, successor)


@pytest.mark.usefixtures("alice")
async def test_a_lost_answer_is_given_again_within_the_grace(
    issuer: IssuerHarness,
) -> None:
    """R29."""
    first = await log_in(issuer)
    lost = await refresh(issuer, first.refresh_token)
    issuer.clock.advance(9)
    again = await refresh(issuer, first.refresh_token)
    assert again.refresh_token == lost.refresh_token
    assert again.claims["jti"] != lost.claims["jti"]
    await refresh(issuer, again.refresh_token)


async def test_a_replay_after_the_successor_was_used_ends_the_session(
    issuer: IssuerHarness, alice: str
) -> None:
    """R28, RFC 9700 section 4.14.2: the live token dies with the stolen one."""
    first = await log_in(issuer)
    second = await refresh(issuer, first.refresh_token)
    third = await refresh(issuer, second.refresh_token)
    assert is_invalid_grant(await post_refresh(issuer, first.refresh_token))

    for tokens in (first, second, third):
        assert is_invalid_grant(await post_refresh(issuer, tokens.refresh_token))
        assert not await is_accepted(issuer, tokens)
    assert await read_feed(issuer) == [("sid", first.sid, 0)]
    (event,) = await read_audit(issuer, "refresh.reused")
    assert event["subject"] == alice
    assert event["facts"]["sid"] == first.sid
    assert event["facts"]["generation"] == 0
    assert event["address"] == "192.0.2.7"


@pytest.mark.usefixtures("alice")
async def test_a_replay_after_the_grace_ends_the_session(issuer: IssuerHarness) -> None:
    """R29."""
    first = await log_in(issuer)
    second = await refresh(issuer, first.refresh_token)
    issuer.clock.advance(10)
    assert is_invalid_grant(await post_refresh(issuer, first.refresh_token))
    assert is_invalid_grant(await post_refresh(issuer, second.refresh_token))
    assert await read_feed(issuer) == [("sid", first.sid, 0)]


@pytest.mark.usefixtures("alice")
async def test_many_replays_at_once_are_one_event(issuer: IssuerHarness) -> None:
    """R42: committed once, in any order."""
    first = await log_in(issuer)
    second = await refresh(issuer, first.refresh_token)
    await refresh(issuer, second.refresh_token)
    answers = await asyncio.gather(
        *(post_refresh(issuer, first.refresh_token) for _ in range(20))
    )
    assert all(map(is_invalid_grant, answers))
    assert await read_feed(issuer) == [("sid", first.sid, 0)]
    assert len(await read_audit(issuer, "refresh.reused")) == 1


@pytest.mark.usefixtures("alice")
async def test_a_replay_that_races_a_rotation_leaves_no_living_token(
    issuer: IssuerHarness,
) -> None:
    """R28: the case in which a row per token leaves one alive, thirty times over."""
    for _ in range(30):
        first = await log_in(issuer)
        second = await refresh(issuer, first.refresh_token)
        third = await refresh(issuer, second.refresh_token)
        replay, rotation = await asyncio.gather(
            post_refresh(issuer, first.refresh_token),
            post_refresh(issuer, third.refresh_token),
        )
        assert is_invalid_grant(replay)
        if rotation.status_code == 200:
            survivor = rotation.json()["refresh_token"]
            assert is_invalid_grant(await post_refresh(issuer, survivor))
        assert is_invalid_grant(await post_refresh(issuer, third.refresh_token))


@pytest.mark.usefixtures("alice")
async def test_rotation_does_not_move_the_absolute_lifetime(
    issuer: IssuerHarness,
) -> None:
    """R29 (ASVS 10.4.8)."""
    start = issuer.clock.now
    tokens = await log_in(issuer)
    ttl, idle = issuer.settings.refresh_ttl, issuer.settings.refresh_idle_ttl
    while issuer.clock.now + idle - 1 < start + ttl:
        issuer.clock.advance(idle - 1)
        tokens = await refresh(issuer, tokens.refresh_token)
    issuer.clock.advance(start + ttl - 1 - issuer.clock.now)
    tokens = await refresh(issuer, tokens.refresh_token)
    # Its access token ends with the session, not after it.
    assert tokens.claims["exp"] == start + ttl
    issuer.clock.advance(1)
    assert is_invalid_grant(await post_refresh(issuer, tokens.refresh_token))
    assert not await is_accepted(issuer, tokens)


@pytest.mark.usefixtures("alice")
async def test_a_session_that_rests_too_long_ends(issuer: IssuerHarness) -> None:
    tokens = await log_in(issuer)
    issuer.clock.advance(issuer.settings.refresh_idle_ttl)
    assert is_invalid_grant(await post_refresh(issuer, tokens.refresh_token))


async def test_a_disabled_user_gets_no_further_token(
    issuer: IssuerHarness, alice: str
) -> None:
    tokens = await log_in(issuer)
    await set_disabled(issuer, alice, issuer.clock.now)
    assert is_invalid_grant(await post_refresh(issuer, tokens.refresh_token))
    assert not await is_accepted(issuer, tokens)
    # Nothing was rotated by that: the same token works once the user may again.
    await set_disabled(issuer, alice, None)
    issuer.clock.advance(60)
    await refresh(issuer, tokens.refresh_token)


async def test_a_refresh_grants_the_current_roles_and_never_more(
    issuer: IssuerHarness,
) -> None:
    """RFC 6749, section 6."""
    async with issuer.database.write() as db:
        for name, scopes in (("clerk", "orders:read orders:write"), ("boss", "pay")):
            db.add(Role(name=name, scopes=scopes, created_at=0))
    user = await issuer.create_user("bob", PASSWORD, ["clerk"])
    tokens = await log_in(issuer, "bob")
    assert tokens.claims["scope"] == "orders:read orders:write"
    assert tokens.claims["roles"] == ["clerk"]
    async with issuer.database.write() as db:
        db.add(UserRole(user_id=user.id, role_name="boss"))
        clerk = update(Role).where(Role.name == "clerk")
        await db.execute(clerk.values(scopes="orders:read orders:delete"))
    tokens = await refresh(issuer, tokens.refresh_token)
    assert tokens.claims["scope"] == "orders:read"
    assert tokens.claims["roles"] == ["boss", "clerk"]


@pytest.mark.usefixtures("alice")
@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"refresh_token": "ghr_" + "A" * 71}, id="not ours"),
        pytest.param({"refresh_token": ""}, id="empty"),
        pytest.param({"refresh_token": str(uuid.uuid4())}, id="something else"),
    ],
)
async def test_a_token_we_did_not_make_is_refused_and_ends_nothing(
    issuer: IssuerHarness, body: dict[str, str]
) -> None:
    tokens = await log_in(issuer)
    assert is_invalid_grant(await issuer.client.post("/auth/refresh", json=body))
    assert await is_accepted(issuer, tokens)
    assert await read_feed(issuer) == []


@pytest.mark.parametrize(
    "body", [{}, {"refresh_token": 1}, {"refresh_token": "x", "scope": "y"}]
)
async def test_a_malformed_body_is_a_malformed_request(
    issuer: IssuerHarness, body: dict[str, object]
) -> None:
    answer = await issuer.client.post("/auth/refresh", json=body)
    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid_request"


async def test_the_successor_is_the_same_while_refresh_keys_are_exchanged(
    database_url: str,
) -> None:
    """R29: a second replica that has the new key first answers the same token."""
    old = make_settings(database_url)
    ring = type(old.refresh_keys)(r2=b"\x09" * 32, **old.refresh_keys)
    clock = FakeClock()
    async with (
        running_issuer(old, clock) as first,
        running_issuer(make_settings(database_url, refresh_keys=ring), clock) as second,
    ):
        await first.create_user("alice", PASSWORD)
        tokens = await log_in(first)
        successor = await refresh(first, tokens.refresh_token)
        repeated = await refresh(second, tokens.refresh_token)
        assert repeated.refresh_token == successor.refresh_token
        await refresh(second, successor.refresh_token)


async def set_disabled(
    issuer: IssuerHarness, user_id: str, disabled_at: int | None
) -> None:
    async with issuer.database.write() as db:
        user = update(User).where(User.id == user_id)
        await db.execute(user.values(disabled_at=disabled_at))
