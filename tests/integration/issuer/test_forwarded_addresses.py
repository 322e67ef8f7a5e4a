"""Logins through a gateway count for the client that the gateway names (R62)."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from sqlalchemy import select

from issuer.storage.tables.sessions import Session
from tests.support.issuer_harness import IssuerHarness, make_settings, running_issuer
from tests.support.issuer_story import PASSWORD
from tests.support.login_story import GATEWAY, HOME, fail_from, post_login_from


@pytest.fixture
async def issuer(database_url: str) -> AsyncIterator[IssuerHarness]:
    """An issuer behind a gateway, with Alice; 8 failures are free per source."""
    settings = make_settings(
        database_url, trusted_proxies=(GATEWAY,), login_source_free_failures=8
    )
    async with running_issuer(settings) as harness:
        await harness.create_user("alice", PASSWORD)
        yield harness


@pytest.mark.parametrize(
    ("attacker", "client"),
    [
        ("203.0.113.7:51234", "198.51.100.4:40000"),
        ("[2001:db8:1::7]:443", "[2001:db8:2::7]:443"),
        ("2001:db8:1::7", "198.51.100.4"),
        ("::ffff:203.0.113.7", "::ffff:198.51.100.4"),
    ],
)
async def test_r62_one_attackers_failures_do_not_slow_the_gateways_other_clients(
    issuer: IssuerHarness, attacker: str, client: str
) -> None:
    """authentik 25679, firezone 12270."""
    for number in range(8):
        await fail_from(issuer, attacker, 1, f"user{number}")
    assert (await post_login_from(issuer, attacker, "another")).status_code == 429
    assert (await post_login_from(issuer, client)).status_code == 200


async def test_r62_a_changing_port_is_the_same_source(issuer: IssuerHarness) -> None:
    for number in range(8):
        await fail_from(issuer, f"203.0.113.7:{50_000 + number}", 1, f"user{number}")
    answer = await post_login_from(issuer, "203.0.113.7:1", "another")
    assert answer.status_code == 429


async def test_r62_failures_through_a_gateway_without_client_address_delay_no_client(
    issuer: IssuerHarness,
) -> None:
    """A gateway that sends no header stands for all of its clients."""

    async def log_in(username: str, password: str) -> int:
        body = {"username": username, "password": password}
        return (await issuer.client.post("/auth/login", json=body)).status_code

    for number in range(12):
        assert await log_in(f"user{number}", "wrong horse battery") == 401
    assert await log_in("alice", PASSWORD) == 200


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("fe80::7%" + "z" * 64, "fe80::7"),
        ("[fe80::7%eth0]:443", "fe80::7"),
        ("203.0.113.7:51234", "203.0.113.7"),
        ("2001:db8:ffff:ffff:ffff:ffff:192.168.100.100", None),
    ],
)
async def test_r62_the_address_that_is_kept_has_neither_port_nor_zone(
    issuer: IssuerHarness, written: str, kept: str | None
) -> None:
    """A long zone did not fit into PostgreSQL's column: 500."""
    answer = await post_login_from(issuer, written)
    assert answer.status_code == 200, answer.text
    async with issuer.database.read() as db:
        found = (await db.scalars(select(Session.address))).all()
    assert found == [kept or "2001:db8:ffff:ffff:ffff:ffff:c0a8:6464"]


def is_refused(answer: httpx.Response) -> bool:
    shown = answer.json()
    detail = shown.get("detail") or shown.get("error_description")
    return answer.status_code == 400 and detail.startswith("X-Forwarded-For: ")


@pytest.mark.parametrize(
    "written",
    ["unknown", "_hidden", "", ",", "junk", "fe80::7%" + "z" * 500, "x" * 10_000],
    ids=lambda written: written[:12],
)
async def test_r62_an_unusable_header_of_the_gateway_is_a_400_that_names_it(
    issuer: IssuerHarness, written: str
) -> None:
    """No login, nothing is counted, and requests without a caller still work."""
    headers = {"X-Forwarded-For": written}
    assert is_refused(await post_login_from(issuer, written))
    answer = await issuer.client.post(
        "/oauth2/token", data={"grant_type": "client_credentials"}, headers=headers
    )
    assert is_refused(answer)
    assert answer.json()["error"] == "invalid_request"
    answer = await issuer.client.get("/.well-known/jwks.json", headers=headers)
    assert answer.status_code == 200
    async with issuer.database.read() as db:
        assert (await db.scalars(select(Session.sid))).all() == []
    assert (await post_login_from(issuer, HOME)).status_code == 200
