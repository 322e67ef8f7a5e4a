"""The clock was ahead, and was put right: nothing waits or lives until it gets there
(R53).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import func, select

from issuer.feed.followers import forget_lapsed
from issuer.feed.lease_watch import LAPSED_KEPT
from issuer.keys.store import KeyState
from issuer.storage.tables.feed import FeedEntryRow, FollowerRow
from issuer.storage.tables.keys import SigningKey
from issuer.storage.tables.login import KnownSource, LoginThrottle
from issuer.storage.tables.sessions import RefreshFamily, Session
from tests.support.issuer_harness import IssuerHarness, make_settings, resting_issuer
from tests.support.issuer_story import (
    PASSWORD,
    is_accepted,
    is_invalid_grant,
    log_in,
    post_login,
    post_refresh,
    read_audit,
    refresh,
)
from tests.support.login_story import (
    Device,
    begin_login,
    end_login,
    enrol,
    log_in_admin,
)
from tests.support.personal_keys import exchange, get_token, is_dead, make_key

TEN_YEARS = 3_650 * 86_400
WRONG = "wrong horse battery"


@pytest.fixture
async def issuer(database_url: str) -> AsyncIterator[IssuerHarness]:
    """One that prunes when a test says so."""
    async with resting_issuer(make_settings(database_url)) as harness:
        yield harness


@pytest.fixture
async def alice(issuer: IssuerHarness) -> None:
    await issuer.create_user("alice", PASSWORD)


async def test_the_right_password_does_not_wait_for_ten_years(
    issuer: IssuerHarness, alice: None
) -> None:
    """R34: the longest wait is ISSUER_LOGIN_MAX_DELAY, for any earlier clock."""
    issuer.clock.set_by(TEN_YEARS)
    for _ in range(5):
        assert (await post_login(issuer, password=WRONG)).status_code == 401
    assert (await post_login(issuer)).status_code == 429
    issuer.clock.set_by(-TEN_YEARS)
    assert (await post_login(issuer)).status_code == 200


async def test_guesses_wait_again_once_the_clock_is_right(
    issuer: IssuerHarness, alice: None
) -> None:
    """One guess finds the moment of the future void, and is counted."""
    issuer.clock.set_by(TEN_YEARS)
    for _ in range(5):
        await post_login(issuer, password=WRONG)
    issuer.clock.set_by(-TEN_YEARS)
    assert (await post_login(issuer, password=WRONG)).status_code == 401
    assert (await post_login(issuer, password=WRONG)).status_code == 429


async def test_upkeep_removes_rows_when_their_time_is_over(
    issuer: IssuerHarness, alice: None
) -> None:
    issuer.clock.set_by(TEN_YEARS)
    for _ in range(5):
        await post_login(issuer, password=WRONG)
    issuer.clock.advance(1)
    await log_in(issuer)
    await post_login(issuer, "nobody", WRONG)
    issuer.clock.set_by(-TEN_YEARS)
    await issuer.issuer.login.upkeep.prune()
    async with issuer.database.read() as db:
        assert (await db.scalars(select(KnownSource.last_used_at))).all() == [
            issuer.clock.now
        ]
    issuer.clock.advance(86_400)
    await issuer.issuer.login.upkeep.prune()
    async with issuer.database.read() as db:
        assert await db.scalar(select(func.count()).select_from(LoginThrottle)) == 0


async def test_known_networks_are_not_forgotten_while_the_clock_is_ahead(
    issuer: IssuerHarness, alice: None
) -> None:
    """Strangers' failures would make their owner wait there once it is right."""
    await log_in(issuer)
    issuer.clock.set_by(TEN_YEARS)
    await issuer.issuer.login.upkeep.prune()
    issuer.clock.set_by(-TEN_YEARS)
    async with issuer.database.read() as db:
        assert await db.scalar(select(func.count()).select_from(KnownSource)) == 1


