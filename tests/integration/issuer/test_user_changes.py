"""Accounts changed, disabled, enabled and deleted, and the tokens that end."""

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
    is_invalid_grant,
    log_in,
    post_login,
    post_refresh,
    read_audit,
    read_feed,
    refresh,
)


@pytest.fixture
async def admin(issuer: IssuerHarness) -> Tokens:
    """An administrator, logged in."""
    await issuer.issuer.accounts.users.create_admin("root", PASSWORD, caller=Caller())
    return await log_in(issuer, "root")


@pytest.fixture
async def alice(issuer: IssuerHarness, admin: Tokens) -> str:
    """Alice's user id; she is a clerk."""
    for name in ("clerk", "auditor"):
        await issuer.issuer.roles.roles.create(
            name, [f"{name}:read"], "", actor="system", caller=Caller()
        )
    user = await issuer.create_user("alice", PASSWORD, ["clerk"])
    return user.id


async def read_tag(issuer: IssuerHarness, admin: Tokens, user_id: str) -> str:
    answer = await issuer.client.get(f"/users/{user_id}", headers=admin.bearer)
    assert answer.status_code == 200
    return answer.headers["ETag"]


async def patch(
    issuer: IssuerHarness,
    admin: Tokens,
    user_id: str,
    body: dict[str, object],
    tag: str | None = None,
) -> httpx.Response:
    tag = tag or await read_tag(issuer, admin, user_id)
    return await issuer.client.patch(
        f"/users/{user_id}", json=body, headers=admin.bearer | {"If-Match": tag}
    )


async def make_admin(issuer: IssuerHarness, name: str) -> Tokens:
    await issuer.issuer.accounts.users.create_admin(name, PASSWORD, caller=Caller())
    return await log_in(issuer, name)


# --- If-Match ----------------------------------------------------------------------


async def test_a_change_without_if_match_is_answered_428(
    issuer: IssuerHarness, admin: Tokens, alice: str
) -> None:
    answer = await issuer.client.patch(
        f"/users/{alice}", json={"roles": []}, headers=admin.bearer
    )
    assert answer.status_code == 428
    assert answer.json()["code"] == "precondition_required"
    assert answer.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("tag", ['"stale"', "W/{tag}", '"a", "b"'])
async def test_a_change_of_another_state_is_answered_412(
    issuer: IssuerHarness, admin: Tokens, alice: str, tag: str
) -> None:
    """RFC 9110, 13.1.1: a weak tag never matches."""
    now = await read_tag(issuer, admin, alice)
    answer = await patch(issuer, admin, alice, {"roles": []}, tag.format(tag=now))
    assert (answer.status_code, answer.json()["code"]) == (412, "precondition_failed")
    assert await read_tag(issuer, admin, alice) == now


async def test_a_malformed_if_match_is_refused(
    issuer: IssuerHarness, admin: Tokens, alice: str
) -> None:
    """R5: never taken for absent."""
    answer = await patch(issuer, admin, alice, {"roles": []}, "stale")
    assert answer.status_code == 400
    assert answer.json()["problems"][0]["field"] == "If-Match"


@pytest.mark.parametrize("tag", ["*", '"other", {tag}'])
async def test_any_of_several_tags_will_do(
    issuer: IssuerHarness, admin: Tokens, alice: str, tag: str
) -> None:
    now = await read_tag(issuer, admin, alice)
    answer = await patch(
        issuer, admin, alice, {"username": "alicia"}, tag.format(tag=now)
    )
    assert (answer.status_code, answer.json()["username"]) == (200, "alicia")
    assert answer.headers["ETag"] == await read_tag(issuer, admin, alice) != now


async def test_one_of_two_concurrent_changes_of_the_same_state_wins(
    issuer: IssuerHarness, admin: Tokens, alice: str
) -> None:
    tag = await read_tag(issuer, admin, alice)
    answers = await asyncio.gather(
        *(
            patch(issuer, admin, alice, {"roles": [role]}, tag)
            for role in ("auditor", "admin", "auditor", "admin")
        )
    )
    assert sorted(answer.status_code for answer in answers) == [200, 412, 412, 412]
    (won,) = (answer for answer in answers if answer.status_code == 200)
    shown = await issuer.client.get(f"/users/{alice}", headers=admin.bearer)
    assert shown.json()["roles"] == won.json()["roles"]
    assert len(await read_audit(issuer, "user.changed")) == 1


