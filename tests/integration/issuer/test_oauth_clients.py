"""Clients: tokens of their own, introspection and revocation."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from issuer.acts import Caller
from issuer.composition import compose
from issuer.feed.feed import Revocation
from issuer.settings.issuer_settings import KeyRing
from issuer.storage.tables.clients import Client
from issuer.tokens.minting import AccessGrant
from shared.feed import EntryKind
from tests.support.following import FakeVerifier
from tests.support.issuer_harness import (
    IssuerHarness,
    make_settings,
    running_issuer,
)
from tests.support.issuer_story import (
    PASSWORD,
    is_accepted,
    is_invalid_grant,
    log_in,
    post_refresh,
    read_audit,
    read_feed,
    read_segment,
)
from tests.support.oauth_clients import ClientUnderTest, create_client, is_refused


@pytest.fixture
async def client(issuer: IssuerHarness) -> ClientUnderTest:
    """A client that may ask for two scopes."""
    return await create_client(issuer, ["orders:write", "orders:read"])


# --- /oauth2/token -----------------------------------------------------------------


async def test_a_client_gets_a_token_with_itself_as_subject(
    issuer: IssuerHarness, client: ClientUnderTest
) -> None:
    """RFC 6749, section 4.4; RFC 9068."""
    answer = await client.post("/oauth2/token", grant_type="client_credentials")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Pragma"] == "no-cache"
    body = answer.json()
    assert body | {"access_token": ""} == {
        "access_token": "",
        "token_type": "Bearer",
        "expires_in": 600,
        "scope": "orders:read orders:write",
    }
    assert read_segment(body["access_token"], 0)["typ"] == "at+jwt"
    claims = read_segment(body["access_token"], 1)
    assert claims["sub"] == claims["client_id"] == client.id
    assert claims["gen"] == 0
    assert claims["roles"] == []
    assert "username" not in claims
    again = read_segment(await client.get_token(), 1)
    assert again["sid"] != claims["sid"]


@pytest.mark.parametrize(
    ("wanted", "granted"),
    [("orders:read", "orders:read"), ("orders:write orders:read", None), ("", None)],
)
async def test_a_client_may_request_fewer_scopes(
    client: ClientUnderTest, wanted: str, granted: str | None
) -> None:
    token = await client.get_token(scope=wanted)
    expected = granted or "orders:read orders:write"
    assert read_segment(token, 1)["scope"] == expected


@pytest.mark.parametrize(
    "wanted",
    [
        "orders:delete",
        "orders:read gatehouse:admin",
        "a  b",
        'a"b',
        "orders:read\u00e9",
    ],
)
async def test_a_client_gets_no_more_than_it_may_have(
    client: ClientUnderTest, wanted: str
) -> None:
    answer = await client.post(
        "/oauth2/token", grant_type="client_credentials", scope=wanted
    )
    assert is_refused(answer, 400, "invalid_scope")


@pytest.mark.parametrize("grant", ["password", "authorization_code", "implicit"])
async def test_other_grants_are_unsupported(
    client: ClientUnderTest, grant: str
) -> None:
    answer = await client.post("/oauth2/token", grant_type=grant)
    assert is_refused(answer, 400, "unsupported_grant_type")


async def test_a_request_without_a_grant_type_is_malformed(
    client: ClientUnderTest,
) -> None:
    assert is_refused(await client.post("/oauth2/token"), 400, "invalid_request")


async def test_a_client_may_show_itself_in_the_form(
    issuer: IssuerHarness, client: ClientUnderTest
) -> None:
    """RFC 6749, section 2.3.1."""
    form = {
        "grant_type": "client_credentials",
        "client_id": client.id,
        "client_secret": client.secret,
    }
    answer = await issuer.client.post("/oauth2/token", data=form)
    assert answer.status_code == 200
    twice = await client.post("/oauth2/token", **form)
    assert is_refused(twice, 400, "invalid_request")


@pytest.mark.parametrize(
    "path", ["/oauth2/token", "/oauth2/revoke", "/oauth2/introspect"]
)
async def test_a_client_that_does_not_authenticate_is_refused(
    issuer: IssuerHarness, client: ClientUnderTest, path: str
) -> None:
    """RFC 6749, section 5.2: 401 with a challenge, alike for all causes."""
    other = await create_client(issuer)
    disabled = await create_client(issuer)
    async with issuer.database.write() as db:
        await db.execute(
            update(Client).where(Client.id == disabled.id).values(disabled_at=1)
        )
    form = {"grant_type": "client_credentials", "token": "x"}
    bodies = set()
    for answer in (
        await ClientUnderTest(issuer, client.id, other.secret).post(path, **form),
        await ClientUnderTest(issuer, "gc_none", client.secret).post(path, **form),
        await ClientUnderTest(issuer, client.id, "x").post(path, **form),
        await disabled.post(path, **form),
        await issuer.client.post(path, data=form),
    ):
        assert is_refused(answer, 401, "invalid_client")
        assert answer.headers["WWW-Authenticate"].startswith("Basic ")
        bodies.add(answer.content)
    assert len(bodies) == 1


async def test_no_secret_is_in_the_database_or_the_audit(
    issuer: IssuerHarness, client: ClientUnderTest
) -> None:
    """R35."""
    async with issuer.database.read() as db:
        connection = await db.connection()
        dump = await connection.run_sync(
            lambda c: str(
                [c.execute(t.select()).all() for t in Client.metadata.sorted_tables]
            )
        )
    assert client.id in dump
    assert client.secret not in dump


# --- /oauth2/introspect ------------------------------------------------------------


async def test_a_client_may_introspect_its_own_token(
    issuer: IssuerHarness, client: ClientUnderTest
) -> None:
    """RFC 7662, section 2.2."""
    token = await client.get_token(scope="orders:read")
    shown = await client.introspect(token)
    claims = read_segment(token, 1)
    assert shown.pop("active") is True
    assert shown.pop("token_type") == "Bearer"
    assert shown == claims
    issuer.clock.advance(600)
    assert await client.introspect(token) == {"active": False}


async def test_asking_about_the_tokens_of_others_needs_the_scope(
    issuer: IssuerHarness, client: ClientUnderTest
) -> None:
    """RFC 7662, section 4: without it nothing is learnt, not even that it is one."""
    await issuer.create_user("alice", PASSWORD)
    alice = await log_in(issuer)
    inspector = await create_client(issuer, ["gatehouse:introspect"])
    assert await client.introspect(alice.access_token) == {"active": False}
    shown = await inspector.introspect(alice.access_token)
    assert shown["active"] is True
    assert shown["username"] == "alice"
    assert shown["client_id"] == "gatehouse"
    assert await inspector.introspect(alice.refresh_token) == {"active": False}
    await issuer.client.post("/auth/logout", headers=alice.bearer)
    assert await inspector.introspect(alice.access_token) == {"active": False}


@pytest.mark.parametrize("token", ["x", "a.b.c", "ghr_x", "\u00e9", "e30.e30."])
async def test_a_text_that_is_no_token_is_inactive(
    client: ClientUnderTest, token: str
) -> None:
    assert await client.introspect(token) == {"active": False}


async def test_asking_without_a_token_is_malformed(client: ClientUnderTest) -> None:
    for path in ("/oauth2/introspect", "/oauth2/revoke"):
        assert is_refused(await client.post(path), 400, "invalid_request")


# --- /oauth2/revoke ----------------------------------------------------------------


async def test_a_client_revokes_its_own_token(
    issuer: IssuerHarness, client: ClientUnderTest
) -> None:
    """RFC 7009, section 2: that token alone, and at once."""
    token, other = await client.get_token(), await client.get_token()
    for _ in range(2):
        answer = await client.post(
            "/oauth2/revoke", token=token, token_type_hint="refresh_token"
        )
        assert (answer.status_code, answer.content) == (200, b"")
    assert await client.introspect(token) == {"active": False}
    assert (await client.introspect(other))["active"] is True
    jti = read_segment(token, 1)["jti"]
    assert await read_feed(issuer) == [("jti", jti, 0)]
    (event,) = await read_audit(issuer, "token.revoked")
    assert (event["actor"], event["subject"]) == (client.id, jti)


@pytest.mark.parametrize(
    "token", ["x", "ghr_x", "a.b.c", "ghr_" + "A" * 71, "ghk_" + "A" * 36]
)
async def test_unknown_token_is_200_and_never_confirmed(
    issuer: IssuerHarness, client: ClientUnderTest, token: str
) -> None:
    """RFC 7009, section 2.2, and R50a: there is no entry that could be confirmed."""
    answer = await client.post("/oauth2/revoke", token=token)
    assert (answer.status_code, answer.content) == (200, b"")
    answer = await client.post(
        "/oauth2/revoke", headers={"Prefer": "wait=0"}, token=token
    )
    assert (answer.status_code, answer.json()) == (200, {"revoked": False})
    assert await read_feed(issuer) == []


@pytest.mark.parametrize(
    "pasted",
    ["{}\n", " {} ", "Bearer {}", "bearer  {}\r\n", '"{}"', "={}", "{}==", "'{}'"],
)
async def test_token_pasted_with_surrounding_text_is_revoked(
    issuer: IssuerHarness, client: ClientUnderTest, pasted: str
) -> None:
    token = await client.get_token()
    answer = await client.post(
        "/oauth2/revoke", headers={"Prefer": "wait=0"}, token=pasted.format(token)
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["confirmed"] is True
    assert await read_feed(issuer) == [("jti", read_segment(token, 1)["jti"], 0)]


async def test_token_of_a_key_made_elsewhere_a_moment_ago_is_revoked(
    issuer: IssuerHarness, client: ClientUnderTest
) -> None:
    """R50a: another replica changed the keys less than a second ago."""
    await client.get_token()  # this process has read the keys
    other = compose(issuer.settings, clock=issuer.clock)
    try:
        await other.keys.rotation.rotate(actor="system", is_immediate=True)
        other.keys.store.forget()
        grant = AccessGrant(
            subject=client.id,
            client_id=client.id,
            sid="grant",
            generation=0,
            scope="",
            roles=(),
            auth_time=issuer.clock.now,
        )
        minted = await other.tokens.access_tokens.mint(grant, issuer.clock.now)
    finally:
        await other.close()
    answer = await client.post(
        "/oauth2/revoke", headers={"Prefer": "wait=0"}, token=minted.access_token
    )
    assert answer.json()["confirmed"] is True
    jti = read_segment(minted.access_token, 1)["jti"]
    assert await read_feed(issuer) == [("jti", jti, 0)]


async def test_entry_that_ends_before_the_token_does_not_count(
    issuer: IssuerHarness, client: ClientUnderTest
) -> None:
    """R50a: an entry that is pruned too soon leaves the token alive at new
    verifiers.
    """
    token = await client.get_token()
    claims = read_segment(token, 1)
    short = Revocation(EntryKind.JTI, claims["jti"], claims["exp"] + 59)
    async with issuer.database.write() as db:
        await issuer.issuer.feed.feed.append(db, short)
    for _ in range(2):
        await client.post("/oauth2/revoke", token=token)
    assert await read_feed(issuer) == [("jti", claims["jti"], 0)] * 2


async def test_a_client_may_not_revoke_the_tokens_of_others(
    issuer: IssuerHarness, client: ClientUnderTest
) -> None:
    """RFC 7009, section 2.1."""
    await issuer.create_user("alice", PASSWORD)
    alice = await log_in(issuer)
    foreign = await (await create_client(issuer)).get_token()
    for token in (alice.access_token, alice.refresh_token, foreign):
        answer = await client.post("/oauth2/revoke", token=token)
        assert is_refused(answer, 400, "invalid_grant")
    assert await is_accepted(issuer, alice)
    assert await read_feed(issuer) == []


async def test_a_client_with_the_scope_revokes_any_token(issuer: IssuerHarness) -> None:
    """A refresh token ends its session with every token of it (RFC 7009, 2.1)."""
    await issuer.create_user("alice", PASSWORD)
    warden = await create_client(issuer, ["gatehouse:revoke"])
    alice = await log_in(issuer)
    answer = await warden.post("/oauth2/revoke", token=alice.access_token)
    assert answer.status_code == 200
    assert not await is_accepted(issuer, alice)
    answer = await warden.post("/oauth2/revoke", token=alice.refresh_token)
    assert answer.status_code == 200
    assert is_invalid_grant(await post_refresh(issuer, alice.refresh_token))
    jti = str(alice.claims["jti"])
    assert await read_feed(issuer) == [("jti", jti, 0), ("sid", alice.sid, 0)]
    (event,) = await read_audit(issuer, "session.ended")
    assert event["actor"] == warden.id


async def test_all_tokens_of_a_client_can_be_withdrawn(
    issuer: IssuerHarness, client: ClientUnderTest
) -> None:
    token = await client.get_token()
    position = await issuer.issuer.clients.clients.revoke_all(
        client.id, Caller(), actor="system"
    )
    assert position.seq == 1
    assert await client.introspect(token) == {"active": False}
    assert await read_feed(issuer) == [("client", client.id, 1)]
    later = await client.get_token()
    assert read_segment(later, 1)["gen"] == 1
    assert (await client.introspect(later))["active"] is True


async def test_one_grant_of_a_client_can_be_withdrawn_by_its_sid(
    issuer: IssuerHarness, client: ClientUnderTest
) -> None:
    token = await client.get_token()
    sid = read_segment(token, 1)["sid"]
    await issuer.issuer.sessions.logout.end_any(sid, Caller(), actor="system")
    assert await client.introspect(token) == {"active": False}


async def test_a_clients_token_opens_nothing_that_is_a_users(
    issuer: IssuerHarness,
) -> None:
    client = await create_client(issuer, ["gatehouse:admin"])
    headers = {"Authorization": f"Bearer {await client.get_token()}"}
    for method, path in (
        ("POST", "/auth/logout"),
        ("POST", "/auth/logout-all"),
        ("GET", "/auth/sessions"),
        ("GET", "/users/me"),
    ):
        answer = await issuer.client.request(method, path, headers=headers)
        assert answer.status_code == 403, path
    assert (await issuer.client.get("/users", headers=headers)).status_code == 200


async def test_a_revocation_is_confirmed_when_the_client_prefers_to_wait(
    issuer: IssuerHarness, client: ClientUnderTest
) -> None:
    """RFC 7009, section 2.2: the client may ignore the body."""
    verifier = FakeVerifier(issuer)
    await verifier.catch_up()
    token = await client.get_token()

    async def revoke() -> dict[str, object]:
        answer = await client.post(
            "/oauth2/revoke", headers={"Prefer": "wait=0"}, token=token
        )
        assert answer.status_code == 200
        assert answer.headers["Preference-Applied"] == "wait=0"
        return dict(answer.json())

    shown = await revoke()
    assert (shown["position"], shown["confirmed"]) == (1, False)
    # Asked again, it promises the same and writes nothing.
    assert await revoke() == shown
    await verifier.catch_up()
    shown = await revoke()
    assert (shown["position"], shown["confirmed"]) == (1, True)
    assert len(await read_feed(issuer)) == 1


async def test_a_token_that_verifiers_may_still_take_is_revoked_though_dead_here(
    issuer: IssuerHarness, client: ClientUnderTest
) -> None:
    """Verifiers allow leeway and know no rows of ours: `confirmed` would be a lie."""
    expired = await client.get_token()
    issuer.clock.advance(issuer.settings.access_ttl + 1)
    assert (await client.introspect(expired)) == {"active": False}
    orphan = await client.get_token()
    for token in (expired, orphan):
        if token is orphan:
            async with issuer.database.write() as db:
                await db.execute(
                    update(Client).where(Client.id == client.id).values(generation=1)
                )
        for _ in range(2):
            answer = await client.post("/oauth2/revoke", token=token)
            assert (answer.status_code, answer.content) == (200, b"")
    jtis = [read_segment(token, 1)["jti"] for token in (expired, orphan)]
    assert await read_feed(issuer) == [("jti", jti, 0) for jti in jtis]


async def test_a_token_no_verifier_takes_any_more_leaves_no_entry(
    issuer: IssuerHarness, client: ClientUnderTest
) -> None:
    token = await client.get_token()
    # The verifiers' leeway, and as much as clocks may differ.
    issuer.clock.advance(issuer.settings.access_ttl + 60 + 120)
    await client.post("/oauth2/revoke", token=token)
    assert await read_feed(issuer) == []


# --- ISSUER_REFRESH_KEYS -------------------------------------------------------------


async def test_refresh_token_of_a_removed_key_still_ends_its_session(
    database_url: str,
) -> None:
    """R50a: the current token of a family is recognised by its digest."""
    settings = make_settings(database_url)
    async with running_issuer(settings) as issuer:
        warden = await create_client(issuer, ["gatehouse:revoke"])
        await issuer.create_user("alice", PASSWORD)
        spent = await log_in(issuer)
        current = (await post_refresh(issuer, spent.refresh_token)).json()
        other = await log_in(issuer)
    ring = KeyRing({"k2": bytes(range(32))})
    changed = settings.model_copy(update={"refresh_keys": ring})
    async with running_issuer(changed) as issuer:
        warden = ClientUnderTest(issuer, warden.id, warden.secret)
        shown = []
        for token in (spent.refresh_token, current["refresh_token"]):
            answer = await warden.post(
                "/oauth2/revoke", headers={"Prefer": "wait=0"}, token=token
            )
            shown.append(answer.json())
        assert shown[0] == {"revoked": False}
        assert shown[1]["confirmed"] is True
        answer = await issuer.client.post(
            "/auth/logout", json={"refresh_token": other.refresh_token}
        )
        assert answer.status_code == 200
        assert [entry[:2] for entry in await read_feed(issuer)] == [
            ("sid", spent.sid),
            ("sid", other.sid),
        ]
