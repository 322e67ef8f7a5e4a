"""An administrator's reset: a token that sets a new password, once."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tests.support.issuer_harness import IssuerHarness
from tests.support.issuer_story import (
    PASSWORD,
    Tokens,
    is_accepted,
    log_in,
    post_login,
    post_refresh,
    read_audit,
    read_feed,
)
from tests.support.login_story import log_in_admin

NEW_PASSWORD = "another horse battery"


@pytest.fixture
async def alice(issuer: IssuerHarness) -> str:
    return (await issuer.create_user("alice", PASSWORD)).id


@pytest.fixture
async def admin(issuer: IssuerHarness, alice: str) -> Tokens:
    return await log_in_admin(issuer)


async def allow(issuer: IssuerHarness, admin: Tokens, user_id: str) -> httpx.Response:
    return await issuer.client.post(
        f"/users/{user_id}/password-reset", headers=admin.bearer
    )


async def allowed(issuer: IssuerHarness, admin: Tokens, user_id: str) -> str:
    answer = await allow(issuer, admin, user_id)
    assert answer.status_code == 201, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json()["expires_in"] == issuer.settings.password_reset_ttl
    token = answer.json()["reset_token"]
    assert token.startswith("ghp_")
    return str(token)


async def reset(
    issuer: IssuerHarness, token: str, password: str = NEW_PASSWORD, **headers: str
) -> httpx.Response:
    return await issuer.client.post(
        "/auth/password-reset",
        json={"reset_token": token, "new_password": password},
        headers=headers,
    )


async def test_the_token_sets_a_password_and_ends_every_session(
    issuer: IssuerHarness, alice: str, admin: Tokens
) -> None:
    before = await log_in(issuer)
    token = await allowed(issuer, admin, alice)
    assert await is_accepted(issuer, before)
    answer = await reset(issuer, token)
    assert answer.status_code == 200, answer.text
    assert answer.json()["revoked"] is True
    assert (await read_feed(issuer))[-1] == ("user", alice, 1)
    assert not await is_accepted(issuer, before)
    assert (await post_refresh(issuer, before.refresh_token)).status_code == 401
    assert (await post_login(issuer)).status_code == 401
    assert await is_accepted(issuer, await log_in(issuer, password=NEW_PASSWORD))
    (made,) = await read_audit(issuer, "password.reset_allowed")
    assert (made["subject"], made["actor"]) == (alice, admin.claims["sub"])
    (done,) = await read_audit(issuer, "password.reset")
    assert done["subject"] == alice


async def test_a_caller_may_wait_until_no_verifier_accepts_the_old_tokens(
    issuer: IssuerHarness, alice: str, admin: Tokens
) -> None:
    token = await allowed(issuer, admin, alice)
    answer = await reset(issuer, token, Prefer="wait=1")
    assert answer.headers["Preference-Applied"] == "wait=1"
    assert "confirmed" in answer.json()


async def test_a_token_is_good_once_and_the_last_one_alone(
    issuer: IssuerHarness, alice: str, admin: Tokens
) -> None:
    first = await allowed(issuer, admin, alice)
    second = await allowed(issuer, admin, alice)
    assert (await reset(issuer, first)).status_code == 400
    assert (await reset(issuer, second)).status_code == 200
    assert (await reset(issuer, second)).status_code == 400


async def test_of_many_uses_at_once_one_succeeds(
    issuer: IssuerHarness, alice: str, admin: Tokens
) -> None:
    token = await allowed(issuer, admin, alice)
    answers = await asyncio.gather(
        *(reset(issuer, token, f"{NEW_PASSWORD} {n}") for n in range(5))
    )
    assert sorted(answer.status_code for answer in answers) == [200] + [400] * 4
    winner = next(n for n, answer in enumerate(answers) if answer.status_code == 200)
    assert await log_in(issuer, password=f"{NEW_PASSWORD} {winner}")


async def test_a_token_expires(
    issuer: IssuerHarness, alice: str, admin: Tokens
) -> None:
    token = await allowed(issuer, admin, alice)
    issuer.clock.advance(issuer.settings.password_reset_ttl)
    assert (await reset(issuer, token)).status_code == 400
    await issuer.issuer.login_parts.upkeep.prune()
    issuer.clock.advance(-10)
    assert (await reset(issuer, token)).status_code == 400


async def test_unknown_used_and_malformed_tokens_are_answered_alike(
    issuer: IssuerHarness, alice: str, admin: Tokens
) -> None:
    """R35: and the token is not repeated."""
    used = await allowed(issuer, admin, alice)
    await reset(issuer, used)
    bodies = set()
    for token in (used, "ghp_" + "A" * 48, "ghp_", "", "\u00e9", "ghm_x"):
        answer = await issuer.client.post(
            "/auth/password-reset",
            json={"reset_token": token, "new_password": NEW_PASSWORD},
            headers={"X-Correlation-Id": "the-same-for-all"},
        )
        bodies.add((answer.status_code, answer.content))
    ((status, body),) = bodies
    assert status == 400
    assert b"reset_token" in body
    assert used.encode() not in body


@pytest.mark.parametrize("password", ["short", "alice is my name", "passwordpassword"])
async def test_a_password_that_breaks_a_rule_leaves_the_token_good(
    issuer: IssuerHarness, alice: str, admin: Tokens, password: str
) -> None:
    """R30."""
    token = await allowed(issuer, admin, alice)
    answer = await reset(issuer, token, password)
    assert answer.status_code == 400
    assert answer.json()["problems"][0]["field"] == "new_password"
    assert (await reset(issuer, token)).status_code == 200


async def test_only_administrators_hand_tokens_out(
    issuer: IssuerHarness, alice: str, admin: Tokens
) -> None:
    own = await log_in(issuer)
    assert (await allow(issuer, own, alice)).status_code == 403
    nobody = "00000000-0000-4000-8000-000000000000"
    assert (await allow(issuer, admin, nobody)).status_code == 404
    without = await issuer.client.post(f"/users/{alice}/password-reset")
    assert without.status_code == 401