async def test_a_spent_refresh_token_is_no_repeat_because_the_clock_went_back(
    issuer: IssuerHarness, alice: None
) -> None:
    """R29, R53: its session ends, as with any other spent token."""
    tokens = await log_in(issuer)
    issuer.clock.set_by(3_600)
    successor = await refresh(issuer, tokens.refresh_token)
    issuer.clock.set_by(-3_600)
    assert is_invalid_grant(await post_refresh(issuer, tokens.refresh_token))
    assert len(await read_audit(issuer, "refresh.reused")) == 1
    assert is_invalid_grant(await post_refresh(issuer, successor.refresh_token))


async def test_the_current_refresh_token_goes_on_after_a_small_correction(
    issuer: IssuerHarness, alice: None
) -> None:
    tokens = await log_in(issuer)
    issuer.clock.set_by(3_600)
    successor = await refresh(issuer, tokens.refresh_token)
    issuer.clock.set_by(-3_600)
    await refresh(issuer, successor.refresh_token)


async def test_a_session_of_the_future_does_not_rest_until_then(
    issuer: IssuerHarness, alice: None
) -> None:
    """R53: its idle time was none for as long as the clock was behind its last use."""
    tokens = await log_in(issuer)
    subject = tokens.claims["sub"]
    for _ in range(3):
        issuer.clock.set_by(6 * 86_400)
        tokens = await refresh(issuer, tokens.refresh_token)
    issuer.clock.set_by(-18 * 86_400)
    assert is_invalid_grant(await post_refresh(issuer, tokens.refresh_token))
    sessions = await issuer.issuer.sessions.session_list.list_of(subject)
    assert list(sessions) == []


async def test_a_session_opened_ahead_of_time_lives_its_lifetime_from_now(
    issuer: IssuerHarness, alice: None
) -> None:
    issuer.clock.set_by(TEN_YEARS)
    tokens = await log_in(issuer)
    issuer.clock.set_by(-TEN_YEARS)
    await issuer.issuer.sessions.session_list.prune()
    async with issuer.database.read() as db:
        session = (await db.scalars(select(Session))).one()
        family = (await db.scalars(select(RefreshFamily))).one()
    ends_at = issuer.clock.now + issuer.settings.refresh_ttl
    assert session.created_at == issuer.clock.now
    assert (session.expires_at, family.expires_at) == (ends_at, ends_at)
    assert not await is_accepted(issuer, tokens)
    await refresh(issuer, tokens.refresh_token)


async def test_an_access_token_of_the_future_opens_nothing(
    issuer: IssuerHarness, alice: None
) -> None:
    """R53: the gate calls it not yet valid; so do the issuer's own endpoints."""
    issuer.clock.set_by(3_600)
    tokens = await log_in(issuer)
    assert await is_accepted(issuer, tokens)
    issuer.clock.set_by(-3_600)
    assert not await is_accepted(issuer, tokens)


async def test_codes_of_a_second_factor_do_not_wait_for_ten_years(
    issuer: IssuerHarness, alice: None
) -> None:
    device = await enrol(issuer, await log_in(issuer))
    issuer.clock.set_by(TEN_YEARS)
    assert (
        await end_login(issuer, await begin_login(issuer), device.next_code())
    ).status_code == 200
    issuer.clock.set_by(-TEN_YEARS)
    code = device.next_code()
    assert (await end_login(issuer, await begin_login(issuer), code)).status_code == 200
    again = await end_login(issuer, await begin_login(issuer), code)
    assert again.status_code == 401


async def test_a_login_challenge_and_a_reset_token_of_the_future_are_void(
    issuer: IssuerHarness, alice: None
) -> None:
    device = await enrol(issuer, await log_in(issuer))
    issuer.clock.set_by(TEN_YEARS)
    challenge = await begin_login(issuer)
    admin = await log_in_admin(issuer)
    user_id = (await issuer.client.get("/users", headers=admin.bearer)).json()["users"][
        0
    ]["id"]
    made = await issuer.client.post(
        f"/users/{user_id}/password-reset", headers=admin.bearer
    )
    issuer.clock.set_by(-TEN_YEARS)
    answer = await end_login(issuer, challenge, device.next_code())
    assert answer.status_code == 401
    assert made.status_code in {200, 201}, made.text
    reset = await issuer.client.post(
        "/auth/password-reset",
        json={
            "reset_token": made.json()["reset_token"],
            "new_password": "another horse battery",
        },
    )
    assert reset.status_code == 400


