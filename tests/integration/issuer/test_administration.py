"""How a person logged in stands in the token, and administration may ask for more."""

from __future__ import annotations

import re
import time
from typing import Any

import httpx
from sqlalchemy import update

from issuer.storage.tables.sessions import Session
from tests.conformance.driver import verify
from tests.support.issuer_harness import (
    FakeClock,
    IssuerHarness,
    make_settings,
    running_issuer,
)
from tests.support.issuer_story import PASSWORD, Tokens, log_in, read_tokens, refresh
from tests.support.login_story import begin_login, end_login, enrol, log_in_admin
from tests.support.oauth_clients import create_client

PWD = {"amr": ["pwd"], "acr": "urn:gatehouse:acr:password"}
OTP = {"amr": ["pwd", "otp", "mfa"], "acr": "urn:gatehouse:acr:second-factor"}
RECOVERY = {"amr": ["pwd", "mfa"], "acr": "urn:gatehouse:acr:second-factor"}


def methods(claims: dict[str, Any]) -> dict[str, Any]:
    return {name: claims[name] for name in ("amr", "acr") if name in claims}


async def get_users(issuer: IssuerHarness, tokens: Tokens) -> httpx.Response:
    return await issuer.client.get("/users", headers=tokens.bearer)


async def log_in_by(issuer: IssuerHarness, code: str) -> Tokens:
    return read_tokens(await end_login(issuer, await begin_login(issuer, "root"), code))


async def test_tokens_name_the_way_of_logging_in_after_every_refresh(
    issuer: IssuerHarness,
) -> None:
    """RFC 8176; RFC 9068, section 2.2.1."""
    by_password = await log_in_admin(issuer)
    device = await enrol(issuer, by_password)
    by_code = await log_in_by(issuer, device.next_code())
    by_recovery = await log_in_by(issuer, device.recovery_codes[0])
    for tokens, said in (
        (by_password, PWD),
        (by_code, OTP),
        (by_recovery, RECOVERY),
    ):
        for _ in range(3):
            assert methods(tokens.claims) == said
            tokens = await refresh(issuer, tokens.refresh_token)


async def test_introspection_names_it_except_for_a_clients_own_token(
    issuer: IssuerHarness,
) -> None:
    """RFC 9470, section 6.2."""
    tokens = await log_in_admin(issuer)
    client = await create_client(issuer, ["gatehouse:introspect"])
    assert methods(await client.introspect(tokens.access_token)) == PWD
    own = await client.get_token()
    assert methods(await client.introspect(own)) == {}
    assert methods(Tokens(own, "").claims) == {}


async def test_a_session_of_an_older_program_names_no_way_of_logging_in(
    issuer: IssuerHarness,
) -> None:
    tokens = await log_in_admin(issuer)
    async with issuer.database.write() as db:
        await db.execute(update(Session).values(amr=None))
    assert methods((await refresh(issuer, tokens.refresh_token)).claims) == {}


