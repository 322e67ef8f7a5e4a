"""Personal keys: made by a session, exchanged by a script, ended at every gate."""

from __future__ import annotations

import re

import pytest
from sqlalchemy import delete, update

from issuer.storage.tables.roles import Role, UserRole
from issuer.storage.tables.users import User
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
from tests.support.personal_keys import (
    EXCHANGE,
    WISH,
    exchange,
    get_token,
    is_dead,
    list_keys,
    make_key,
    post_key,
)


@pytest.fixture
async def alice(issuer: IssuerHarness) -> Tokens:
    """Alice is signed in, and may read and write orders."""
    await add_role(issuer, "clerk", "orders:read orders:write")
    await issuer.create_user("alice", PASSWORD, ["clerk"])
    return await log_in(issuer)


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
    # A client that lost the answer asks again; nothing is revoked twice.
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


async def test_a_key_is_never_an_administrators_by_default(
    issuer: IssuerHarness,
) -> None:
    """A key lives for up to a year, and a copy of it can do the same."""
    root = await log_in_admin(issuer)
    answer = await post_key(issuer, root, scopes=["gatehouse:admin"])
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_scope")
    assert "ISSUER_PERSONAL_KEY_ADMIN" in answer.json()["detail"]
    assert await list_keys(issuer, root) == []


async def test_an_administrators_key_administers_where_a_setting_allows_it(
    database_url: str,
) -> None:
    """And no longer once the setting is off, also a key that was made while it was
    on.
    """
    settings = make_settings(database_url, personal_key_admin=True)
    async with running_issuer(settings) as issuer:
        root = await log_in_admin(issuer)
        made = await make_key(issuer, root, scopes=["gatehouse:admin"])
        unnamed = await make_key(issuer, root, scopes=[])
        token = await get_token(issuer, made["key"])
        answer = await issuer.client.get("/users", headers=token.bearer)
        assert answer.status_code == 200
        # The scope is never there unless the request that made the key named it.
        assert (await get_token(issuer, unnamed["key"])).claims["scope"] == ""
        asked = await exchange(issuer, unnamed["key"], scope="gatehouse:admin")
        assert is_refused(asked, 400, "invalid_scope")
    async with running_issuer(make_settings(database_url)) as issuer:
        token = await get_token(issuer, made["key"])
        assert token.claims["scope"] == ""
        asked = await exchange(issuer, made["key"], scope="gatehouse:admin")
        assert is_refused(asked, 400, "invalid_scope")


async def test_a_finder_may_revoke_a_key(issuer: IssuerHarness, alice: Tokens) -> None:
    """RFC 7009, for scanners; and it is an access token to no endpoint (RFC 7662)."""
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


PUBLIC: list[dict[str, str]] = [
    {},
    {"client_id": "gatehouse-key"},
    {"client_id": "gatehouse"},
]


@pytest.mark.parametrize("named", PUBLIC, ids=str)
async def test_the_bearer_of_a_keys_token_may_revoke_it(
    issuer: IssuerHarness, alice: Tokens, named: dict[str, str]
) -> None:
    """RFC 7009, section 2.1: that token alone. It was got without a client's secret."""
    made = await make_key(issuer, alice)
    token, other = [await get_token(issuer, made["key"]) for _ in range(2)]
    answer = await issuer.client.post(
        "/oauth2/revoke",
        data={"token": f"Bearer {token.access_token}", **named},
        headers={"Prefer": "wait=0"},
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["confirmed"] is True
    assert await read_feed(issuer) == [("jti", token.claims["jti"], 0)]
    inspector = await create_client(issuer, ["gatehouse:introspect"])
    assert await inspector.introspect(token.access_token) == {"active": False}
    assert (await inspector.introspect(other.access_token))["active"] is True
    assert (await exchange(issuer, made["key"])).status_code == 200


@pytest.mark.parametrize("named", PUBLIC, ids=str)
async def test_the_bearer_of_a_key_may_end_it_without_a_client(
    issuer: IssuerHarness, alice: Tokens, named: dict[str, str]
) -> None:
    made = await make_key(issuer, alice)
    form = {"token": made["key"], **named}
    for _ in range(2):
        answer = await issuer.client.post(
            "/oauth2/revoke", data=form, headers={"Prefer": "wait=0"}
        )
        assert answer.json()["confirmed"] is True, answer.text
    assert await read_feed(issuer) == [("sid", made["id"], 0)]
    assert is_dead(await exchange(issuer, made["key"]))


async def test_other_tokens_are_not_revoked_without_a_client(
    issuer: IssuerHarness, alice: Tokens
) -> None:
    """The way without a client is for keys: all else is refused as before."""
    client = await create_client(issuer, ["orders:read"])
    foreign = await client.get_token()
    for token in (alice.access_token, alice.refresh_token, foreign, "x", "e30.e30.e30"):
        for named in ({}, {"client_id": "gatehouse-key"}):
            answer = await issuer.client.post(
                "/oauth2/revoke", data={"token": token, **named}
            )
            assert is_refused(answer, 401, "invalid_client"), token
    missing = await issuer.client.post("/oauth2/revoke", data={"token_type_hint": "x"})
    assert is_refused(missing, 401, "invalid_client")
    named = {"client_id": "gatehouse", "token": foreign}
    other = await issuer.client.post("/oauth2/revoke", data=named)
    assert is_refused(other, 400, "invalid_grant")
    made = await make_key(issuer, alice)
    keys = (await get_token(issuer, made["key"])).access_token
    # Nor may a client that has nothing to do with it.
    assert is_refused(
        await client.post("/oauth2/revoke", token=keys), 400, "invalid_grant"
    )
    assert await read_feed(issuer) == []


async def test_the_name_of_a_keys_tokens_is_no_client_elsewhere(
    issuer: IssuerHarness, alice: Tokens
) -> None:
    named = {"client_id": "gatehouse-key"}
    form = {"grant_type": "refresh_token", "refresh_token": alice.refresh_token}
    answer = await issuer.client.post("/oauth2/token", data=form | named)
    assert is_refused(answer, 401, "invalid_client")
    answer = await issuer.client.post(
        "/oauth2/introspect", data={"token": alice.access_token, **named}
    )
    assert is_refused(answer, 401, "invalid_client")


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
async def test_malformed_key_exchanges_are_refused(
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
