"""One user cannot fill the audit log and the feed; a repeated revocation writes
nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest
from sqlalchemy import func, select

from issuer.acts import Caller
from issuer.composition import compose
from issuer.errors import TooManyRequestsError
from issuer.storage.rate_limits import RateLimitRow
from issuer.storage.tables.audit import AuditEvent
from issuer.storage.tables.feed import FeedEntryRow
from issuer.storage.tables.login import LoginThrottle
from issuer.storage.tables.sessions import Session
from tests.support.issuer_harness import (
    FakeClock,
    IssuerHarness,
    make_settings,
    resting_issuer,
)
from tests.support.issuer_story import (
    PASSWORD,
    log_in,
    post_login,
    post_refresh,
    refresh,
)
from tests.support.login_story import begin_login, end_login, enrol, log_in_admin
from tests.support.oauth_clients import create_client
from tests.support.personal_keys import exchange, post_key


@pytest.fixture
async def limited(database_url: str) -> AsyncIterator[IssuerHarness]:
    """An issuer with low limits."""
    settings = make_settings(
        database_url,
        session_limit=4,
        refresh_limit=3,
        personal_key_limit=2,
        personal_key_exchange_limit=3,
    )
    async with resting_issuer(settings) as harness:
        await harness.create_user("alice", PASSWORD)
        yield harness


def is_limited(answer: httpx.Response, retry_after: int) -> bool:
    assert answer.status_code == 429, answer.text
    assert answer.headers["Retry-After"] == str(retry_after)
    return True


async def count_written(issuer: IssuerHarness) -> tuple[int, int]:
    """Return how many audit events and feed entries there are."""
    async with issuer.database.read() as db:
        events = await db.scalar(select(func.count()).select_from(AuditEvent))
        entries = await db.scalar(select(func.count()).select_from(FeedEntryRow))
    return events or 0, entries or 0


async def test_refreshes_of_a_session_are_limited_and_repeats_are_free(
    limited: IssuerHarness,
) -> None:
    tokens = first = await log_in(limited)
    for _ in range(3):
        before, tokens = tokens, await refresh(limited, tokens.refresh_token)
        for _ in range(3):
            again = await refresh(limited, before.refresh_token)
            assert again.refresh_token == tokens.refresh_token
    assert is_limited(await post_refresh(limited, tokens.refresh_token), 20)
    assert is_limited(await post_refresh(limited, tokens.refresh_token), 20)
    again = await refresh(limited, before.refresh_token)
    assert again.refresh_token == tokens.refresh_token
    limited.clock.advance(20)
    tokens = await refresh(limited, tokens.refresh_token)
    assert is_limited(await post_refresh(limited, tokens.refresh_token), 20)
    # Another session has a limit of its own, and the first token is spent all the same.
    await refresh(limited, (await log_in(limited)).refresh_token)
    assert (await post_refresh(limited, first.refresh_token)).status_code == 401


async def test_a_limit_of_a_clock_that_was_ahead_ends_with_it(
    limited: IssuerHarness,
) -> None:
    """R53."""
    tokens = await log_in(limited)
    limited.clock.set_by(3_600)
    for _ in range(3):
        tokens = await refresh(limited, tokens.refresh_token)
    limited.clock.set_by(-3_600)
    await refresh(limited, tokens.refresh_token)


async def test_a_program_of_before_writes_no_count_and_is_counted_from_now(
    limited: IssuerHarness,
) -> None:
    tokens = await log_in(limited)
    async with limited.database.read() as db:
        assert await db.scalar(select(Session.refreshes_until)) is None
    await refresh(limited, tokens.refresh_token)
    async with limited.database.read() as db:
        kept = await db.scalar(select(Session.refreshes_until))
    assert kept == limited.clock.now * 1_000 + 20_000


async def test_sessions_of_a_user_are_limited_by_all_replicas_together(
    limited: IssuerHarness, database_url: str
) -> None:
    await limited.create_user("bob", PASSWORD)
    other = compose(limited.settings, clock=limited.clock)
    try:
        for _ in range(2):
            await log_in(limited)
            await other.login.login.log_in("alice", PASSWORD, Caller())
    finally:
        await other.close()
    before = await count_written(limited)
    assert is_limited(await post_login(limited), 900)
    assert await count_written(limited) == before
    await log_in(limited, "bob")
    limited.clock.advance(900)
    await log_in(limited)
    assert is_limited(await post_login(limited), 900)


async def test_replicas_with_different_clocks_do_not_undo_each_others_limits(
    limited: IssuerHarness,
) -> None:
    """R53: counts of a clock that is ahead meant nothing to the other replica."""
    late = FakeClock(limited.clock.now_ms - 5_000)
    other = compose(limited.settings, clock=late)
    try:
        tokens = await log_in(limited)
        for _ in range(3):
            await log_in(limited)
            tokens = await refresh(limited, tokens.refresh_token)
        with pytest.raises(TooManyRequestsError):
            await other.sessions.sessions.refresh(tokens.refresh_token, Caller())
        with pytest.raises(TooManyRequestsError):
            await other.login.login.log_in("alice", PASSWORD, Caller())
        late.advance(25)
        await other.sessions.sessions.refresh(tokens.refresh_token, Caller())
    finally:
        await other.close()


async def test_a_right_password_past_the_limit_is_no_failed_login(
    limited: IssuerHarness,
) -> None:
    """Each was counted as a wrong one: the owner waited for right passwords."""
    for _ in range(4):
        await log_in(limited)
    for _ in range(2 * limited.settings.login_free_failures):
        assert is_limited(await post_login(limited), 900)
    async with limited.database.read() as db:
        assert await db.scalar(select(func.sum(LoginThrottle.failures))) is None


async def test_a_right_code_past_the_limit_is_no_wrong_one_and_is_not_spent(
    limited: IssuerHarness,
) -> None:
    codes = iter((await enrol(limited, await log_in(limited))).recovery_codes)
    for _ in range(3):
        answer = await end_login(limited, await begin_login(limited), next(codes))
        assert answer.status_code == 200, answer.text
    code = next(codes)
    for _ in range(2 * limited.settings.login_free_failures):
        answer = await end_login(limited, await begin_login(limited), code)
        assert is_limited(answer, 900)
    limited.clock.advance(900)
    answer = await end_login(limited, await begin_login(limited), code)
    assert answer.status_code == 200, answer.text


async def test_new_personal_keys_are_limited_and_revoking_is_not(
    limited: IssuerHarness,
) -> None:
    tokens = await log_in(limited)
    made = [await post_key(limited, tokens, scopes=[]) for _ in range(2)]
    for answer in made:
        assert answer.status_code == 201, answer.text
    before = await count_written(limited)
    assert is_limited(await post_key(limited, tokens, scopes=[]), 1_800)
    assert await count_written(limited) == before
    for answer in made:
        gone = await limited.client.delete(
            f"/users/me/keys/{answer.json()['id']}", headers=tokens.bearer
        )
        assert gone.status_code == 200
    assert is_limited(await post_key(limited, tokens, scopes=[]), 1_800)


async def test_exchanges_of_a_users_keys_are_limited_together(
    limited: IssuerHarness,
) -> None:
    tokens = await log_in(limited)
    keys = [
        (await post_key(limited, tokens, scopes=[])).json()["key"] for _ in range(2)
    ]
    for number in range(3):
        answer = await exchange(limited, keys[number % 2])
        assert answer.status_code == 200, answer.text
    for key in keys:
        answer = await exchange(limited, key)
        assert is_limited(answer, 20)
        assert answer.json()["error"] == "temporarily_unavailable"
    limited.clock.advance(20)
    assert (await exchange(limited, keys[1])).status_code == 200


async def test_counts_are_kept_for_as_long_as_they_matter(
    limited: IssuerHarness,
) -> None:
    await log_in(limited)
    limited.clock.set_by(86_400)
    await limited.create_user("bob", PASSWORD)
    await log_in(limited, "bob")
    await limited.issuer.base.limits.prune()
    limited.clock.set_by(-86_400)
    await limited.issuer.base.limits.prune()
    async with limited.database.read() as db:
        assert (await db.scalars(select(RateLimitRow))).all() == []


async def written_by(
    issuer: IssuerHarness, act: Callable[[], Awaitable[object]]
) -> tuple[int, int]:
    """Return how many audit events and feed entries an act writes."""
    before = await count_written(issuer)
    await act()
    after = await count_written(issuer)
    return after[0] - before[0], after[1] - before[1]


@pytest.mark.parametrize("who", ["session", "user", "key", "token", "disabled user"])
async def test_a_repeated_revocation_writes_nothing(
    issuer: IssuerHarness, who: str
) -> None:
    """The first writes one event and one entry, any later one neither."""
    admin = await log_in_admin(issuer)
    await issuer.create_user("alice", PASSWORD)
    tokens = await log_in(issuer)
    parts, caller = issuer.issuer, Caller()
    user = f"/users/{tokens.claims['sub']}"
    jwks = (await issuer.client.get("/.well-known/jwks.json")).json()
    kid = jwks["keys"][0]["kid"]

    async def act() -> None:
        if who == "session":
            await parts.sessions.logout.end_any(tokens.sid, caller, actor="admin")
        elif who == "user":
            await parts.sessions.logout.log_out_everywhere(
                tokens.claims["sub"], caller, actor="admin"
            )
        elif who == "key":
            await parts.revoking.revocations.revoke_key(kid, caller, actor="admin")
        elif who == "token":
            jti = tokens.claims["jti"]
            await parts.revoking.revocations.revoke_token(jti, caller, actor="admin")
        else:
            answer = await issuer.client.post(f"{user}/disable", headers=admin.bearer)
            assert answer.status_code == 200, answer.text

    events, entries = await written_by(issuer, act)
    assert entries == 1
    assert events >= 1
    assert await written_by(issuer, act) == (0, 0)
    assert await written_by(issuer, act) == (0, 0)


async def test_a_logout_everywhere_after_a_new_login_is_a_first_one(
    issuer: IssuerHarness,
) -> None:
    await issuer.create_user("alice", PASSWORD)
    for _ in range(2):
        tokens = await log_in(issuer)

        async def act() -> None:
            await issuer.issuer.sessions.logout.log_out_everywhere(
                tokens.claims["sub"], Caller(), actor="admin"  # noqa: B023
            )

        assert await written_by(issuer, act) == (1, 1)


async def test_a_repeated_change_of_a_client_or_role_writes_nothing(
    issuer: IssuerHarness,
) -> None:
    """A removal is not counted twice."""
    admin = await log_in_admin(issuer)
    client = await create_client(issuer, scopes=["orders:read", "orders:write"])
    url = f"/clients/{client.id}"
    role = {"name": "clerk", "scopes": ["orders:read"], "description": ""}
    await issuer.client.post("/roles", json=role, headers=admin.bearer)

    async def narrow() -> None:
        etag = (await issuer.client.get(url, headers=admin.bearer)).headers["ETag"]
        answer = await issuer.client.patch(
            url,
            json={"scopes": ["orders:read"]},
            headers=admin.bearer | {"If-Match": etag},
        )
        assert answer.status_code == 200, answer.text

    async def disable() -> None:
        answer = await issuer.client.post(f"{url}/disable", headers=admin.bearer)
        assert answer.status_code == 200, answer.text

    async def revoke() -> None:
        answer = await issuer.client.delete(f"{url}/tokens", headers=admin.bearer)
        assert answer.status_code == 200, answer.text

    async def enable() -> None:
        answer = await issuer.client.post(f"{url}/enable", headers=admin.bearer)
        assert answer.status_code == 200, answer.text

    async def change_role() -> None:
        there = await issuer.client.get("/roles/clerk", headers=admin.bearer)
        answer = await issuer.client.put(
            "/roles/clerk",
            json={"scopes": [], "description": "none"},
            headers=admin.bearer | {"If-Match": there.headers["ETag"]},
        )
        assert answer.status_code == 200, answer.text

    assert await written_by(issuer, narrow) == (1, 1)
    assert await written_by(issuer, narrow) == (0, 0)
    # Of an enabled client's tokens no row is kept: each call may be a first one.
    assert await written_by(issuer, revoke) == (1, 1)
    assert await written_by(issuer, revoke) == (1, 1)
    assert await written_by(issuer, disable) == (1, 1)
    assert await written_by(issuer, disable) == (0, 0)
    assert await written_by(issuer, revoke) == (0, 0)
    assert await written_by(issuer, enable) == (1, 0)
    assert await written_by(issuer, enable) == (0, 0)
    assert await written_by(issuer, change_role) == (1, 0)
    assert await written_by(issuer, change_role) == (0, 0)
