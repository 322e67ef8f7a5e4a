"""`/clients`: programs as administrators keep them."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import httpx
import pytest

from issuer.clients.client_secrets import is_secret
from tests.support.issuer_harness import IssuerHarness
from tests.support.issuer_story import (
    PASSWORD,
    Tokens,
    log_in,
    read_audit,
    read_feed,
    read_segment,
)
from tests.support.oauth_clients import (
    ClientUnderTest,
    create_client,
    is_refused,
    log_in_admin,
)

WISH = {
    "name": "order import",
    "scopes": ["orders:write", "orders:read"],
    "audiences": ["https://orders.example"],
}


class Administrator:
    """An administrator who asks about clients."""

    def __init__(self, issuer: IssuerHarness, tokens: Tokens) -> None:
        self._issuer = issuer
        self.subject = str(tokens.claims["sub"])
        self._headers = tokens.bearer

    async def ask(
        self, method: str, path: str, tag: str | None = None, **more: Any
    ) -> httpx.Response:
        headers = self._headers | ({} if tag is None else {"If-Match": tag})
        headers |= more.pop("headers", {})
        return await self._issuer.client.request(method, path, headers=headers, **more)

    async def make(self, **changes: object) -> tuple[dict[str, Any], ClientUnderTest]:
        answer = await self.ask("POST", "/clients", json=WISH | changes)
        assert answer.status_code == 201, answer.text
        shown = answer.json()
        secret = shown.pop("client_secret")
        return shown, ClientUnderTest(self._issuer, shown["id"], secret)

    async def read_tag(self, client_id: str) -> str:
        return (await self.ask("GET", f"/clients/{client_id}")).headers["ETag"]


@pytest.fixture
async def admin(issuer: IssuerHarness) -> Administrator:
    return Administrator(issuer, await log_in_admin(issuer))


async def test_a_client_is_made_and_its_secret_is_shown_once(
    issuer: IssuerHarness, admin: Administrator
) -> None:
    shown, client = await admin.make()
    assert is_secret(client.secret)
    assert re.fullmatch(r"ghs_[0-9A-Za-z_-]{48}", client.secret)
    again = await admin.ask("GET", f"/clients/{client.id}")
    assert (
        again.json()
        == shown
        == {
            "id": client.id,
            "name": "order import",
            "scopes": ["orders:read", "orders:write"],
            "audiences": ["https://orders.example"],
            "is_disabled": False,
            "created_at": issuer.clock.now,
            "version": 1,
            "secrets": [{"number": 1, "created_at": issuer.clock.now}],
        }
    )
    claims = read_segment(await client.get_token(scope="orders:read"), 1)
    assert (claims["aud"], claims["scope"]) == ("https://orders.example", "orders:read")
    (event,) = await read_audit(issuer, "client.created")
    assert event["actor"] == admin.subject


async def test_clients_are_hidden_from_callers_without_the_administrator_role(
    issuer: IssuerHarness, admin: Administrator
) -> None:
    _, client = await admin.make()
    await issuer.create_user("alice", PASSWORD)
    alice = Administrator(issuer, await log_in(issuer))
    path = f"/clients/{client.id}"
    for method, where in (
        ("POST", "/clients"),
        ("GET", "/clients"),
        ("GET", path),
        ("PATCH", path),
        ("DELETE", path),
        ("POST", f"{path}/disable"),
        ("POST", f"{path}/enable"),
        ("DELETE", f"{path}/tokens"),
        ("POST", f"{path}/secrets"),
        ("DELETE", f"{path}/secrets/1"),
    ):
        body = {"json": WISH} if method in {"POST", "PATCH"} else {}
        answer = await alice.ask(method, where, **body)
        assert answer.status_code == 403, (method, where)
        stranger = await issuer.client.request(method, where, **body)
        assert stranger.status_code == 401, (method, where)
    assert await client.get_token()


async def test_clients_are_listed_page_by_page(
    issuer: IssuerHarness, admin: Administrator
) -> None:
    made = []
    for number in range(5):
        made.append((await admin.make(name=f"client {number}"))[0])
        # Two of the same second: the id decides.
        issuer.clock.advance(number % 2)
    seen: list[dict[str, Any]] = []
    query = {"limit": "2"}
    while True:
        page = (await admin.ask("GET", "/clients", params=query)).json()
        seen += page["clients"]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert len(seen) == 5
    assert sorted(made, key=lambda shown: (shown["created_at"], shown["id"])) == seen


@pytest.mark.parametrize(
    "query",
    [{"limit": "0"}, {"limit": "101"}, {"cursor": "x"}, {"cursor": "MS54"}, {"a": "b"}],
)
async def test_a_malformed_query_is_refused(
    admin: Administrator, query: dict[str, str]
) -> None:
    assert (await admin.ask("GET", "/clients", params=query)).status_code == 400


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"name": ""}, 400),
        ({"name": "a\u202eb"}, 400),
        ({"scopes": ["a b"]}, 400),
        ({"scopes": "a"}, 400),
        ({"audiences": ["a b"]}, 400),
        ({"audiences": [f"a{n}" for n in range(21)]}, 400),
        ({"secret": "x"}, 400),
    ],
)
async def test_a_malformed_client_is_refused(
    admin: Administrator, changes: dict[str, object], status: int
) -> None:
    answer = await admin.ask("POST", "/clients", json=WISH | changes)
    assert answer.status_code == status, answer.text


async def test_a_change_needs_the_current_entity_tag(
    issuer: IssuerHarness, admin: Administrator
) -> None:
    """RFC 9110, section 13.1.1: a change never undoes an unseen change of another."""
    _, client = await admin.make()
    path = f"/clients/{client.id}"
    tag = await admin.read_tag(client.id)
    assert (await admin.ask("PATCH", path, json={"name": "x"})).status_code == 428
    answer = await admin.ask("PATCH", path, tag, json={"name": "renamed"})
    assert answer.status_code == 200
    assert answer.json()["name"] == "renamed"
    assert answer.json()["version"] == 2
    assert "revocation" not in answer.json()
    late = await admin.ask("PATCH", path, tag, json={"name": "late"})
    assert late.status_code == 412
    again = await admin.ask(
        "PATCH", path, answer.headers["ETag"], json={"scopes": ["orders:read", "a"]}
    )
    assert again.status_code == 200
    assert (await admin.ask("PATCH", path, tag, json={"x": 1})).status_code == 400
    # Nothing that was sent with a stale tag has happened.
    assert (await admin.ask("GET", path)).json()["name"] == "renamed"


async def test_one_of_two_concurrent_changes_wins(
    admin: Administrator,
) -> None:
    _, client = await admin.make()
    tag = await admin.read_tag(client.id)
    path = f"/clients/{client.id}"
    answers = await asyncio.gather(
        *(admin.ask("PATCH", path, tag, json={"name": f"name {n}"}) for n in range(4))
    )
    assert sorted(answer.status_code for answer in answers) == [200, 412, 412, 412]


@pytest.mark.parametrize(
    ("change", "is_revoking"),
    [
        ({"scopes": ["orders:read"]}, True),
        ({"audiences": []}, True),
        ({"audiences": ["https://other.example"]}, True),
        ({"scopes": ["orders:read", "orders:write", "more"]}, False),
        ({"audiences": ["https://orders.example", "api"]}, False),
        ({"name": "another"}, False),
    ],
)
async def test_removed_rights_are_removed_from_living_tokens_too(
    issuer: IssuerHarness,
    admin: Administrator,
    change: dict[str, object],
    is_revoking: bool,
) -> None:
    _, client = await admin.make()
    token = await client.get_token()
    tag = await admin.read_tag(client.id)
    answer = await admin.ask(
        "PATCH", f"/clients/{client.id}", tag, json=change, headers={"Prefer": "wait=1"}
    )
    assert answer.status_code == 200, answer.text
    expected = [("client", client.id, 1)] if is_revoking else []
    assert await read_feed(issuer) == expected
    if is_revoking:
        assert answer.json()["revocation"]["confirmed"] is True
    assert (await client.introspect(token))["active"] is not is_revoking
    # What it gets from now on counts.
    later = await client.get_token()
    assert (await client.introspect(later))["active"] is True


async def test_a_disabled_client_is_out_at_once_and_comes_back_without_its_tokens(
    issuer: IssuerHarness, admin: Administrator
) -> None:
    inspector = await create_client(issuer, ["gatehouse:introspect"])
    _, client = await admin.make()
    token = await client.get_token()
    answer = await admin.ask(
        "POST", f"/clients/{client.id}/disable", headers={"Prefer": "wait=1"}
    )
    assert answer.json()["revoked"] is True
    assert answer.json()["confirmed"] is True
    assert answer.headers["Preference-Applied"] == "wait=1"
    assert await read_feed(issuer) == [("client", client.id, 1)]
    refused = await client.post("/oauth2/token", grant_type="client_credentials")
    assert is_refused(refused, 401, "invalid_client")
    assert await inspector.introspect(token) == {"active": False}
    assert (await admin.ask("POST", f"/clients/{client.id}/enable")).status_code == 200
    assert await inspector.introspect(token) == {"active": False}
    later = await client.get_token()
    assert (await inspector.introspect(later))["active"] is True


async def test_a_deleted_client_is_gone_with_its_tokens(
    issuer: IssuerHarness, admin: Administrator
) -> None:
    inspector = await create_client(issuer, ["gatehouse:introspect"])
    _, client = await admin.make()
    token = await client.get_token()
    path = f"/clients/{client.id}"
    assert (await admin.ask("DELETE", path, '"stale"')).status_code == 412
    answer = await admin.ask("DELETE", path, headers={"Prefer": "wait=1"})
    assert answer.json()["confirmed"] is True
    assert await read_feed(issuer) == [("client", client.id, 1)]
    assert await inspector.introspect(token) == {"active": False}
    refused = await client.post("/oauth2/token", grant_type="client_credentials")
    assert is_refused(refused, 401, "invalid_client")
    assert (await admin.ask("GET", path)).status_code == 404
    assert (await admin.ask("DELETE", path)).status_code == 404
    (event,) = await read_audit(issuer, "client.deleted")
    assert event["actor"] == admin.subject


async def test_all_tokens_of_a_client_are_withdrawn_by_one_call(
    issuer: IssuerHarness, admin: Administrator
) -> None:
    _, client = await admin.make()
    token = await client.get_token()
    answer = await admin.ask("DELETE", f"/clients/{client.id}/tokens")
    assert answer.json() == {"revoked": True, "position": 1}
    assert await client.introspect(token) == {"active": False}
    assert (await client.introspect(await client.get_token()))["active"] is True


async def test_a_secret_is_exchanged_without_a_gap(
    issuer: IssuerHarness, admin: Administrator
) -> None:
    _, client = await admin.make()
    path = f"/clients/{client.id}"
    answer = await admin.ask("POST", f"{path}/secrets")
    assert answer.status_code == 201
    assert answer.json()["number"] == 2
    newer = ClientUnderTest(issuer, client.id, answer.json()["client_secret"])
    assert await client.get_token()
    assert await newer.get_token()
    assert (await admin.ask("POST", f"{path}/secrets")).status_code == 409
    assert (await admin.ask("DELETE", f"{path}/secrets/1")).status_code == 204
    refused = await client.post("/oauth2/token", grant_type="client_credentials")
    assert is_refused(refused, 401, "invalid_client")
    assert await newer.get_token()
    # A number is never given again: a removal that is repeated removes nothing else.
    third = await admin.ask("POST", f"{path}/secrets")
    assert third.json()["number"] == 3
    assert (await admin.ask("DELETE", f"{path}/secrets/1")).status_code == 404
    numbers = (await admin.ask("GET", path)).json()["secrets"]
    assert [secret["number"] for secret in numbers] == [2, 3]


async def test_concurrent_requests_leave_two_living_secrets(
    admin: Administrator,
) -> None:
    _, client = await admin.make()
    path = f"/clients/{client.id}"
    answers = await asyncio.gather(
        *(admin.ask("POST", f"{path}/secrets") for _ in range(5))
    )
    assert sorted(a.status_code for a in answers) == [201, 409, 409, 409, 409]
    assert len((await admin.ask("GET", path)).json()["secrets"]) == 2


@pytest.mark.parametrize("client_id", ["gc_0", "x", "gc_" + "0" * 32, "gc_" + "Z" * 32])
async def test_an_unknown_client_is_not_found_or_malformed(
    admin: Administrator, client_id: str
) -> None:
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/secrets")):
        answer = await admin.ask(method, f"/clients/{client_id}{path}")
        assert answer.status_code in {400, 404}