async def test_everything_a_reader_sees_changes_the_tag(
    issuer: IssuerHarness, admin: Tokens, alice: str
) -> None:
    tags = [await read_tag(issuer, admin, alice)]
    tokens = await log_in(issuer)
    issuer.clock.advance(1)
    await issuer.client.post("/auth/logout-all", headers=tokens.bearer)
    tags.append(await read_tag(issuer, admin, alice))
    await issuer.client.post(f"/users/{alice}/disable", headers=admin.bearer)
    tags.append(await read_tag(issuer, admin, alice))
    assert len(set(tags)) == 3


# --- endings -----------------------------------------------------------------------


async def test_a_removed_role_ends_access_tokens_and_keeps_the_session(
    issuer: IssuerHarness, admin: Tokens, alice: str
) -> None:
    tokens = await log_in(issuer)
    assert tokens.claims["scope"] == "clerk:read"
    answer = await patch(issuer, admin, alice, {"roles": []})
    body = answer.json()
    assert (body["roles"], body["revoked"], body["position"]) == ([], True, 1)
    assert await read_feed(issuer) == [("user", alice, 1)]
    assert not await is_accepted(issuer, tokens)
    renewed = await refresh(issuer, tokens.refresh_token)
    assert (renewed.sid, renewed.claims["gen"]) == (tokens.sid, 1)
    assert (renewed.claims["roles"], renewed.claims["scope"]) == ([], "")


async def test_a_role_that_is_gained_ends_nothing(
    issuer: IssuerHarness, admin: Tokens, alice: str
) -> None:
    tokens = await log_in(issuer)
    answer = await patch(issuer, admin, alice, {"roles": ["clerk", "auditor"]})
    assert answer.json()["roles"] == ["auditor", "clerk"]
    assert "revoked" not in answer.json()
    assert await is_accepted(issuer, tokens)
    assert await read_feed(issuer) == []
    again = await log_in(issuer)
    assert again.claims["scope"] == "auditor:read clerk:read"


async def test_a_new_name_ends_tokens_with_the_old_one(
    issuer: IssuerHarness, admin: Tokens, alice: str
) -> None:
    """The old name may be another's a moment later."""
    tokens = await log_in(issuer)
    answer = await patch(issuer, admin, alice, {"username": "ALICIA"})
    assert answer.json()["username"] == "alicia"
    await issuer.create_user("alice", PASSWORD)
    assert not await is_accepted(issuer, tokens)
    renewed = await refresh(issuer, tokens.refresh_token)
    assert renewed.claims["username"] == "alicia"
    (event,) = await read_audit(issuer, "user.changed")
    assert event["facts"]["username_before"] == "alice"


async def test_a_change_to_the_current_state_changes_nothing(
    issuer: IssuerHarness, admin: Tokens, alice: str
) -> None:
    tag = await read_tag(issuer, admin, alice)
    body = {"username": "Alice", "roles": ["clerk", "clerk"]}
    answer = await patch(issuer, admin, alice, body, tag)
    assert (answer.status_code, answer.headers["ETag"]) == (200, tag)
    assert await read_feed(issuer) == []
    assert await read_audit(issuer, "user.changed") == []


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"username": "root"}, 409, None),
        ({"username": "a\u202eb"}, 400, "username"),
        ({"username": None}, 400, "username"),
        ({"roles": ["nobody"]}, 400, "roles"),
        ({"roles": None}, 400, "roles"),
        ({"is_disabled": True}, 400, "body"),
        ({"password": PASSWORD}, 400, "body"),
    ],
)
async def test_a_change_that_breaks_a_rule_is_refused(
    issuer: IssuerHarness,
    admin: Tokens,
    alice: str,
    body: dict[str, object],
    status: int,
    field: str | None,
) -> None:
    """R36."""
    tag = await read_tag(issuer, admin, alice)
    answer = await patch(issuer, admin, alice, body, tag)
    assert answer.status_code == status
    problems = answer.json().get("problems", [])
    assert [problem["field"] for problem in problems] == ([field] if field else [])
    assert await read_tag(issuer, admin, alice) == tag


async def test_more_roles_than_a_token_can_hold_are_refused(
    issuer: IssuerHarness, admin: Tokens, alice: str
) -> None:
    """R17: otherwise the next login could not be answered."""
    names = []
    for number in range(4):
        names.append(f"big{number}")
        scopes = [f"s{number}-{n:02}-" + "x" * 90 for n in range(9)]
        await issuer.issuer.roles.roles.create(
            names[-1], scopes, "", actor="system", caller=Caller()
        )
    answer = await patch(issuer, admin, alice, {"roles": names})
    assert answer.status_code == 400
    assert answer.json()["problems"][0]["field"] == "roles"
    assert (await patch(issuer, admin, alice, {"roles": names[:3]})).status_code == 200
    assert (await post_login(issuer)).status_code == 200


