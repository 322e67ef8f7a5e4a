"""A login may ask for less than its user has, and its session stays that narrow."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from sqlalchemy import func, select

from issuer.acts import Caller
from issuer.storage.tables.login import LoginThrottle
from issuer.storage.tables.sessions import Session
from tests.support.issuer_harness import IssuerHarness, make_settings, running_issuer
from tests.support.issuer_story import (
    PASSWORD,
    Tokens,
    log_in,
    read_tokens,
    refresh,
)
from tests.support.login_story import enrol

NEW_PASSWORD = "another horse battery"
ALL = "gatehouse:admin orders:read orders:write"


@pytest.fixture
async def issuer(database_url: str) -> AsyncIterator[IssuerHarness]:
    """An issuer with Alice, an administrator with scopes for orders."""
    settings = make_settings(database_url, password_grant=True)
    async with running_issuer(settings) as harness:
        roles = harness.issuer.roles.roles
        await roles.create(
            "boss",
            ["gatehouse:admin", "orders:read", "orders:write"],
            "",
            actor="system",
            caller=Caller(),
        )
        await harness.create_user("alice", PASSWORD, ["boss"])
        yield harness


async def log_in_for(
    issuer: IssuerHarness, scope: str, password: str = PASSWORD
) -> httpx.Response:
    return await issuer.client.post(
        "/auth/login",
        json={"username": "alice", "password": password, "scope": scope},
    )


async def administers(issuer: IssuerHarness, tokens: Tokens) -> bool:
    answer = await issuer.client.get("/users", headers=tokens.bearer)
    assert answer.status_code in {200, 403}, answer.text
    return answer.status_code == 200


async def test_a_login_without_a_scope_gets_all_of_it(issuer: IssuerHarness) -> None:
    tokens = await log_in(issuer)
    assert tokens.claims["scope"] == ALL
    assert await administers(issuer, tokens)


@pytest.mark.parametrize("scope", ["orders:read", "orders:write orders:read", ""])
async def test_a_narrow_session_stays_narrow_through_every_refresh(
    issuer: IssuerHarness, scope: str
) -> None:
    answer = await log_in_for(issuer, scope)
    tokens, granted = read_tokens(answer), " ".join(sorted(scope.split()))
    assert answer.json()["scope"] == granted
    for _ in range(3):
        assert tokens.claims["scope"] == granted
        assert not await administers(issuer, tokens)
        tokens = await refresh(issuer, tokens.refresh_token)


async def test_a_narrow_session_stays_narrow_when_its_password_is_changed(
    issuer: IssuerHarness,
) -> None:
    """R51: that starts a new family of refresh tokens, which had all scopes."""
    tokens = read_tokens(await log_in_for(issuer, "orders:read"))
    answer = await issuer.client.post(
        "/auth/password",
        json={"current_password": PASSWORD, "new_password": NEW_PASSWORD},
        headers=tokens.bearer,
    )
    changed = read_tokens(answer)
    again = await refresh(issuer, changed.refresh_token)
    for each in (changed, again):
        assert each.claims["scope"] == "orders:read"
        assert not await administers(issuer, each)


@pytest.mark.parametrize("scope", ["orders:delete", f"{ALL} more", "a  b", '"', " "])
async def test_more_than_the_user_has_is_refused_and_is_no_failed_guess(
    issuer: IssuerHarness, scope: str
) -> None:
    for _ in range(issuer.settings.login_free_failures + 1):
        answer = await log_in_for(issuer, scope)
        assert answer.status_code == 400, answer.text
        assert answer.json()["code"] == "invalid_scope"
    async with issuer.database.read() as db:
        assert await db.scalar(select(func.count()).select_from(Session)) == 0
        assert await db.scalar(select(func.count()).select_from(LoginThrottle)) == 0


async def test_a_wrong_password_is_refused_alike_for_any_requested_scope(
    issuer: IssuerHarness,
) -> None:
    """R32: the refusal does not reveal the user's scopes."""
    for scope in ("orders:read", "orders:delete"):
        answer = await log_in_for(issuer, scope, "wrong horse battery")
        assert answer.json()["code"] == "invalid_credentials"


@pytest.mark.parametrize(
    ("first", "second", "granted"),
    [
        (None, None, ALL),
        ("orders:read", None, "orders:read"),
        (None, "orders:read", "orders:read"),
        ("orders:read orders:write", "orders:write", "orders:write"),
        ("orders:read", "", ""),
        ("orders:read", "orders:write", None),
        ("", "orders:read", None),
    ],
)
async def test_either_step_narrows_and_neither_widens(
    issuer: IssuerHarness, first: str | None, second: str | None, granted: str | None
) -> None:
    device = await enrol(issuer, await log_in(issuer))
    body = {"username": "alice", "password": PASSWORD}
    begun = await issuer.client.post(
        "/auth/login", json=body | ({} if first is None else {"scope": first})
    )
    shown = {"mfa_token": begun.json()["mfa_token"], "code": device.next_code()}
    answer = await issuer.client.post(
        "/auth/login/second-factor",
        json=shown | ({} if second is None else {"scope": second}),
    )
    if granted is not None:
        tokens = await refresh(issuer, read_tokens(answer).refresh_token)
        assert tokens.claims["scope"] == granted
        return
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_scope")
    # The code is not spent, and the challenge stands.
    again = await issuer.client.post("/auth/login/second-factor", json=shown)
    assert read_tokens(again).claims["scope"] == first


async def test_more_than_the_user_has_is_refused_before_the_second_step(
    issuer: IssuerHarness,
) -> None:
    await enrol(issuer, await log_in(issuer))
    answer = await log_in_for(issuer, "orders:delete")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_scope")


async def test_the_password_grant_narrows_too(issuer: IssuerHarness) -> None:
    """RFC 6749, section 4.3.2."""
    form = {
        "grant_type": "password",
        "client_id": "gatehouse",
        "username": "alice",
        "password": PASSWORD,
    }
    answer = await issuer.client.post(
        "/oauth2/token", data=form | {"scope": "orders:read"}
    )
    assert read_tokens(answer).claims["scope"] == "orders:read"
    refused = await issuer.client.post("/oauth2/token", data=form | {"scope": "more"})
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_scope")
