"""Grants that do not fit into the identity headers are refused, and never minted
(R63).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import insert

from issuer.accounts.user_rows import UserRows
from issuer.acts import Caller
from issuer.errors import InvalidRequestError
from issuer.storage.tables.roles import Role, UserRole
from tests.support.issuer_harness import IssuerHarness
from tests.support.issuer_story import PASSWORD, Tokens, log_in, post_login, read_tokens

RULE = "7,000 bytes in the identity headers"


def scopes_of(letter: str) -> list[str]:
    """Return 9 scopes of 100 characters, each 296 bytes in a header: 2,672 together."""
    return [f"{letter}{number}{',' * 98}" for number in range(9)]


async def make_roles(issuer: IssuerHarness, *names: str) -> None:
    roles = issuer.issuer.roles.roles
    for name in names:
        await roles.create(name, scopes_of(name), "", actor="system", caller=Caller())


@pytest.fixture
async def admin(issuer: IssuerHarness) -> Tokens:
    await issuer.issuer.accounts.users.create_admin("root", PASSWORD, caller=Caller())
    return await log_in(issuer, "root")


async def test_a_user_is_not_given_roles_that_do_not_fit(
    issuer: IssuerHarness, admin: Tokens
) -> None:
    """R63: neither at first nor later; the refusal names field and rule."""
    await make_roles(issuer, "a", "b", "c")
    body: dict[str, Any] = {"username": "alice", "password": PASSWORD}
    answer = await issuer.client.post(
        "/users", json=body | {"roles": ["a", "b", "c"]}, headers=admin.bearer
    )
    assert answer.status_code == 400
    (problem,) = answer.json()["problems"]
    assert problem["field"] == "roles"
    assert RULE in problem["rule"]
    made = await issuer.client.post(
        "/users", json=body | {"roles": ["a", "b"]}, headers=admin.bearer
    )
    assert made.status_code == 201
    changed = await issuer.client.patch(
        f"/users/{made.json()['id']}",
        json={"roles": ["a", "b", "c"]},
        headers=admin.bearer | {"If-Match": "*"},
    )
    assert changed.status_code == 400
    assert RULE in changed.json()["problems"][0]["rule"]
    claims = (await log_in(issuer)).claims
    assert claims["roles"] == ["a", "b"]


async def test_a_role_cannot_outgrow_its_holders_identity_headers(
    issuer: IssuerHarness, admin: Tokens
) -> None:
    """R63."""
    await make_roles(issuer, "a", "b")
    roles = issuer.issuer.roles.roles
    await roles.create("c", ["small"], "", actor="system", caller=Caller())
    await issuer.create_user("alice", PASSWORD, ["a", "b", "c"])
    answer = await issuer.client.put(
        "/roles/c",
        json={"scopes": scopes_of("c")},
        headers=admin.bearer | {"If-Match": "*"},
    )
    assert answer.status_code == 400
    (problem,) = answer.json()["problems"]
    assert problem["field"] == "scopes"
    assert RULE in problem["rule"]
    assert (await log_in(issuer)).claims["scope"].endswith("small")


async def import_lines(issuer: IssuerHarness, text: str):
    rows = UserRows(text.encode().splitlines(keepends=True))
    run = issuer.issuer.accounts.user_import.run(rows, actor="system", caller=Caller())
    return [outcome async for outcome in run]


async def test_an_imported_account_gets_no_roles_that_do_not_fit(
    issuer: IssuerHarness,
) -> None:
    """R63."""
    await make_roles(issuer, "a", "b", "c")
    (outcome,) = await import_lines(issuer, "username,roles\nalice,a b c\nbob,a b\n")
    assert outcome.created == 1
    (refused,) = outcome.refused
    assert (refused.line, refused.field) == (2, "roles")
    assert RULE in refused.rule


async def test_a_role_that_grows_during_an_import_is_measured_again(
    issuer: IssuerHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R63: between the look at the roles and the writing of the accounts."""
    await make_roles(issuer, "a", "b")
    roles = issuer.issuer.roles.roles
    await roles.create("c", [], "", actor="system", caller=Caller())

    class WideningPool:
        """Hashes, and meanwhile somebody changes the role."""

        workers = 1

        async def run(self, work: Callable[[], str]) -> str:
            await roles.replace(
                "c", scopes_of("c"), "", lambda _: None, actor="root", caller=Caller()
            )
            return work()

    monkeypatch.setattr(issuer.issuer.accounts.user_import, "_pool", WideningPool())
    (outcome,) = await import_lines(
        issuer, f"username,roles,password\nalice,a b c,{PASSWORD}\n"
    )
    assert outcome.created == 0
    assert RULE in outcome.refused[0].rule


async def test_a_client_cannot_be_made_with_scopes_past_the_bound(
    issuer: IssuerHarness, admin: Tokens
) -> None:
    """R63: 1,000 characters are 3,000 bytes at most, so that its token always fits."""
    body = {"name": "reports", "scopes": scopes_of("a")}
    answer = await issuer.client.post("/clients", json=body, headers=admin.bearer)
    assert answer.status_code == 201
    made = answer.json()
    token = await issuer.client.post(
        "/oauth2/token",
        data={"grant_type": "client_credentials"},
        auth=(made["id"], made["client_secret"]),
    )
    assert token.status_code == 200
    body["scopes"] = [*scopes_of("a"), *scopes_of("b")]
    answer = await issuer.client.post("/clients", json=body, headers=admin.bearer)
    assert answer.status_code == 400


async def test_grants_from_before_the_bound_are_refused_by_name(
    issuer: IssuerHarness,
) -> None:
    """R63: a token that the gateway's application cannot take is not minted."""
    user = await issuer.create_user("alice", PASSWORD)
    async with issuer.database.write() as db:
        for name in ("a", "b", "c"):
            scopes = " ".join(scopes_of(name))
            values = {"name": name, "scopes": scopes, "created_at": issuer.clock.now}
            await db.execute(insert(Role).values(values))
            held = {"user_id": user.id, "role_name": name}
            await db.execute(insert(UserRole).values(held))
    answer = await post_login(issuer, "alice")
    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid_scope"
    assert "identity headers would be longer than 8000 bytes" in answer.json()["detail"]
    # An administrator takes one away: then it fits.
    with pytest.raises(InvalidRequestError):
        await issuer.create_user("bob", PASSWORD, ["a", "b", "c"])
    async with issuer.database.write() as db:
        await db.execute(UserRole.__table__.delete().where(UserRole.role_name == "c"))
    assert read_tokens(await post_login(issuer, "alice")).claims["roles"] == ["a", "b"]