async def test_a_disabled_user_is_out_and_stays_out(
    issuer: IssuerHarness, admin: Tokens, alice: str
) -> None:
    tokens = await log_in(issuer)
    path = f"/users/{alice}/disable"
    answer = await issuer.client.post(path, headers=admin.bearer)
    assert answer.json()["is_disabled"] is True
    assert answer.json()["revoked"] is True
    assert await read_feed(issuer) == [("user", alice, 1)]
    assert not await is_accepted(issuer, tokens)
    assert is_invalid_grant(await post_refresh(issuer, tokens.refresh_token))
    assert (await post_login(issuer)).status_code == 401
    again = await issuer.client.post(path, headers=admin.bearer)
    assert again.status_code == 200

    answer = await issuer.client.post(f"/users/{alice}/enable", headers=admin.bearer)
    assert answer.json()["is_disabled"] is False
    assert is_invalid_grant(await post_refresh(issuer, tokens.refresh_token))
    assert not await is_accepted(issuer, tokens)
    await log_in(issuer)
    events = [
        await read_audit(issuer, f"user.{word}") for word in ("disabled", "enabled")
    ]
    assert [len(found) for found in events] == [1, 1]
    assert events[1][0]["actor"] == admin.claims["sub"]


async def test_a_deleted_user_is_gone_with_all_tokens(
    issuer: IssuerHarness, admin: Tokens, alice: str
) -> None:
    tokens = await log_in(issuer)
    answer = await issuer.client.delete(f"/users/{alice}", headers=admin.bearer)
    assert answer.json() == {"revoked": True, "position": 1}
    assert await read_feed(issuer) == [("user", alice, 1)]
    assert not await is_accepted(issuer, tokens)
    assert is_invalid_grant(await post_refresh(issuer, tokens.refresh_token))
    assert (await post_login(issuer)).status_code == 401
    shown = await issuer.client.get(f"/users/{alice}", headers=admin.bearer)
    assert shown.status_code == 404
    again = await issuer.client.delete(f"/users/{alice}", headers=admin.bearer)
    assert again.status_code == 404
    (event,) = await read_audit(issuer, "user.deleted")
    assert (event["subject"], event["facts"]) == (alice, {"username": "alice"})
    # The name is free, and the new account is another.
    assert (await issuer.create_user("alice", PASSWORD)).id != alice


@pytest.mark.parametrize("method", ["DELETE", "disable", "enable"])
async def test_if_match_counts_where_it_is_not_required(
    issuer: IssuerHarness, admin: Tokens, alice: str, method: str
) -> None:
    path = f"/users/{alice}" if method == "DELETE" else f"/users/{alice}/{method}"
    answer = await issuer.client.request(
        "DELETE" if method == "DELETE" else "POST",
        path,
        headers=admin.bearer | {"If-Match": '"stale"'},
    )
    assert answer.status_code == 412
    assert await read_feed(issuer) == []


async def test_a_revoking_change_is_confirmed_when_the_caller_waits(
    issuer: IssuerHarness, admin: Tokens, alice: str
) -> None:
    headers = admin.bearer | {"Prefer": "wait=1"}
    answer = await issuer.client.post(f"/users/{alice}/disable", headers=headers)
    assert answer.headers["Preference-Applied"] == "wait=1"
    assert answer.json()["confirmed"] is True
    assert answer.json()["followers"]["pending"] == []


