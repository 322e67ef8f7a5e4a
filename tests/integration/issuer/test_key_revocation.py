"""A compromised key: out of the JWKS and out of every gate at once, and another
signs.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from sqlalchemy import select

from issuer.acts import Caller
from issuer.composition import compose
from issuer.errors import UnavailableError
from issuer.settings.issuer_settings import KeyRing
from issuer.storage.tables.keys import SigningKey
from tests.support.following import FakeVerifier
from tests.support.issuer_harness import IssuerHarness, make_settings, running_issuer
from tests.support.issuer_story import (
    PASSWORD,
    is_accepted,
    log_in,
    read_audit,
    read_feed,
)

ROOT = Path(__file__).resolve().parents[3]
ABSENT = "A" * 43


async def admin(issuer: IssuerHarness) -> dict[str, str]:
    await issuer.issuer.accounts.users.create_admin("root", PASSWORD, caller=Caller())
    return (await log_in(issuer, "root")).bearer


async def states(issuer: IssuerHarness) -> dict[str, str]:
    async with issuer.database.read() as db:
        rows = await db.execute(select(SigningKey.kid, SigningKey.state))
        return {row.kid: row.state for row in rows}


async def published(issuer: IssuerHarness) -> list[str]:
    answer = await issuer.client.get("/.well-known/jwks.json")
    return [jwk["kid"] for jwk in answer.json()["keys"]]


async def test_the_active_key_is_replaced_by_a_new_one_at_once(
    issuer: IssuerHarness,
) -> None:
    bearer = await admin(issuer)
    tokens = await log_in(issuer, "root")
    (stolen,) = await published(issuer)
    answer = await issuer.client.post(f"/keys/{stolen}/revoke", headers=bearer)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"revoked": True, "position": 1}
    (new,) = await published(issuer)
    assert await states(issuer) == {stolen: "gone", new: "active"}
    assert await read_feed(issuer) == [("kid", stolen, 0)]
    assert not await is_accepted(issuer, tokens)
    assert await is_accepted(issuer, await log_in(issuer, "root"))
    (row,) = await read_audit(issuer, "key.revoked")
    assert (row["subject"], row["address"]) == (stolen, "192.0.2.7")
    async with issuer.database.read() as db:
        assert (await db.get_one(SigningKey, stolen)).private_encrypted is None


async def test_the_published_next_key_takes_over(issuer: IssuerHarness) -> None:
    bearer = await admin(issuer)
    await issuer.issuer.keys.rotation.rotate(actor="system")
    stolen, following = await published(issuer)
    await issuer.client.post(f"/keys/{stolen}/revoke", headers=bearer)
    assert await states(issuer) == {stolen: "gone", following: "active"}


async def test_a_next_key_is_withdrawn_without_harm(issuer: IssuerHarness) -> None:
    bearer = await admin(issuer)
    await issuer.issuer.keys.rotation.rotate(actor="system")
    active, stolen = await published(issuer)
    await issuer.client.post(f"/keys/{stolen}/revoke", headers=bearer)
    assert await states(issuer) == {active: "active", stolen: "gone"}
    again = await issuer.client.post(f"/keys/{stolen}/revoke", headers=bearer)
    assert again.status_code == 200


async def test_the_caller_may_wait_until_every_verifier_has_closed(
    issuer: IssuerHarness,
) -> None:
    bearer = await admin(issuer)
    verifier = FakeVerifier(issuer)
    await verifier.catch_up()
    (stolen,) = await published(issuer)
    async with verifier.following():
        answer = await issuer.client.post(
            f"/keys/{stolen}/revoke", headers=bearer | {"Prefer": "wait=10"}
        )
    assert answer.json()["confirmed"] is True
    assert answer.headers["Preference-Applied"] == "wait=10"


async def test_only_administrators_and_only_keys_there_are(
    issuer: IssuerHarness,
) -> None:
    bearer = await admin(issuer)
    for kid, status in ((ABSENT, 404), ("x", 400), ("%00" * 43, 400)):
        answer = await issuer.client.post(f"/keys/{kid}/revoke", headers=bearer)
        assert answer.status_code == status, answer.text
    assert (await issuer.client.post(f"/keys/{ABSENT}/revoke")).status_code == 401
    await issuer.create_user("alice", PASSWORD)
    person = (await log_in(issuer)).bearer
    for answer in (
        await issuer.client.get("/keys", headers=person),
        await issuer.client.post(f"/keys/{ABSENT}/revoke", headers=person),
    ):
        assert answer.status_code == 403


async def test_the_list_has_states_and_ages_and_no_private_part(
    issuer: IssuerHarness,
) -> None:
    bearer = await admin(issuer)
    await issuer.issuer.keys.rotation.rotate(actor="system")
    answer = await issuer.client.get("/keys", headers=bearer)
    body = answer.json()
    shown = [(key["state"], key["age"], key["kek_id"]) for key in body["keys"]]
    assert shown == [("next", 0, "k1"), ("active", 86_400, "k1")]
    members = "kid state age created_at activated_at retired_at gone_at kek_id"
    assert all(key.keys() == set(members.split()) for key in body["keys"])
    assert (body["followers_behind"], body["followers_silent"]) == (0, 0)


async def test_two_that_revoke_the_active_key_at_once_leave_one_active(
    database_url: str,
) -> None:
    settings = make_settings(database_url)
    async with running_issuer(settings) as one, running_issuer(settings) as other:
        (stolen,) = await published(one)
        revoke = [each.issuer.revoking.revocations.revoke_key for each in (one, other)]
        await asyncio.gather(*(act(stolen, Caller(), actor="x") for act in revoke))
        found = await states(one)
        assert found.pop(stolen) == "gone"
        assert list(found.values()) == ["active"]


@pytest.mark.processes
@pytest.mark.postgres
async def test_processes_that_rotate_at_once_leave_one_active_key(
    postgres_url: str,
) -> None:
    settings = make_settings(postgres_url)
    env = {
        "PYTHONPATH": str(ROOT),
        "ISSUER_URL": settings.url,
        "ISSUER_AUDIENCE": settings.audience,
        "ISSUER_DATABASE_URL": postgres_url,
        "ISSUER_FEED_TOKEN": settings.feed_token.get_secret_value(),
        "ISSUER_KEY_ENCRYPTION_KEYS": "k1:" + "AQEB" * 10 + "AQE",
        "ISSUER_PASSWORD_PEPPERS": "p1:" + "AgIC" * 10 + "AgI",
        "ISSUER_REFRESH_KEYS": "r1:" + "AwMD" * 10 + "AwM",
    }
    command = (sys.executable, "-m", "issuer", "rotate-keys", "--now")
    processes = [
        await asyncio.create_subprocess_exec(*command, env=env) for _ in range(3)
    ]
    assert [await process.wait() for process in processes] == [0, 0, 0]
    async with running_issuer(settings) as issuer:
        found = list((await states(issuer)).values())
        assert found.count("active") == 1
        assert "next" not in found


async def test_private_halves_move_to_the_present_encryption_key(
    database_url: str,
) -> None:
    both = KeyRing(k2=b"\x09" * 32, k1=b"\x01" * 32)
    async with running_issuer(make_settings(database_url)) as issuer:
        await issuer.issuer.keys.rotation.rotate(actor="system")
        kid = (await issuer.issuer.keys.store.signing_key()).kid
        assert await issuer.issuer.keys.rotation.reencrypt(both, actor="system") == 2
        assert await issuer.issuer.keys.rotation.reencrypt(both, actor="system") == 0
    only = KeyRing(k2=b"\x09" * 32)
    later = compose(make_settings(database_url, key_encryption_keys=only))
    assert (await later.keys.store.signing_key()).kid == kid
    await later.close()


async def test_one_that_does_not_open_leaves_all_as_they_were(
    issuer: IssuerHarness,
) -> None:
    await issuer.issuer.keys.rotation.rotate(actor="system")
    only = KeyRing(k2=b"\x09" * 32)
    with pytest.raises(UnavailableError):
        await issuer.issuer.keys.rotation.reencrypt(only, actor="system")
    async with issuer.database.read() as db:
        assert set(await db.scalars(select(SigningKey.kek_id))) == {"k1"}
