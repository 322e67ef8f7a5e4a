"""`/oauth2/token` for sessions and passwords, and its errors to the letter."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from issuer.storage.tables.sessions import RefreshFamily
from tests.support.issuer_harness import IssuerHarness, make_settings, running_issuer
from tests.support.issuer_story import (
    PASSWORD,
    is_accepted,
    log_in,
    read_feed,
    read_segment,
    read_tokens,
)
from tests.support.oauth_clients import (
    ClientUnderTest,
    add_role,
    create_client,
    is_refused,
)

FIRST_PARTY = {"client_id": "gatehouse"}


@pytest.fixture
async def client(issuer: IssuerHarness) -> ClientUnderTest:
    return await create_client(issuer, ["orders:read"])


@pytest.fixture
async def open_issuer(database_url: str) -> AsyncIterator[IssuerHarness]:
    """An issuer that takes passwords at the token endpoint."""
    settings = make_settings(database_url, password_grant=True)
    async with running_issuer(settings) as harness:
        yield harness


async def ask(issuer: IssuerHarness, **form: str) -> httpx.Response:
    return await issuer.client.post("/oauth2/token", data=form)


# --- refresh_token -----------------------------------------------------------------


async def test_a_session_goes_on_by_the_standards_own_way(
    issuer: IssuerHarness,
) -> None:
    """RFC 6749, section 6."""
    await issuer.create_user("alice", PASSWORD)
    alice = await log_in(issuer)
    answer = await ask(
        issuer,
        grant_type="refresh_token",
        refresh_token=alice.refresh_token,
        **FIRST_PARTY,
    )
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Pragma"] == "no-cache"
    later = read_tokens(answer)
    assert later.sid == alice.sid
    assert later.refresh_token != alice.refresh_token
    assert await is_accepted(issuer, later)
    # Both ways rotate one and the same family (requirement R29).
    repeated = await issuer.client.post(
        "/auth/refresh", json={"refresh_token": alice.refresh_token}
    )
    assert read_tokens(repeated).refresh_token == later.refresh_token


async def test_a_spent_refresh_token_ends_its_session(issuer: IssuerHarness) -> None:
    """RFC 9700, section 4.14.2; the answer is RFC 6749's."""
    await issuer.create_user("alice", PASSWORD)
    alice = await log_in(issuer)
    form = {"grant_type": "refresh_token", "refresh_token": alice.refresh_token}
    later = read_tokens(await ask(issuer, **form, **FIRST_PARTY))
    issuer.clock.advance(11)
    answer = await ask(issuer, **form, **FIRST_PARTY)
    assert is_refused(answer, 400, "invalid_grant")
    assert "WWW-Authenticate" not in answer.headers
    assert await read_feed(issuer) == [("sid", alice.sid, 0)]
    assert not await is_accepted(issuer, later)


async def test_a_refresh_token_is_bound_to_its_client(
    issuer: IssuerHarness, client: ClientUnderTest
) -> None:
    """RFC 6749, section 6 and 10.4; a foreign client neither spends nor ends it."""
    await issuer.create_user("alice", PASSWORD)
    alice = await log_in(issuer)
    form = {"grant_type": "refresh_token", "refresh_token": alice.refresh_token}
    answer = await client.post("/oauth2/token", **form)
    assert is_refused(answer, 400, "invalid_grant")
    assert await read_feed(issuer) == []
    async with issuer.database.write() as db:
        await db.execute(update(RefreshFamily).values(client_id=client.id))
    answer = await ask(issuer, **form, **FIRST_PARTY)
    assert is_refused(answer, 400, "invalid_grant")


async def test_a_refresh_must_name_its_client(issuer: IssuerHarness) -> None:
    await issuer.create_user("alice", PASSWORD)
    form = {
        "grant_type": "refresh_token",
        "refresh_token": (await log_in(issuer)).refresh_token,
    }
    for more in ({}, {"client_id": "gc_1"}, {**FIRST_PARTY, "client_secret": "x"}):
        answer = await ask(issuer, **form, **more)
        assert is_refused(answer, 401, "invalid_client")
    assert (await ask(issuer, **form, **FIRST_PARTY)).status_code == 200


