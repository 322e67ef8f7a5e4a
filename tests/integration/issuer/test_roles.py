"""Roles: made, changed and deleted; removed rights end at once."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from issuer.acts import Caller
from tests.support.issuer_harness import IssuerHarness
from tests.support.issuer_story import (
    PASSWORD,
    Tokens,
    is_accepted,
    log_in,
    post_login,
    read_audit,
    read_feed,
    read_tokens,
    refresh,
)

CLERK = {"name": "clerk", "scopes": ["orders:write", "orders:read"]}


@pytest.fixture
async def admin(issuer: IssuerHarness) -> Tokens:
    """An administrator, logged in."""
    await issuer.issuer.accounts.users.create_admin("root", PASSWORD, caller=Caller())
    return await log_in(issuer, "root")


async def make_role(
    issuer: IssuerHarness, admin: Tokens, body: dict[str, object] = CLERK
) -> httpx.Response:
    return await issuer.client.post("/roles", json=body, headers=admin.bearer)


async def put(
    issuer: IssuerHarness, admin: Tokens, name: str, scopes: list[str], tag: str = "*"
) -> httpx.Response:
    return await issuer.client.put(
        f"/roles/{name}",
        json={"scopes": scopes},
        headers=admin.bearer | {"If-Match": tag},
    )


async def test_a_role_is_made_shown_listed_and_deleted(
    issuer: IssuerHarness, admin: Tokens
) -> None:
    answer = await make_role(issuer, admin, CLERK | {"description": "Takes orders."})
    assert answer.status_code == 201
    assert answer.json() == {
        "name": "clerk",
        "scopes": ["orders:read", "orders:write"],
        "description": "Takes orders.",
        "created_at": issuer.clock.now,
    }
    path = answer.headers["Location"]
    shown = await issuer.client.get(path, headers=admin.bearer)
    assert shown.json() == answer.json()
    assert shown.headers["ETag"] == answer.headers["ETag"]
    listed = await issuer.client.get("/roles", headers=admin.bearer)
    assert [role["name"] for role in listed.json()["roles"]] == ["admin", "clerk"]
    assert (await make_role(issuer, admin)).status_code == 409
    gone = await issuer.client.delete(path, headers=admin.bearer)
    assert (gone.status_code, gone.content) == (204, b"")
    for method in ("GET", "DELETE"):
        answer = await issuer.client.request(method, path, headers=admin.bearer)
        assert answer.status_code == 404
    assert (await put(issuer, admin, "clerk", [])).status_code == 404
    for word in ("created", "deleted"):
        (event,) = await read_audit(issuer, f"role.{word}")
        assert (event["actor"], event["subject"]) == (admin.claims["sub"], "clerk")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "two words"}, "name"),
        ({"name": "a" * 65}, "name"),
        ({"name": "a\n"}, "name"),
        ({"scopes": ["two words"]}, "scopes"),
        ({"scopes": [""]}, "scopes"),
        ({"scopes": ['quo"te']}, "scopes"),
        ({"scopes": [f"{n:03}" + "x" * 90 for n in range(20)]}, "scopes"),
        ({"scopes": "orders:read"}, "scopes"),
        ({"description": "a\u202eb"}, "description"),
        ({"holders": ["root"]}, "body"),
    ],
)
async def test_a_role_that_breaks_a_rule_is_refused_with_the_rule(
    issuer: IssuerHarness, admin: Tokens, change: dict[str, object], field: str
) -> None:
    answer = await make_role(issuer, admin, CLERK | change)
    assert answer.status_code == 400
    assert {each["field"] for each in answer.json()["problems"]} == {field}


async def test_holders_lose_a_scope_at_once_and_keep_their_sessions(
    issuer: IssuerHarness, admin: Tokens
) -> None:
    await make_role(issuer, admin)
    users = [await issuer.create_user(n, PASSWORD, ["clerk"]) for n in ("alice", "bob")]
    await issuer.create_user("carol", PASSWORD)
    alice, carol = await log_in(issuer), await log_in(issuer, "carol")
    answer = await put(issuer, admin, "clerk", ["orders:read", "orders:list"])
    body = answer.json()
    assert body["scopes"] == ["orders:list", "orders:read"]
    assert (body["revoked"], body["position"]) == (True, 2)
    expected = sorted(("user", user.id, 1) for user in users)
    assert sorted(await read_feed(issuer)) == expected
    assert not await is_accepted(issuer, alice)
    assert await is_accepted(issuer, carol)
    renewed = await refresh(issuer, alice.refresh_token)
    # New scopes of the role were not granted to this session (RFC 6749, section 6).
    assert (renewed.sid, renewed.claims["scope"]) == (alice.sid, "orders:read")
    assert (await log_in(issuer)).claims["scope"] == "orders:list orders:read"
    (event,) = await read_audit(issuer, "role.changed")
    assert event["facts"]["lost"] == "orders:write"


async def test_a_role_that_only_gains_ends_nothing(
    issuer: IssuerHarness, admin: Tokens
) -> None:
    await make_role(issuer, admin)
    await issuer.create_user("alice", PASSWORD, ["clerk"])
    tokens = await log_in(issuer)
    answer = await put(issuer, admin, "clerk", [*CLERK["scopes"], "orders:list"])
    assert "revoked" not in answer.json()
    assert await is_accepted(issuer, tokens)
    assert await read_feed(issuer) == []


async def test_a_changed_role_has_another_tag_and_the_old_one_is_answered_412(
    issuer: IssuerHarness, admin: Tokens
) -> None:
    tag = (await make_role(issuer, admin)).headers["ETag"]
    bare = await issuer.client.put(
        "/roles/clerk", json={"scopes": []}, headers=admin.bearer
    )
    assert bare.status_code == 428
    answers = await asyncio.gather(
        *(put(issuer, admin, "clerk", [f"s{n}"], tag) for n in range(4))
    )
    assert sorted(answer.status_code for answer in answers) == [200, 412, 412, 412]
    stale = await issuer.client.delete(
        "/roles/clerk", headers=admin.bearer | {"If-Match": tag}
    )
    assert stale.status_code == 412


async def test_a_role_that_somebody_holds_is_not_deleted(
    issuer: IssuerHarness, admin: Tokens
) -> None:
    await make_role(issuer, admin)
    user = await issuer.create_user("alice", PASSWORD, ["clerk"])
    answer = await issuer.client.delete("/roles/clerk", headers=admin.bearer)
    assert (answer.status_code, answer.json()["code"]) == (409, "role_in_use")
    await issuer.client.delete(f"/users/{user.id}", headers=admin.bearer)
    answer = await issuer.client.delete("/roles/clerk", headers=admin.bearer)
    assert answer.status_code == 204


async def test_a_role_is_given_or_deleted_never_both(
    issuer: IssuerHarness, admin: Tokens
) -> None:
    await make_role(issuer, admin)
    user = await issuer.create_user("alice", PASSWORD)
    given, deleted = await asyncio.gather(
        issuer.client.patch(
            f"/users/{user.id}",
            json={"roles": ["clerk"]},
            headers=admin.bearer | {"If-Match": "*"},
        ),
        issuer.client.delete("/roles/clerk", headers=admin.bearer),
    )
    assert (given.status_code, deleted.status_code) in {(200, 409), (400, 204)}


async def test_role_granted_during_narrowing_does_not_keep_removed_scopes(
    issuer: IssuerHarness, admin: Tokens
) -> None:
    """In both orders: either the role is given narrow, or its holder is
    revoked.
    """
    await make_role(issuer, admin)
    users = [await issuer.create_user(f"u{n}", PASSWORD) for n in range(4)]

    async def give_and_log_in(number: int) -> Tokens:
        answer = await issuer.client.patch(
            f"/users/{users[number].id}",
            json={"roles": ["clerk"]},
            headers=admin.bearer | {"If-Match": "*"},
        )
        assert answer.status_code == 200
        login = await post_login(issuer, f"u{number}")
        if login.status_code == 401:
            # Overtaken between its hash and its session: tokens of before do not count.
            login = await post_login(issuer, f"u{number}")
        return read_tokens(login)

    *tokens, narrowed = await asyncio.gather(
        *(give_and_log_in(number) for number in range(4)),
        put(issuer, admin, "clerk", ["orders:read"]),
    )
    assert narrowed.status_code == 200
    for each in tokens:
        is_narrow = each.claims["scope"] == "orders:read"
        assert is_narrow or not await is_accepted(issuer, each)


async def test_the_last_role_that_makes_administrators_keeps_its_scope(
    issuer: IssuerHarness, admin: Tokens
) -> None:
    answer = await put(issuer, admin, "admin", ["gatehouse:administer"])
    assert (answer.status_code, answer.json()["code"]) == (409, "last_administrator")
    assert await is_accepted(issuer, admin)
    await make_role(issuer, admin, {"name": "boss", "scopes": ["gatehouse:admin"]})
    await issuer.create_user("alice", PASSWORD, ["boss"])
    assert (await put(issuer, admin, "admin", [])).status_code == 200
    assert not await is_accepted(issuer, admin)
    assert await is_accepted(issuer, await log_in(issuer))


async def test_a_role_cannot_outgrow_its_holders_tokens(
    issuer: IssuerHarness, admin: Tokens
) -> None:
    """R17: the users who hold it would not be able to log in."""
    for name in ("a", "b", "c", "d"):
        scopes = [f"{name}{n:02}" + "x" * 90 for n in range(9 if name != "d" else 1)]
        await make_role(issuer, admin, {"name": name, "scopes": scopes})
    await issuer.create_user("alice", PASSWORD, ["a", "b", "c", "d"])
    grown = [f"d{n:02}" + "x" * 90 for n in range(9)]
    answer = await put(issuer, admin, "d", grown)
    assert answer.status_code == 400
    assert answer.json()["problems"][0]["field"] == "scopes"
    await log_in(issuer)


async def test_only_administrators_see_and_change_roles(
    issuer: IssuerHarness, admin: Tokens
) -> None:
    await issuer.create_user("alice", PASSWORD)
    tokens = await log_in(issuer)
    for method, path in (
        ("GET", "/roles"),
        ("POST", "/roles"),
        ("GET", "/roles/admin"),
        ("PUT", "/roles/admin"),
        ("DELETE", "/roles/admin"),
    ):
        body = (
            CLERK if method == "POST" else {"scopes": []} if method == "PUT" else None
        )
        answer = await issuer.client.request(
            method, path, json=body, headers=tokens.bearer | {"If-Match": "*"}
        )
        assert answer.status_code == 403, (method, path)


async def test_an_invalid_name_is_refused_without_a_database_query(
    issuer: IssuerHarness, admin: Tokens
) -> None:
    """R35."""
    for name in ("%00", "a%20b", "%ff"):
        answer = await issuer.client.get(f"/roles/{name}", headers=admin.bearer)
        assert answer.status_code == 400