async def test_the_schedule_dates_keys_of_the_future_from_now(
    issuer: IssuerHarness,
) -> None:
    """R53: the next key would wait, and the active one sign, for ten years."""
    issuer.clock.set_by(TEN_YEARS)
    await issuer.issuer.keys.rotation.rotate(actor="system")
    issuer.clock.set_by(-TEN_YEARS)
    change = await issuer.issuer.keys.rotation.keep_schedule()
    assert len(change.redate) == 1
    issuer.clock.advance(issuer.settings.key_publish_ahead)
    assert (await issuer.issuer.keys.rotation.keep_schedule()).activate
    async with issuer.database.read() as db:
        rows = (await db.scalars(select(SigningKey))).all()
    assert {row.state for row in rows} == {KeyState.ACTIVE, KeyState.RETIRING}
    assert all(row.created_at <= issuer.clock.now for row in rows)


async def test_entries_pruned_while_the_clock_is_ahead_would_be_missing_after(
    issuer: IssuerHarness, alice: None
) -> None:
    """R50, R53: the revoked token has minutes to live once the clock is right."""
    tokens = await log_in(issuer)
    await issuer.client.post("/auth/logout", headers=tokens.bearer)
    issuer.clock.set_by(TEN_YEARS)
    assert await issuer.issuer.feed.feed.prune() == 0
    issuer.clock.set_by(-TEN_YEARS)
    async with issuer.database.read() as db:
        assert await db.scalar(select(FeedEntryRow.key)) == tokens.sid
    issuer.clock.advance(4_000)
    assert await issuer.issuer.feed.feed.prune() == 1


async def test_a_lapsed_verifier_is_not_named_for_ten_years(
    issuer: IssuerHarness,
) -> None:
    row: dict[str, Any] = {
        "id": "f",
        "epoch": "e",
        "position": 0,
        "staleness_seconds": 30,
        "renewal": 1,
        "allows_stale": True,
    }
    now = issuer.clock.now
    async with issuer.database.write() as db:
        db.add(FollowerRow(**row, lapsed_at=now + TEN_YEARS))
        await db.flush()
        await forget_lapsed(db, now - LAPSED_KEPT, now)
        assert await db.scalar(select(func.count()).select_from(FollowerRow)) == 0


async def test_a_personal_key_of_the_future_is_exchanged_for_nothing(
    issuer: IssuerHarness, alice: None
) -> None:
    """R53: it would live until the clock gets there, and its lifetime on top."""
    issuer.clock.set_by(TEN_YEARS)
    tokens = await log_in(issuer)
    key = (await make_key(issuer, tokens, scopes=[]))["key"]
    await get_token(issuer, key)
    issuer.clock.set_by(-TEN_YEARS)
    assert is_dead(await exchange(issuer, key))
    issuer.clock.set_by(TEN_YEARS)
    await get_token(issuer, key)


async def test_an_enrolment_of_the_future_cannot_be_confirmed(
    issuer: IssuerHarness, alice: None
) -> None:
    issuer.clock.set_by(TEN_YEARS)
    tokens = await log_in(issuer)
    answer = await issuer.client.post(
        "/auth/second-factor/enrolment",
        json={"password": PASSWORD},
        headers=tokens.bearer,
    )
    device = Device(answer.json()["secret"], issuer, [])
    issuer.clock.set_by(-TEN_YEARS)
    tokens = await log_in(issuer)
    answer = await issuer.client.post(
        "/auth/second-factor/confirmation",
        json={"code": device.code()},
        headers=tokens.bearer,
    )
    assert answer.status_code == 404