async def test_an_access_token_may_be_narrower_than_its_session(
    issuer: IssuerHarness,
) -> None:
    """RFC 6749, section 6: the new refresh token keeps the whole scope."""
    await add_role(issuer, "clerk", "orders:read orders:write")
    await issuer.create_user("alice", PASSWORD, ["clerk"])
    alice = await log_in(issuer)
    form = {"grant_type": "refresh_token", **FIRST_PARTY}
    more = await ask(
        issuer, refresh_token=alice.refresh_token, scope="orders:delete", **form
    )
    assert is_refused(more, 400, "invalid_scope")
    # The refusal has spent nothing.
    less = await ask(
        issuer, refresh_token=alice.refresh_token, scope="orders:read", **form
    )
    assert less.json()["scope"] == "orders:read"
    assert read_segment(less.json()["access_token"], 1)["scope"] == "orders:read"
    whole = await ask(issuer, refresh_token=less.json()["refresh_token"], **form)
    assert whole.json()["scope"] == "orders:read orders:write"


# --- password ----------------------------------------------------------------------


async def test_passwords_are_accepted_only_with_the_setting(
    issuer: IssuerHarness,
) -> None:
    """RFC 9700, section 2.4."""
    await issuer.create_user("alice", PASSWORD)
    answer = await ask(
        issuer,
        grant_type="password",
        username="alice",
        password=PASSWORD,
        **FIRST_PARTY,
    )
    assert is_refused(answer, 400, "unsupported_grant_type")
    metadata = (await read_metadata(issuer)).json()
    assert "password" not in metadata["grant_types_supported"]


async def test_a_password_opens_a_session_where_it_is_switched_on(
    open_issuer: IssuerHarness,
) -> None:
    """RFC 6749, section 4.3."""
    await open_issuer.create_user("alice", PASSWORD)
    form = {"grant_type": "password", "username": "alice", **FIRST_PARTY}
    alice = read_tokens(await ask(open_issuer, **form, password=PASSWORD))
    assert await is_accepted(open_issuer, alice)
    wrong = await ask(open_issuer, **form, password="wrong horse battery")
    assert is_refused(wrong, 400, "invalid_grant")
    assert "WWW-Authenticate" not in wrong.headers
    missing = await ask(open_issuer, **form)
    assert is_refused(missing, 400, "invalid_request")
    metadata = (await read_metadata(open_issuer)).json()
    assert "password" in metadata["grant_types_supported"]


async def test_passwords_are_for_the_first_party_alone(
    open_issuer: IssuerHarness,
) -> None:
    await open_issuer.create_user("alice", PASSWORD)
    client = await create_client(open_issuer)
    answer = await client.post(
        "/oauth2/token", grant_type="password", username="alice", password=PASSWORD
    )
    assert is_refused(answer, 400, "unauthorized_client")


# --- audiences ---------------------------------------------------------------------


async def test_a_client_names_the_audience_of_its_token(issuer: IssuerHarness) -> None:
    """RFC 8707: exactly one audience a token, and only one of the client's."""
    first, second = "https://a.example", "https://b.example"
    client = await create_client(issuer, ["orders:read"], [first, second])
    token = await client.get_token(resource=second)
    assert read_segment(token, 1)["aud"] == second
    shown = await client.introspect(token)
    assert (shown["active"], shown["aud"]) == (True, second)
    for form in ({}, {"resource": "https://c.example"}, {"audience": "api"}):
        answer = await client.post(
            "/oauth2/token", grant_type="client_credentials", **form
        )
        assert is_refused(answer, 400, "invalid_target")
    assert (await client.post("/oauth2/revoke", token=token)).status_code == 200
    assert await client.introspect(token) == {"active": False}


async def test_a_token_for_another_api_opens_nothing_here(
    issuer: IssuerHarness,
) -> None:
    """RFC 9068, section 4: the issuer's own endpoints are an API like any other."""
    client = await create_client(
        issuer, ["gatehouse:admin"], ["https://a.example", "api"]
    )
    for audience, status in (("https://a.example", 401), ("api", 200)):
        token = await client.get_token(audience=audience)
        headers = {"Authorization": f"Bearer {token}"}
        answer = await issuer.client.get("/clients", headers=headers)
        assert answer.status_code == status