async def test_only_administrators_change_accounts(
    issuer: IssuerHarness, admin: Tokens, alice: str
) -> None:
    tokens = await log_in(issuer)
    headers = tokens.bearer | {"If-Match": "*"}
    for method, path in (
        ("PATCH", f"/users/{alice}"),
        ("POST", f"/users/{alice}/disable"),
        ("POST", f"/users/{alice}/enable"),
        ("DELETE", f"/users/{alice}"),
        ("GET", f"/users/{alice}/sessions"),
        ("DELETE", f"/users/{alice}/sessions"),
    ):
        body = {"roles": ["admin"]} if method == "PATCH" else None
        answer = await issuer.client.request(method, path, json=body, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (
            403,
            "insufficient_scope",
        )
        bare = await issuer.client.request(method, path, json=body)
        assert bare.status_code == 401


# --- one's own ---------------------------------------------------------------------


async def test_a_user_renames_the_own_account_and_gives_it_no_roles(
    issuer: IssuerHarness, alice: str
) -> None:
    tokens = await log_in(issuer)
    shown = await issuer.client.get("/users/me", headers=tokens.bearer)
    headers = tokens.bearer | {"If-Match": shown.headers["ETag"]}
    answer = await issuer.client.patch(
        "/users/me", json={"roles": ["admin"]}, headers=headers
    )
    assert answer.status_code == 400
    bare = await issuer.client.patch(
        "/users/me",
        json={"username": "alicia", "password": PASSWORD},
        headers=tokens.bearer,
    )
    assert bare.status_code == 428
    answer = await issuer.client.patch(
        "/users/me", json={"username": "alicia", "password": PASSWORD}, headers=headers
    )
    assert (answer.json()["id"], answer.json()["username"]) == (alice, "alicia")
    assert not await is_accepted(issuer, tokens)
    renewed = await refresh(issuer, tokens.refresh_token)
    assert renewed.claims["username"] == "alicia"


# --- the last administrator --------------------------------------------------------


@pytest.mark.parametrize("act", ["demote", "disable", "delete"])
async def test_the_last_administrator_stays(
    issuer: IssuerHarness, admin: Tokens, act: str
) -> None:
    root = admin.claims["sub"]
    # Neither of them could take over: one is disabled, one has no password.
    disabled = await make_admin(issuer, "gone")
    path = f"/users/{disabled.claims['sub']}/disable"
    assert (await issuer.client.post(path, headers=admin.bearer)).status_code == 200
    await issuer.issuer.accounts.users.create(
        "mute", None, ["admin"], actor="system", caller=Caller()
    )
    feed = await read_feed(issuer)
    answer = await remove_admin(issuer, admin, root, act)
    assert (answer.status_code, answer.json()["code"]) == (409, "last_administrator")
    assert await is_accepted(issuer, admin)
    assert await read_feed(issuer) == feed

    await make_admin(issuer, "next")
    assert (await remove_admin(issuer, admin, root, act)).status_code == 200
    assert not await is_accepted(issuer, admin)


@pytest.mark.parametrize("act", ["demote", "disable", "delete"])
async def test_concurrent_removals_of_each_other_leave_one_administrator(
    issuer: IssuerHarness, admin: Tokens, act: str
) -> None:
    other = await make_admin(issuer, "other")
    answers = await asyncio.gather(
        remove_admin(issuer, admin, other.claims["sub"], act),
        remove_admin(issuer, other, admin.claims["sub"], act),
    )
    codes = sorted(answer.status_code for answer in answers)
    # 401: the one was out before its own request was looked at.
    assert codes in ([200, 401], [200, 409])
    accepted = [await is_accepted(issuer, tokens) for tokens in (admin, other)]
    assert sorted(accepted) == [False, True]


async def test_concurrent_resignations_leave_one_administrator(
    issuer: IssuerHarness, admin: Tokens
) -> None:
    """Each for itself: both requests are let in, and the lock alone decides."""
    other = await make_admin(issuer, "other")
    answers = await asyncio.gather(
        *(
            issuer.issuer.accounts.user_changes.disable(
                tokens.claims["sub"], lambda _: None, actor="system", caller=Caller()
            )
            for tokens in (admin, other)
        ),
        return_exceptions=True,
    )
    assert [isinstance(answer, Exception) for answer in answers].count(True) == 1
    accepted = [await is_accepted(issuer, tokens) for tokens in (admin, other)]
    assert sorted(accepted) == [False, True]


async def remove_admin(
    issuer: IssuerHarness, by: Tokens, user_id: str, act: str
) -> httpx.Response:
    if act == "demote":
        return await issuer.client.patch(
            f"/users/{user_id}",
            json={"roles": []},
            headers=by.bearer | {"If-Match": "*"},
        )
    if act == "disable":
        return await issuer.client.post(f"/users/{user_id}/disable", headers=by.bearer)
    return await issuer.client.delete(f"/users/{user_id}", headers=by.bearer)


async def test_the_tag_is_of_the_account_alone(
    issuer: IssuerHarness, admin: Tokens, alice: str
) -> None:
    """An answer that also reports a revocation carries the tag of a read."""
    answer = await patch(issuer, admin, alice, {"roles": []})
    assert answer.json()["revoked"] is True
    assert answer.headers["ETag"] == await read_tag(issuer, admin, alice)
