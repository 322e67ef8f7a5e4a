"""An administrator's reset: a token that sets a new password, once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import httpx
import pytest
from sqlalchemy import update

from issuer.accounts.user_changes import UserChange
from issuer.acts import Caller
from issuer.clients.clients import ClientChange
from issuer.storage.tables.login import PasswordResetRow
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
from tests.support.login_story import enrol, log_in_admin
from tests.support.oauth_clients import create_client

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


async def test_only_one_of_many_concurrent_uses_succeeds(
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
    await issuer.issuer.login.upkeep.prune()
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


# --- R52 ---------------------------------------------------------------------------

End = Callable[[IssuerHarness, str, Tokens], Awaitable[None]]
EVERYBODY = Caller()


def expect_any(_user: object) -> None:
    """Any state of the account will do."""


async def set_roles(issuer: IssuerHarness, user_id: str, roles: list[str]) -> None:
    await issuer.issuer.accounts.user_changes.change(
        user_id, UserChange(roles=roles), expect_any, actor="system", caller=EVERYBODY
    )


async def rename(issuer: IssuerHarness, user_id: str) -> None:
    await issuer.issuer.accounts.user_changes.change(
        user_id,
        UserChange(username="renamed"),
        expect_any,
        actor="system",
        caller=EVERYBODY,
    )


async def disable(issuer: IssuerHarness, user_id: str) -> None:
    changes = issuer.issuer.accounts.user_changes
    await changes.disable(user_id, expect_any, actor="system", caller=EVERYBODY)


async def enable(issuer: IssuerHarness, user_id: str) -> None:
    changes = issuer.issuer.accounts.user_changes
    await changes.enable(user_id, expect_any, actor="system", caller=EVERYBODY)


async def delete_user(issuer: IssuerHarness, user_id: str) -> None:
    changes = issuer.issuer.accounts.user_changes
    await changes.delete(user_id, expect_any, actor="system", caller=EVERYBODY)


async def narrow_role(issuer: IssuerHarness) -> None:
    # The bystander stays an administrator by another role.
    roles = issuer.issuer.roles.roles
    await roles.replace(
        "admin", ["orders:read"], "", expect_any, actor="system", caller=EVERYBODY
    )


async def log_out_everywhere(issuer: IssuerHarness, user_id: str) -> None:
    await issuer.issuer.sessions.logout.log_out_everywhere(
        user_id, EVERYBODY, actor="system"
    )


async def change_password(issuer: IssuerHarness, tokens: Tokens) -> None:
    answer = await issuer.client.post(
        "/auth/password",
        json={"current_password": PASSWORD, "new_password": "a third horse battery"},
        headers=tokens.bearer,
    )
    assert answer.status_code == 200, answer.text


@pytest.fixture
async def bystander(issuer: IssuerHarness) -> None:
    """Another administrator, so that the first is never the last."""
    roles = issuer.issuer.roles.roles
    scopes = ["gatehouse:admin"]
    await roles.create("keeper", scopes, "", actor="system", caller=EVERYBODY)
    await issuer.create_user("bystander", PASSWORD, ["keeper"])


OF_ITS_MAKER: dict[str, End] = {
    "demoted": lambda issuer, maker, _: set_roles(issuer, maker, []),
    "disabled": lambda issuer, maker, _: disable(issuer, maker),
    "deleted": lambda issuer, maker, _: delete_user(issuer, maker),
    "role narrowed": lambda issuer, _maker, _: narrow_role(issuer),
    "logged out everywhere": lambda issuer, maker, _: log_out_everywhere(issuer, maker),
    "password changed": lambda issuer, _maker, tokens: change_password(issuer, tokens),
}


@pytest.mark.usefixtures("bystander")
@pytest.mark.parametrize("end", OF_ITS_MAKER.values(), ids=OF_ITS_MAKER)
async def test_r52_a_token_ends_with_the_rights_of_its_maker(
    issuer: IssuerHarness, alice: str, admin: Tokens, end: End
) -> None:
    """R52: it worked for an hour after the administrator was demoted or disabled."""
    token = await allowed(issuer, admin, alice)
    await end(issuer, admin.claims["sub"], admin)
    assert (await reset(issuer, token)).status_code == 400
    await log_in(issuer)


@pytest.mark.usefixtures("bystander")
async def test_r52_a_token_does_not_come_back_with_its_makers_rights(
    issuer: IssuerHarness, alice: str, admin: Tokens
) -> None:
    token = await allowed(issuer, admin, alice)
    await set_roles(issuer, admin.claims["sub"], [])
    await set_roles(issuer, admin.claims["sub"], ["admin"])
    assert (await reset(issuer, token)).status_code == 400


async def disabled_and_enabled(issuer: IssuerHarness, user_id: str) -> None:
    await disable(issuer, user_id)
    await enable(issuer, user_id)


OF_ITS_USER: dict[str, Callable[[IssuerHarness, str, Tokens], Awaitable[None]]] = {
    "password changed": lambda issuer, _user, tokens: change_password(issuer, tokens),
    "logged out everywhere": lambda issuer, user, _: log_out_everywhere(issuer, user),
    "disabled": lambda issuer, user, _: disabled_and_enabled(issuer, user),
    "renamed": lambda issuer, user, _: rename(issuer, user),
}


@pytest.mark.parametrize("end", OF_ITS_USER.values(), ids=OF_ITS_USER)
async def test_r52_a_token_ends_when_the_account_has_changed(
    issuer: IssuerHarness, alice: str, admin: Tokens, end: End
) -> None:
    """R52: it worked after its user had changed the password."""
    token = await allowed(issuer, admin, alice)
    await end(issuer, alice, await log_in(issuer))
    assert (await reset(issuer, token)).status_code == 400


async def change_client(
    issuer: IssuerHarness, client_id: str, **change: object
) -> None:
    await issuer.issuer.clients.clients.change(
        client_id,
        ClientChange(**change),
        expect_any,
        actor="system",
        caller=EVERYBODY,
    )


async def disable_client(issuer: IssuerHarness, client_id: str) -> None:
    await issuer.issuer.clients.clients.disable(
        client_id, expect_any, actor="system", caller=EVERYBODY
    )


async def delete_client(issuer: IssuerHarness, client_id: str) -> None:
    await issuer.issuer.clients.clients.delete(
        client_id, expect_any, actor="system", caller=EVERYBODY
    )


@pytest.mark.parametrize(
    "end",
    [
        disable_client,
        delete_client,
        partial(change_client, scopes=[]),
    ],
    ids=["disabled", "deleted", "narrowed"],
)
async def test_r52_a_token_that_a_client_made_ends_with_its_rights(
    issuer: IssuerHarness,
    alice: str,
    end: Callable[[IssuerHarness, str], Awaitable[None]],
) -> None:
    client = await create_client(issuer, ["gatehouse:admin"])
    access_token = await client.get_token()
    made = [await allowed(issuer, Tokens(access_token, ""), alice) for _ in range(2)]
    await change_client(issuer, client.id, name="another name")
    assert (await reset(issuer, made[1])).status_code == 200
    token = await allowed(issuer, Tokens(access_token, ""), alice)
    await end(issuer, client.id)
    assert (await reset(issuer, token)).status_code == 400


async def test_a_token_outlives_changes_that_remove_no_right(
    issuer: IssuerHarness, alice: str, admin: Tokens
) -> None:
    """Its maker logs out; the user's second factor is reset, and a role gained."""
    await enrol(issuer, await log_in(issuer))
    token = await allowed(issuer, admin, alice)
    path = f"/users/{alice}/second-factor"
    assert (await issuer.client.delete(path, headers=admin.bearer)).status_code == 204
    await set_roles(issuer, alice, ["admin"])
    done = await issuer.client.post("/auth/logout", headers=admin.bearer)
    assert done.status_code == 200
    assert (await reset(issuer, token)).status_code == 200


async def test_a_token_of_an_older_program_counts_no_more(
    issuer: IssuerHarness, alice: str, admin: Tokens
) -> None:
    """R52: its creator and time are unknown."""
    token = await allowed(issuer, admin, alice)
    async with issuer.database.write() as db:
        unknown = {"user_generation": None, "made_by": None, "made_by_generation": None}
        await db.execute(update(PasswordResetRow).values(unknown))
    assert (await reset(issuer, token)).status_code == 400


@pytest.mark.usefixtures("bystander")
async def test_r52_a_demotion_that_a_reset_overlaps_comes_after_it_or_voids_it(
    issuer: IssuerHarness, alice: str, admin: Tokens
) -> None:
    """R52: any answer that was given holds."""
    token = await allowed(issuer, admin, alice)
    demotion, answer = await asyncio.gather(
        set_roles(issuer, admin.claims["sub"], []), reset(issuer, token)
    )
    assert demotion is None
    assert answer.status_code in {200, 400}
    is_set = answer.status_code == 200
    password = NEW_PASSWORD if is_set else PASSWORD
    await log_in(issuer, password=password)