# --- the letter --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (b'{"grant_type":"client_credentials"}', "application/json"),
        (b"grant_type=client_credentials", "text/plain"),
        (b"grant_type=client_credentials", None),
        (b"grant_type=a&grant_type=client_credentials", "form"),
        (b"grant_type=client_credentials&scope=a&scope=b", "form"),
        (b"grant_type=client_credentials&x=1&x=2", "form"),
        (b"grant_type=%zz", "form"),
        (b"grant_type=%ff", "form"),
        (b"grant_type=", "form"),
        (b"", "form"),
    ],
)
@pytest.mark.parametrize(
    "path", ["/oauth2/token", "/oauth2/revoke", "/oauth2/introspect"]
)
async def test_only_a_form_with_each_parameter_once_is_read(
    issuer: IssuerHarness,
    client: ClientUnderTest,
    path: str,
    content: bytes,
    media_type: str | None,
) -> None:
    """RFC 6749, section 3.2."""
    form = "application/x-www-form-urlencoded"
    headers = {}
    if media_type is not None:
        headers["Content-Type"] = form if media_type == "form" else media_type
    answer = await issuer.client.post(
        path, content=content, headers=headers, auth=(client.id, client.secret)
    )
    assert is_refused(answer, 400, "invalid_request")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Pragma"] == "no-cache"


async def test_unknown_parameters_are_ignored_and_a_query_counts_for_nothing(
    issuer: IssuerHarness, client: ClientUnderTest
) -> None:
    """RFC 6749, sections 3.2 and 2.3.1: credentials never stand in a URL."""
    assert await client.get_token(unknown="x", scope="", audience="")
    answer = await issuer.client.post(
        f"/oauth2/token?client_id={client.id}&client_secret={client.secret}",
        data={"grant_type": "client_credentials"},
    )
    assert is_refused(answer, 401, "invalid_client")
    assert (await issuer.client.get("/oauth2/token")).status_code == 405


@pytest.mark.parametrize(
    "form",
    [
        {"client_id": "gatehouse"},
        {"client_id": "gatehouse", "client_secret": "x"},
    ],
)
async def test_the_first_party_has_no_credentials_of_its_own(
    issuer: IssuerHarness, form: Mapping[str, str]
) -> None:
    answer = await ask(issuer, grant_type="client_credentials", **form)
    assert is_refused(answer, 401, "invalid_client")
    assert answer.headers["WWW-Authenticate"].startswith("Basic ")
    answer = await issuer.client.post("/oauth2/introspect", data={"token": "x", **form})
    assert is_refused(answer, 401, "invalid_client")


async def test_the_first_party_may_revoke_its_own_token(
    issuer: IssuerHarness, client: ClientUnderTest
) -> None:
    """RFC 7009, section 2.1: a public client shows the token it was given."""
    await issuer.create_user("alice", PASSWORD)
    alice = await log_in(issuer)
    form = {"token": await client.get_token(), **FIRST_PARTY}
    foreign = await issuer.client.post("/oauth2/revoke", data=form)
    assert is_refused(foreign, 400, "invalid_grant")
    form["token"] = alice.refresh_token
    assert (await issuer.client.post("/oauth2/revoke", data=form)).status_code == 200
    assert await read_feed(issuer) == [("sid", alice.sid, 0)]


# --- metadata ----------------------------------------------------------------------


async def read_metadata(issuer: IssuerHarness, **headers: str) -> httpx.Response:
    return await issuer.client.get(
        "/.well-known/oauth-authorization-server", headers=headers
    )


async def test_the_metadata_lists_the_endpoints(issuer: IssuerHarness) -> None:
    """RFC 8414, section 2; the issuer exactly as in tokens, never from `Host` (R37)."""
    answer = await read_metadata(issuer, Host="evil.example")
    assert answer.headers["Content-Type"] == "application/json"
    shown: dict[str, Any] = answer.json()
    assert shown["issuer"] == issuer.settings.url
    assert shown["grant_types_supported"] == [
        "client_credentials",
        "refresh_token",
        "urn:ietf:params:oauth:grant-type:token-exchange",
    ]
    for name, url in shown.items():
        if name.endswith(("_endpoint", "_uri")):
            assert url.startswith(issuer.settings.url + "/"), name
            path = url.removeprefix(issuer.settings.url)
            probe = await issuer.client.post(path, data={})
            assert probe.status_code != 404, name
    assert (await issuer.client.head(answer.request.url.path)).status_code == 200


@pytest.mark.parametrize("path", ["", "/tenant"])
async def test_the_metadata_is_at_the_standard_address(
    sqlite_url: str, path: str
) -> None:
    """RFC 8414, section 3.1: the issuer's own path goes behind the well-known one."""
    url = f"https://issuer.test{path}"
    async with running_issuer(make_settings(sqlite_url, url=url)) as issuer:
        answer = await issuer.client.get(
            f"https://issuer.test/.well-known/oauth-authorization-server{path}"
        )
        assert answer.status_code == 200
        assert answer.json()["issuer"] == url