async def test_the_verifier_accepts_tokens_that_name_it(sqlite_url: str) -> None:
    """R18: unknown members are ignored."""
    now = FakeClock(time.time_ns() // 1_000_000)
    async with running_issuer(make_settings(sqlite_url), now) as issuer:
        device = await enrol(issuer, await log_in_admin(issuer))
        tokens = await log_in_by(issuer, device.recovery_codes[0])
        jwks = (await issuer.client.get("/.well-known/jwks.json")).json()
    policy = {
        "iss": issuer.settings.url,
        "aud": issuer.settings.audience,
        "leeway": 60,
        "typ": ["at+jwt"],
        "algorithms": ["RS256"],
    }
    assert methods(tokens.claims) == RECOVERY
    assert verify(tokens.access_token, jwks, policy)


# --- Step-up (RFC 9470) ------------------------------------------------------------


def challenge_of(answer: httpx.Response) -> str:
    assert answer.status_code == 401, answer.text
    assert answer.json()["code"] == "insufficient_user_authentication"
    return answer.headers["WWW-Authenticate"]


async def test_administration_needs_a_recent_login_where_that_is_set(
    database_url: str,
) -> None:
    """RFC 9470: a refresh is no login; what is one's own needs none."""
    async with running_issuer(
        make_settings(database_url, admin_max_login_age=300)
    ) as issuer:
        tokens = await log_in_admin(issuer)
        issuer.clock.advance(300)
        assert (await get_users(issuer, tokens)).status_code == 200
        issuer.clock.advance(1)
        assert 'max_age="300"' in challenge_of(await get_users(issuer, tokens))
        again = await refresh(issuer, tokens.refresh_token)
        assert "acr_values" not in challenge_of(await get_users(issuer, again))
        own = await issuer.client.get("/users/me", headers=again.bearer)
        assert own.status_code == 200
        path = f"/users/{again.claims['sub']}"
        assert (await issuer.client.get(path, headers=again.bearer)).status_code == 200
        alice = await issuer.create_user("alice", PASSWORD)
        other = await issuer.client.get(f"/users/{alice.id}", headers=again.bearer)
        challenge_of(other)
        anew = await log_in(issuer, "root")
        assert (await get_users(issuer, anew)).status_code == 200


async def test_administration_needs_a_second_factor_where_that_is_set(
    sqlite_url: str,
) -> None:
    async with running_issuer(
        make_settings(sqlite_url, admin_second_factor=True)
    ) as issuer:
        tokens = await log_in_admin(issuer)
        output = challenge_of(await get_users(issuer, tokens))
        assert 'error="insufficient_user_authentication"' in output
        assert 'acr_values="urn:gatehouse:acr:second-factor"' in output
        assert "max_age" not in output
        # One's own account stays within reach, so a factor can be enrolled.
        device = await enrol(issuer, tokens)
        challenge_of(await get_users(issuer, tokens))
        for code in (device.next_code(), device.recovery_codes[0]):
            shown = await log_in_by(issuer, code)
            assert (await get_users(issuer, shown)).status_code == 200


async def test_any_living_login_administers_by_default(issuer: IssuerHarness) -> None:
    tokens = await log_in_admin(issuer)
    issuer.clock.advance(86_400)
    again = await refresh(issuer, tokens.refresh_token)
    assert (await get_users(issuer, again)).status_code == 200


async def test_a_clients_own_token_is_exempt(sqlite_url: str) -> None:
    settings = make_settings(
        sqlite_url, admin_max_login_age=60, admin_second_factor=True
    )
    async with running_issuer(settings) as issuer:
        client = await create_client(issuer, ["gatehouse:admin"])
        tokens = Tokens(await client.get_token(), "")
        issuer.clock.advance(120)
        assert (await get_users(issuer, tokens)).status_code == 200


async def test_no_new_login_is_required_without_the_scope(sqlite_url: str) -> None:
    settings = make_settings(sqlite_url, admin_second_factor=True)
    async with running_issuer(settings) as issuer:
        await issuer.create_user("alice", PASSWORD)
        answer = await get_users(issuer, await log_in(issuer))
        assert answer.status_code == 403


async def test_every_operation_of_administrators_requires_the_scope(
    sqlite_url: str,
) -> None:
    """None is left out: each that a narrow login may not call needs the step up."""
    settings = make_settings(sqlite_url, admin_second_factor=True)
    async with running_issuer(settings) as issuer:
        wide = await log_in_admin(issuer)
        await issuer.create_user("alice", PASSWORD)
        narrow = await log_in(issuer)
        document = (await issuer.client.get("/openapi.json")).json()
        asked = set()
        for path, operations in document["paths"].items():
            for method in operations:
                if path.startswith("/auth/"):
                    continue  # one's own; some end the session
                url = re.sub(r"\{[a-z_]+\}", UNKNOWN, path)
                call = issuer.client.request
                refused = await call(method, url, headers=narrow.bearer)
                if refused.status_code == 403:
                    challenge_of(await call(method, url, headers=wide.bearer))
                    asked.add((method, path))
    assert len(asked) > 25
    assert {("get", "/users"), ("get", "/audit"), ("get", "/users/{user_id}")} <= asked


UNKNOWN = "00000000-0000-4000-8000-000000000000"
