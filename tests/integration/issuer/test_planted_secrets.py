"""Secrets that were planted come to light where they must, and nowhere else (R35)."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

import httpx
import orjson
import pytest
from sqlalchemy import Connection, select

from issuer.settings.issuer_settings import KeyRing
from issuer.storage.tables.base import Base
from shared.jose import base64url
from shared.log import JsonFormatter
from tests.support.issuer_harness import FEED_TOKEN, IssuerHarness
from tests.support.issuer_story import log_in, post_login, post_refresh
from tests.support.login_story import begin_login, end_login, enrol, log_in_admin

PASSWORD = "planted-password-Zq7vN2"
WRONG_PASSWORD = "planted-wrong-password-8Jw"
NEW_PASSWORD = "planted-new-password-x4Tb"


@dataclass
class Planted:
    """Secrets by name, and the paths that may show them."""

    secrets: dict[str, str] = field(default_factory=dict)
    shown_by: dict[str, set[str]] = field(default_factory=dict)

    def plant(self, name: str, secret: str, *shown_by: str) -> str:
        self.secrets[name] = secret
        self.shown_by[name] = set(shown_by)
        return secret


@dataclass
class Answers:
    """Every answer of the issuer, as text by path."""

    seen: list[tuple[str, str]] = field(default_factory=list)

    async def __call__(self, response: httpx.Response) -> None:
        await response.aread()
        text = f"{response.headers} {response.text}"
        self.seen.append((response.request.url.path, text))


@pytest.fixture
def answers(issuer: IssuerHarness) -> Answers:
    answers = Answers()
    for client in (issuer.client, issuer.operators):
        client.event_hooks = {"response": [answers]}
    return answers


def plant_settings(planted: Planted, issuer: IssuerHarness) -> None:
    planted.plant("feed token", FEED_TOKEN)
    rings: dict[str, KeyRing] = {
        "key-encryption key": issuer.settings.key_encryption_keys,
        "pepper": issuer.settings.password_peppers,
        "refresh key": issuer.settings.refresh_keys,
    }
    for name, ring in rings.items():
        planted.plant(name, base64url.encode(ring.current))


async def live_through_it(issuer: IssuerHarness, planted: Planted) -> None:
    """Use everything that carries a secret, rightly and wrongly."""
    plant = planted.plant
    for name, password in (
        ("password", PASSWORD),
        ("wrong password", WRONG_PASSWORD),
        ("new password", NEW_PASSWORD),
    ):
        plant(name, password)
    user = await issuer.create_user("alice", PASSWORD)
    tokens = await log_in(issuer, "alice", PASSWORD)
    plant("access token", tokens.access_token, "/auth/login")
    plant("refresh token", tokens.refresh_token, "/auth/login")
    await post_login(issuer, "alice", WRONG_PASSWORD)
    await post_login(issuer, WRONG_PASSWORD, WRONG_PASSWORD)
    device = await enrol(issuer, tokens, PASSWORD)
    plant("TOTP secret", device.secret, "/auth/second-factor/enrolment")
    for code in device.recovery_codes:
        plant(code, code, "/auth/second-factor/confirmation")
    challenge = await begin_login(issuer, "alice", PASSWORD)
    plant("challenge", challenge, "/auth/login")
    await end_login(issuer, challenge, device.wrong_code())
    await end_login(issuer, challenge, device.recovery_codes[0])
    await end_login(issuer, challenge, device.recovery_codes[1])
    await post_refresh(issuer, tokens.refresh_token)
    issuer.clock.advance(60)
    await post_refresh(issuer, tokens.refresh_token)  # a replay
    await post_refresh(issuer, tokens.refresh_token + "x")
    admin = await log_in_admin(issuer)
    path = f"/users/{user.id}/password-reset"
    reset = (await issuer.client.post(path, headers=admin.bearer)).json()["reset_token"]
    plant("reset token", reset, path)
    for password in ("short", NEW_PASSWORD, NEW_PASSWORD):
        body = {"reset_token": reset, "new_password": password}
        await issuer.client.post("/auth/password-reset", json=body)
    for broken in (f'{{"password": "{PASSWORD}"', f'{{"{PASSWORD}": "{reset}"}}'):
        for path in ("/auth/login", "/auth/password-reset", "/auth/second-factor"):
            await issuer.client.post(
                path, content=broken, headers={"Content-Type": "application/json"}
            )
    for path in ("/auth/sessions", "/users/me", "/users", "/openapi.json"):
        await issuer.client.get(path, headers=admin.bearer)
    for path in ("/metrics", "/readyz", "/healthz"):
        await issuer.operators.get(path)


async def test_planted_secrets_are_in_no_answer_log_or_metric(
    issuer: IssuerHarness, answers: Answers, caplog: pytest.LogCaptureFixture
) -> None:
    """R35: each answer that must show one shows it, and no other does."""
    caplog.set_level(logging.DEBUG)
    planted = Planted()
    plant_settings(planted, issuer)
    await live_through_it(issuer, planted)
    formatter = JsonFormatter("issuer")
    logged = " ".join(
        f"{formatter.format(record)} {record.__dict__}" for record in caplog.records
    )
    assert logged
    for name, secret in planted.secrets.items():
        showing = {path for path, text in answers.seen if secret in text}
        assert showing == planted.shown_by[name], name
        assert secret not in logged, name


async def test_planted_secrets_are_not_in_the_database(issuer: IssuerHarness) -> None:
    """R31, R35: digests and ciphertexts alone."""
    planted = Planted()
    plant_settings(planted, issuer)
    await live_through_it(issuer, planted)

    def dump(connection: Connection) -> str:
        tables = Base.metadata.sorted_tables
        rows = [connection.execute(select(table)).all() for table in tables]
        return str(rows)

    async with issuer.database.read() as db:
        dumped = await (await db.connection()).run_sync(dump)
    assert orjson.dumps("alice").decode().strip('"') in dumped
    for name, secret in planted.secrets.items():
        assert secret not in dumped, name
