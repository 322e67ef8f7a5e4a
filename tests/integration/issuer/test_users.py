"""Accounts: made and listed by administrators, shown to their owners."""

from __future__ import annotations

import asyncio

import pytest

from issuer.acts import Caller
from tests.support.issuer_harness import IssuerHarness
from tests.support.issuer_story import (
    PASSWORD,
    Tokens,
    is_accepted,
    is_invalid_grant,
    log_in,
    post_login,
    post_refresh,
    read_audit,
    read_feed,
    read_tokens,
    refresh,
)

NEW_PASSWORD = "a staple of another kind"


@pytest.fixture
async def admin(issuer: IssuerHarness) -> Tokens:
    """An administrator, logged in."""
    await issuer.issuer.accounts.users.create_admin("root", PASSWORD, caller=Caller())
    return await log_in(issuer, "root")


async def test_an_administrator_holds_the_admin_scope(admin: Tokens) -> None:
    assert admin.claims["scope"] == "gatehouse:admin"
    assert admin.claims["roles"] == ["admin"]


async def test_the_admin_role_is_made_once(issuer: IssuerHarness) -> None:
    for name in ("root", "toor"):
        await issuer.issuer.accounts.users.create_admin(name, PASSWORD, caller=Caller())
        assert (await log_in(issuer, name)).claims["roles"] == ["admin"]


async def test_an_administrator_makes_an_account_that_can_log_in(
    issuer: IssuerHarness, admin: Tokens
) -> None:
    body = {"username": "Alice", "password": PASSWORD, "roles": ["admin"]}
    answer = await issuer.client.post("/users", json=body, headers=admin.bearer)
    assert answer.status_code == 201
    user = answer.json()
    assert answer.headers["Location"] == f"{issuer.settings.url}/users/{user['id']}"
    assert (user["username"], user["roles"]) == ("alice", ["admin"])
    shown = await issuer.client.get(answer.headers["Location"], headers=admin.bearer)
    assert shown.json() == user
    assert PASSWORD not in answer.text
    assert "hash" not in answer.text
    assert (await log_in(issuer, "alice")).claims["sub"] == user["id"]
    event = (await read_audit(issuer, "user.created"))[-1]
    assert event["actor"] == admin.claims["sub"]
    assert event["subject"] == user["id"]


async def test_one_name_is_one_account_in_any_spelling(
    issuer: IssuerHarness, admin: Tokens
) -> None:
    """R36: four at once, one wins."""
    answers = await asyncio.gather(
        *(
            issuer.client.post(
                "/users",
                json={"username": name, "password": PASSWORD},
                headers=admin.bearer,
            )
            for name in ("alice", "ALICE", "\uff21lice", "alicE")
        )
    )
    codes = sorted(answer.status_code for answer in answers)
    assert codes == [201, 409, 409, 409]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"username": "a\u202eb"}, "username"),
        ({"username": 7}, "username"),
        ({"password": "short"}, "password"),
        ({"password": "123456789987654321"}, "password"),
        ({"password": "this is alice speaking"}, "password"),
        ({"roles": ["nobody"]}, "roles"),
        ({"roles": "admin"}, "roles"),
        ({"is_admin": True}, "body"),
    ],
)
async def test_an_account_that_breaks_a_rule_is_refused_with_the_rule(
    issuer: IssuerHarness, admin: Tokens, change: dict[str, object], field: str
) -> None:
    """R30, R36."""
    body = {"username": "alice", "password": PASSWORD} | change
    answer = await issuer.client.post("/users", json=body, headers=admin.bearer)
    assert answer.status_code == 400
    (problem,) = answer.json()["problems"]
    assert problem["field"] == field
    assert (await post_login(issuer)).status_code == 401


async def test_users_without_the_scope_may_only_see_themselves(
    issuer: IssuerHarness, admin: Tokens
) -> None:
    user = await issuer.create_user("alice", PASSWORD)
    alice = await log_in(issuer)
    get = issuer.client.get
    for path in ("/users/me", f"/users/{user.id}"):
        answer = await get(path, headers=alice.bearer)
        assert (answer.status_code, answer.json()["username"]) == (200, "alice")
    body = {"username": "eve", "password": PASSWORD, "roles": ["admin"]}
    for answer in (
        await get("/users", headers=alice.bearer),
        await get(f"/users/{admin.claims['sub']}", headers=alice.bearer),
        await issuer.client.post("/users", json=body, headers=alice.bearer),
    ):
        assert answer.status_code == 403
        assert answer.json()["code"] == "insufficient_scope"
    for path in ("/users", "/users/me", f"/users/{user.id}"):
        assert (await get(path)).status_code == 401


