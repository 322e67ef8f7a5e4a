"""Personal keys: made by a session, exchanged by a script, ended at every gate."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from sqlalchemy import delete, update

from issuer.models import Role, User, UserRole
from tests.support.issuer_harness import IssuerHarness, make_settings, running_issuer
from tests.support.issuer_story import (
    PASSWORD,
    Tokens,
    log_in,
    read_audit,
    read_feed,
    read_segment,
)
from tests.support.oauth_clients import (
    add_role,
    create_client,
    is_refused,
    log_in_admin,
)

EXCHANGE = {
    "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
    "subject_token_type": "urn:gatehouse:token-type:personal-key",
}
WISH = {"name": "nightly export", "scopes": ["orders:read"], "expires_in": 86_400}


@pytest.fixture
async def alice(issuer: IssuerHarness) -> Tokens:
    """Alice, who may read and write orders, is signed in."""
    await add_role(issuer, "clerk", "orders:read orders:write")
    await issuer.create_user("alice", PASSWORD, ["clerk"])
    return await log_in(issuer)


async def make_key(
    issuer: IssuerHarness, tokens: Tokens, **changes: object
) -> dict[str, Any]:
    answer = await post_key(issuer, tokens, **changes)
    assert answer.status_code == 201, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    return dict(answer.json())


async def post_key(
    issuer: IssuerHarness, tokens: Tokens, **changes: object
) -> httpx.Response:
    return await issuer.client.post(
        "/users/me/keys", json=WISH | changes, headers=tokens.bearer
    )


async def exchange(issuer: IssuerHarness, key: str, **more: str) -> httpx.Response:
    form = {**EXCHANGE, "subject_token": key, **more}
    return await issuer.client.post("/oauth2/token", data=form)


async def get_token(issuer: IssuerHarness, key: str, **more: str) -> Tokens:
    answer = await exchange(issuer, key, **more)
    assert answer.status_code == 200, answer.text
    return Tokens(answer.json()["access_token"], "")


async def list_keys(issuer: IssuerHarness, tokens: Tokens) -> list[dict[str, Any]]:
    answer = await issuer.client.get("/users/me/keys", headers=tokens.bearer)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["keys"])


def is_dead(answer: httpx.Response) -> bool:
    """RFC 8693, section 2.2.2, has this word for a subject token that does not count."""
    return is_refused(answer, 400, "invalid_request")


async def test_a_key_is_exchanged_for_a_token_that_a_gate_can_check(
    issuer: IssuerHarness, alice: Tokens
) -> None:
    """RFC 8693, section 2.2.1; RFC 9068: the gate needs no look-up."""
    made = await make_key(issuer, alice)
    assert re.fullmatch(r"ghk_[0-9A-Za-z]{36}", made["key"])
    answer = await exchange(issuer, made["key"])
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json() | {"access_token": ""} == {
        "access_token": "",
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "token_type": "Bearer",
        "expires_in": 600,
        "scope": "orders:read",
    }
    claims = read_segment(answer.json()["access_token"], 1)
    assert claims["sub"] == alice.claims["sub"]
    assert claims["username"] == "alice"
    assert claims["sid"] == made["id"] != alice.sid
    assert claims["client_id"] == "gatehouse-key"
    # A role would grant more than the key's scopes.
    assert claims["roles"] == []
    assert claims["aud"] == "api"
    (event,) = await read_audit(issuer, "personal_key.created")
    assert made["key"] not in str(event)
    assert event["facts"]["key_id"] == made["id"]


async def test_a_key_has_no_more_scopes_than_its_owner(
    issuer: IssuerHarness, alice: Tokens
) -> None:
    """Checked when it is made, and again whenever it is exchanged."""
    for scopes in (["gatehouse:admin"], ["orders:read", "orders:delete"], ["a b"]):
        answer = await post_key(issuer, alice, scopes=scopes)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_scope")
    both = await make_key(issuer, alice, scopes=["orders:write", "orders:read"])
    assert (await exchange(issuer, both["key"])).json()["scope"] == (
        "orders:read orders:write"
    )
    less = await exchange(issuer, both["key"], scope="orders:read")
    assert less.json()["scope"] == "orders:read"
    more = await exchange(issuer, both["key"], scope="orders:delete")
    assert is_refused(more, 400, "invalid_scope")
    async with issuer.database.write() as db:
        await db.execute(update(Role).values(scopes="orders:read more"))
    assert (await exchange(issuer, both["key"])).json()["scope"] == "orders:read"
    lost = await exchange(issuer, both["key"], scope="orders:write")
    assert is_refused(lost, 400, "invalid_scope")
    async with issuer.database.write() as db:
        await db.execute(delete(UserRole))
    assert (await exchange(issuer, both["key"])).json()["scope"] == ""


async def test_a_narrowed_token_cannot_make_a_key_that_can_more(
    issuer: IssuerHarness, alice: Tokens
) -> None:
    narrowed = await issuer.client.post(
        "/oauth2/token",
        data={
            "grant_type": "refresh_token",
            "refresh_token": alice.refresh_token,
            "client_id": "gatehouse",
            "scope": "orders:read",
        },
    )
    tokens = Tokens(narrowed.json()["access_token"], "")
    answer = await post_key(issuer, tokens, scopes=["orders:write"])
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_scope")


async def test_a_revoked_key_ends_with_every_token_it_was_exchanged_for(
    issuer: IssuerHarness, alice: Tokens
) -> None:
    inspector = await create_client(issuer, ["gatehouse:introspect"])
    made, other = await make_key(issuer, alice), await make_key(issuer, alice)
    token = await get_token(issuer, made["key"])
    spared = await get_token(issuer, other["key"])
    assert (await inspector.introspect(token.access_token))["active"] is True
    path = f"/users/me/keys/{made['id']}"
    answer = await issuer.client.delete(
        path, headers={**alice.bearer, "Prefer": "wait=1"}
    )
    assert answer.json()["confirmed"] is True
    assert answer.headers["Preference-Applied"] == "wait=1"
    assert await read_feed(issuer) == [("sid", made["id"], 0)]
    assert await inspector.introspect(token.access_token) == {"active": False}
    assert (await inspector.introspect(spared.access_token))["active"] is True
    assert is_dead(await exchange(issuer, made["key"]))
    assert [key["id"] for key in await list_keys(issuer, alice)] == [other["id"]]
    # Who lost the answer asks again; nothing is revoked twice.
    again = await issuer.client.delete(path, headers=alice.bearer)
    assert again.json() == {"revoked": True, "position": 1}
    (event,) = await read_audit(issuer, "personal_key.revoked")
    assert event["subject"] == alice.claims["sub"]


async def test_a_disabled_owner_has_no_keys(
    issuer: IssuerHarness, alice: Tokens
) -> None:
    inspector = await create_client(issuer, ["gatehouse:introspect"])
    made = await make_key(issuer, alice)
    token = await get_token(issuer, made["key"])
    async with issuer.database.write() as db:
        await db.execute(update(User).values(disabled_at=1))
    assert is_dead(await exchange(issuer, made["key"]))
    assert await inspector.introspect(token.access_token) == {"active": False}


async def test_logging_out_everywhere_ends_the_tokens_and_not_the_key(
    issuer: IssuerHarness, alice: Tokens
) -> None:
    """The generation of the owner stands in them: no code of its own is needed."""
    inspector = await create_client(issuer, ["gatehouse:introspect"])
    made = await make_key(issuer, alice)
    token = await get_token(issuer, made["key"])
    await issuer.client.post("/auth/logout-all", headers=alice.bearer)
    assert await inspector.introspect(token.access_token) == {"active": False}
    later = await get_token(issuer, made["key"])
    assert later.claims["gen"] == 1
    assert (await inspector.introspect(later.access_token))["active"] is True


async def test_a_key_ends_when_its_time_is_over(
    issuer: IssuerHarness, alice: Tokens
) -> None:
    made = await make_key(issuer, alice, expires_in=1_000)
    issuer.clock.advance(700)
    token = await get_token(issuer, made["key"])
    assert token.claims["exp"] == made["expires_at"]
    issuer.clock.advance(299)
    assert (await exchange(issuer, made["key"])).json()["expires_in"] == 1
    issuer.clock.advance(1)
    assert is_dead(await exchange(issuer, made["key"]))


async def test_the_last_use_is_noted_to_the_hour(
    issuer: IssuerHarness, alice: Tokens
) -> None:
    """A write for each exchange would make it as dear as a login."""
    made = await make_key(issuer, alice)
    assert made["last_used_at"] is None
    first = issuer.clock.now
    for later, noted in ((0, first), (3_599, first), (1, first + 3_600)):
        issuer.clock.advance(later)
        await get_token(issuer, made["key"])
        tokens = await log_in(issuer)
        assert (await list_keys(issuer, tokens))[0]["last_used_at"] == noted


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "a\u202eb"}, "name"),
        ({"name": "a" * 101}, "name"),
        ({"expires_in": 299}, "expires_in"),
        ({"expires_in": 366 * 86_400 + 1}, "expires_in"),
        ({"expires_in": True}, "expires_in"),
        ({"scopes": [""]}, "scopes"),
    ],
)
async def test_a_malformed_key_is_refused(
    issuer: IssuerHarness, alice: Tokens, changes: dict[str, object], field: str
) -> None:
    answer = await post_key(issuer, alice, **changes)
    assert answer.status_code == 400
    assert answer.json()["problems"][0]["field"].startswith(field)


async def test_a_key_cannot_change_its_owners_account(
    issuer: IssuerHarness, alice: Tokens
) -> None:
    """It would be worth more than its scopes: it could make a key that can more."""
    made = await make_key(issuer, alice)
    token = await get_token(issuer, made["key"])
    change = {"current_password": PASSWORD, "new_password": "another horse battery"}
    for method, path, body in (
        ("POST", "/users/me/keys", WISH),
        ("GET", "/users/me/keys", None),
        ("DELETE", f"/users/me/keys/{made['id']}", None),
        ("POST", "/auth/logout", None),
        ("POST", "/auth/logout-all", None),
        ("GET", "/auth/sessions", None),
        ("POST", "/auth/password", change),
    ):
        answer = await issuer.client.request(
            method, path, json=body, headers=token.bearer
        )
        assert answer.status_code == 403, path
    assert await list_keys(issuer, alice)


async def test_a_key_is_its_owners_and_the_administrators_to_end(
    issuer: IssuerHarness, alice: Tokens
) -> None:
    made = await make_key(issuer, alice)
    owner = alice.claims["sub"]
    await issuer.create_user("bob", PASSWORD)
    bob = await log_in(issuer, "bob")
    mine = f"/users/me/keys/{made['id']}"
    theirs = f"/users/{owner}/keys"
    assert (await issuer.client.delete(mine, headers=bob.bearer)).status_code == 404
    assert (await issuer.client.get(theirs, headers=bob.bearer)).status_code == 403
    assert await get_token(issuer, made["key"])
    root = await log_in_admin(issuer)
    listed = await issuer.client.get(theirs, headers=root.bearer)
    assert [key["id"] for key in listed.json()["keys"]] == [made["id"]]
    assert made["key"] not in listed.text
    ended = await issuer.client.delete(f"{theirs}/{made['id']}", headers=root.bearer)
    assert ended.json()["revoked"] is True
    assert is_dead(await exchange(issuer, made["key"]))
    (event,) = await read_audit(issuer, "personal_key.revoked")
    assert (event["actor"], event["subject"]) == (root.claims["sub"], owner)


async def test_an_administrators_key_administers(issuer: IssuerHarness) -> None:
    root = await log_in_admin(issuer)
    made = await make_key(issuer, root, scopes=["gatehouse:admin"])
    token = await get_token(issuer, made["key"])
    answer = await issuer.client.get("/users", headers=token.bearer)
    assert answer.status_code == 200


async def test_whoever_finds_a_key_may_end_it(
    issuer: IssuerHarness, alice: Tokens
) -> None:
    """RFC 7009, for scanners; and for nobody is it an access token (RFC 7662)."""
    client = await create_client(issuer, ["gatehouse:introspect"])
    made = await make_key(issuer, alice)
    assert await client.introspect(made["key"]) == {"active": False}
    for _ in range(2):
        answer = await client.post("/oauth2/revoke", token=made["key"])
        assert (answer.status_code, answer.content) == (200, b"")
    assert is_dead(await exchange(issuer, made["key"]))
    unknown = await client.post("/oauth2/revoke", token="ghk_" + "0" * 36)
    assert unknown.status_code == 200
    assert await read_feed(issuer) == [("sid", made["id"], 0)]


@pytest.mark.parametrize(
    "changes",
    [
        {"subject_token": "ghk_" + "0" * 36},
        {"subject_token": "x"},
        {"subject_token": ""},
        {"subject_token_type": "urn:ietf:params:oauth:token-type:access_token"},
        {"subject_token_type": ""},
        {"requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token"},
        {"actor_token": "x"},
    ],
)
async def test_what_is_no_exchange_of_a_key_is_malformed(
    issuer: IssuerHarness, alice: Tokens, changes: dict[str, str]
) -> None:
    made = await make_key(issuer, alice)
    form = {**EXCHANGE, "subject_token": made["key"]} | changes
    assert is_dead(await issuer.client.post("/oauth2/token", data=form))


async def test_a_key_is_no_credential_of_a_client(
    issuer: IssuerHarness, alice: Tokens
) -> None:
    made = await make_key(issuer, alice)
    named = await exchange(issuer, made["key"], client_id="gatehouse")
    assert named.status_code == 200
    other = await exchange(issuer, made["key"], client_id="gc_1")
    assert is_refused(other, 401, "invalid_client")
    client = await create_client(issuer)
    answer = await client.post("/oauth2/token", **EXCHANGE, subject_token=made["key"])
    assert is_refused(answer, 400, "unauthorized_client")
    elsewhere = await exchange(issuer, made["key"], resource="https://a.example")
    assert is_refused(elsewhere, 400, "invalid_target")


async def test_keys_do_not_pile_up_without_end(
    issuer: IssuerHarness, alice: Tokens
) -> None:
    for _ in range(50):
        await make_key(issuer, alice, expires_in=300)
    assert (await post_key(issuer, alice)).status_code == 409
    # Those that have expired count no more.
    issuer.clock.advance(300)
    assert (await post_key(issuer, await log_in(issuer))).status_code == 201


async def test_a_key_has_a_living_bit_in_the_status_lists(database_url: str) -> None:
    """Its `sid` is no session's: without a look at keys the bit would be born dead."""
    async with running_issuer(make_settings(database_url, status_list=True)) as issuer:
        await issuer.create_user("alice", PASSWORD)
        alice = await log_in(issuer)
        made = await make_key(issuer, alice, scopes=[])
        first = await get_token(issuer, made["key"])
        second = await get_token(issuer, made["key"])
        assert first.claims["status"] == second.claims["status"]