async def test_accounts_are_listed_page_by_page(
    issuer: IssuerHarness, admin: Tokens
) -> None:
    names = ["alice", "bob", "carol", "root", "\u5c71\u7530"]
    for name in set(names) - {"root"}:
        await issuer.create_user(name, PASSWORD)
    seen: list[str] = []
    query = {"limit": "2"}
    while True:
        answer = await issuer.client.get("/users", params=query, headers=admin.bearer)
        page = answer.json()
        seen += [user["username"] for user in page["users"]]
        if page["next_cursor"] is None:
            break
        assert len(page["users"]) == 2
        query["cursor"] = page["next_cursor"]
    assert seen == names


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=x", "cursor=!", "cursor=QQ", "page=2"]
)
async def test_a_malformed_page_is_refused(
    issuer: IssuerHarness, admin: Tokens, query: str
) -> None:
    """R5: never taken for the first page."""
    answer = await issuer.client.get(f"/users?{query}", headers=admin.bearer)
    assert answer.status_code == 400


async def test_an_invalid_id_is_refused_without_a_database_query(
    issuer: IssuerHarness, admin: Tokens
) -> None:
    """R35."""
    for path, status in (
        ("/users/%00", 400),
        ("/users/alice", 400),
        ("/users/00000000-0000-4000-8000-000000000000", 404),
    ):
        answer = await issuer.client.get(path, headers=admin.bearer)
        assert answer.status_code == status


# --- changing one's password -------------------------------------------------------


async def change_password(
    issuer: IssuerHarness,
    tokens: Tokens,
    current: str = PASSWORD,
    new: str = NEW_PASSWORD,
):
    body = {"current_password": current, "new_password": new}
    return await issuer.client.post("/auth/password", json=body, headers=tokens.bearer)


async def test_a_new_password_ends_every_other_session_and_renews_this_one(
    issuer: IssuerHarness,
) -> None:
    user = await issuer.create_user("alice", PASSWORD)
    other, ours = await log_in(issuer), await log_in(issuer)
    renewed = read_tokens(await change_password(issuer, ours))
    assert renewed.sid == ours.sid
    assert renewed.claims["gen"] == 1
    assert await is_accepted(issuer, renewed)
    for tokens in (other, ours):
        assert not await is_accepted(issuer, tokens)
        assert is_invalid_grant(await post_refresh(issuer, tokens.refresh_token))
    assert await is_accepted(issuer, await refresh(issuer, renewed.refresh_token))
    assert await read_feed(issuer) == [("user", user.id, 1)]
    assert (await post_login(issuer)).status_code == 401
    await log_in(issuer, password=NEW_PASSWORD)
    assert len(await read_audit(issuer, "password.changed")) == 1


@pytest.mark.parametrize(
    ("current", "new", "status", "code"),
    [
        ("wrong horse battery", NEW_PASSWORD, 401, "invalid_credentials"),
        ("", NEW_PASSWORD, 401, "invalid_credentials"),
        (PASSWORD, "short", 400, "invalid_request"),
        (PASSWORD, "my name is alice", 400, "invalid_request"),
    ],
)
async def test_a_refused_change_changes_nothing(
    issuer: IssuerHarness, current: str, new: str, status: int, code: str
) -> None:
    """R30."""
    await issuer.create_user("alice", PASSWORD)
    tokens = await log_in(issuer)
    answer = await change_password(issuer, tokens, current, new)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert await is_accepted(issuer, tokens)
    assert await read_feed(issuer) == []
    await log_in(issuer)


async def test_guesses_at_the_current_password_count_as_a_logins_do(
    issuer: IssuerHarness,
) -> None:
    """R34: a stolen access token does not make the password guessable."""
    await issuer.create_user("alice", PASSWORD)
    tokens = await log_in(issuer)
    codes = [
        (await change_password(issuer, tokens, "wrong horse battery")).status_code
        for _ in range(6)
    ]
    assert codes == [401] * 5 + [429]
    assert (await change_password(issuer, tokens)).status_code == 429
    assert len(await read_audit(issuer, "password.proof_failed")) == 5


async def test_one_of_two_concurrent_changes_wins(issuer: IssuerHarness) -> None:
    await issuer.create_user("alice", PASSWORD)
    tokens = await log_in(issuer)
    answers = await asyncio.gather(
        change_password(issuer, tokens, new=NEW_PASSWORD + " one"),
        change_password(issuer, tokens, new=NEW_PASSWORD + " two"),
    )
    assert sorted(answer.status_code for answer in answers) in ([200, 401], [200, 409])
    winner = 0 if answers[0].status_code == 200 else 1
    await log_in(issuer, password=NEW_PASSWORD + (" one", " two")[winner])
