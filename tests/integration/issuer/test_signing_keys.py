"""The life of signing keys: first key, rotation, publication, at rest."""

from __future__ import annotations

import asyncio

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from sqlalchemy import delete, select, text, update
from sqlalchemy.exc import IntegrityError

from issuer.composition import compose
from issuer.errors import UnavailableError
from issuer.keys.encryption import decrypt_private_key, encrypt_private_key
from issuer.keys.key_changes import RETIRE_AFTER, KeyChange
from issuer.keys.store import KeyState
from issuer.settings.issuer_settings import KeyRing
from issuer.storage.tables.keys import SigningKey
from shared.jose.jwk import PRIVATE_MEMBERS, RsaPublicJwk
from tests.support.issuer_harness import (
    IssuerHarness,
    make_settings,
    running_issuer,
)


async def states(harness: IssuerHarness) -> dict[str, str]:
    async with harness.database.read() as db:
        rows = await db.execute(select(SigningKey.kid, SigningKey.state))
        return {row.kid: row.state for row in rows}


async def published(harness: IssuerHarness) -> list[str]:
    answer = await harness.client.get("/.well-known/jwks.json")
    return [jwk["kid"] for jwk in answer.json()["keys"]]


async def forget_all_keys(harness: IssuerHarness) -> None:
    async with harness.database.write() as db:
        await db.execute(delete(SigningKey))
    harness.issuer.keys.store.forget()


# --- the JWKS ------------------------------------------------------------------------


async def test_the_jwks_holds_public_members_only(issuer: IssuerHarness) -> None:
    answer = await issuer.client.get("/.well-known/jwks.json")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/jwk-set+json"
    (jwk,) = answer.json()["keys"]
    assert PRIVATE_MEMBERS.isdisjoint(jwk)
    signing_key = await issuer.issuer.keys.store.signing_key()
    assert RsaPublicJwk.from_wire(jwk).kid == signing_key.kid
    numbers = signing_key.private_key.public_key().public_numbers()
    assert RsaPublicJwk.from_wire(jwk).n == numbers.n


async def test_an_unchanged_jwks_is_not_sent_again(issuer: IssuerHarness) -> None:
    """RFC 9110, section 15.4.5: the 304 repeats ETag and Cache-Control."""
    first = await issuer.client.get("/.well-known/jwks.json")
    etag = first.headers["ETag"]
    assert etag.startswith('"')
    for condition in (etag, f'"other", {etag}', f"W/{etag}", "*"):
        again = await issuer.client.get(
            "/.well-known/jwks.json", headers={"If-None-Match": condition}
        )
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["ETag"] == etag
        assert again.headers["Cache-Control"] == first.headers["Cache-Control"]
    other = await issuer.client.get(
        "/.well-known/jwks.json", headers={"If-None-Match": '"other"'}
    )
    assert other.status_code == 200


async def test_the_jwks_may_be_cached_by_anybody(issuer: IssuerHarness) -> None:
    answer = await issuer.client.head("/.well-known/jwks.json")
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == (
        "public, max-age=300, stale-while-revalidate=60, stale-if-error=86400"
    )


async def test_the_metadata_names_every_endpoint_by_the_configured_url(
    issuer: IssuerHarness,
) -> None:
    """R37: nothing is built from Host. RFC 8414, section 3.3: issuer is exact."""
    answer = await issuer.client.get(
        "/.well-known/oauth-authorization-server", headers={"Host": "evil.example"}
    )
    metadata = answer.json()
    assert answer.headers["Content-Type"] == "application/json"
    assert metadata["issuer"] == issuer.settings.url
    assert metadata["response_types_supported"] == []
    assert metadata["jwks_uri"] == "https://issuer.test/.well-known/jwks.json"
    assert metadata["revocation_feed_uri"] == "https://issuer.test/revocations"
    assert "evil" not in answer.text


# --- the first key -------------------------------------------------------------------


async def test_two_processes_that_start_at_once_share_the_first_key(
    database_url: str,
) -> None:
    settings = make_settings(database_url)
    async with running_issuer(settings) as one, running_issuer(settings) as other:
        await forget_all_keys(one)
        await asyncio.gather(
            one.issuer.keys.store.ensure_active(),
            other.issuer.keys.store.ensure_active(),
        )
        assert list((await states(one)).values()) == ["active"]
        kid = (await one.issuer.keys.store.signing_key()).kid
        assert (await other.issuer.keys.store.signing_key()).kid == kid


async def test_an_existing_key_is_kept(issuer: IssuerHarness) -> None:
    before = await states(issuer)
    await issuer.issuer.keys.store.ensure_active()
    assert await states(issuer) == before


async def test_nothing_can_be_signed_without_an_active_key(
    issuer: IssuerHarness,
) -> None:
    """R38: trouble is 503; the process is not ready, and operators get the reason."""
    await forget_all_keys(issuer)
    with pytest.raises(UnavailableError):
        await issuer.issuer.keys.store.signing_key()
    answer = await issuer.operators.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["reason"] == "there is no active signing key"


# --- rotation ------------------------------------------------------------------------


async def test_a_key_is_published_first_signs_later_and_leaves_last(
    issuer: IssuerHarness,
) -> None:
    rotation, keys = issuer.issuer.keys.rotation, issuer.issuer.keys.store
    ahead = issuer.settings.key_publish_ahead
    old = (await keys.signing_key()).kid

    assert (await rotation.rotate(actor="admin")).publish
    (new,) = set(await states(issuer)) - {old}
    assert await published(issuer) == [old, new]
    assert (await keys.signing_key()).kid == old

    issuer.clock.advance(ahead - 1)
    assert await rotation.rotate(actor="admin") == KeyChange()
    issuer.clock.advance(1)
    assert (await rotation.keep_schedule()).activate
    assert (await keys.signing_key()).kid == new
    assert await states(issuer) == {old: "retiring", new: "active"}
    assert set(await keys.verification_keys(new)) == {old, new}

    issuer.clock.advance(RETIRE_AFTER - 1)
    assert await rotation.keep_schedule() == KeyChange()
    issuer.clock.advance(1)
    assert (await rotation.keep_schedule()).remove == (old,)
    assert await published(issuer) == [new]


async def test_a_retired_key_keeps_no_private_half(issuer: IssuerHarness) -> None:
    old = (await issuer.issuer.keys.store.signing_key()).kid
    await issuer.issuer.keys.rotation.rotate(actor="admin", is_immediate=True)
    async with issuer.database.read() as db:
        row = await db.get_one(SigningKey, old)
    assert (row.state, row.private_encrypted) == ("retiring", None)


async def test_a_rotation_changes_the_etag(issuer: IssuerHarness) -> None:
    before = (await issuer.client.get("/.well-known/jwks.json")).headers["ETag"]
    await issuer.issuer.keys.rotation.rotate(actor="admin")
    answer = await issuer.client.get(
        "/.well-known/jwks.json", headers={"If-None-Match": before}
    )
    assert answer.status_code == 200


async def test_a_rotation_by_another_process_is_seen_within_a_second(
    database_url: str,
) -> None:
    settings = make_settings(database_url)
    async with running_issuer(settings) as one, running_issuer(settings) as other:
        before = (await one.issuer.keys.store.signing_key()).kid
        await other.issuer.keys.rotation.rotate(actor="admin", is_immediate=True)
        one.clock.advance(0.999)
        assert (await one.issuer.keys.store.signing_key()).kid == before
        one.clock.advance(0.001)
        assert (await one.issuer.keys.store.signing_key()).kid != before


@pytest.mark.parametrize("is_immediate", [False, True])
async def test_two_rotators_at_once_end_with_one_active_key(
    database_url: str, is_immediate: bool
) -> None:
    settings = make_settings(database_url)
    async with running_issuer(settings) as one, running_issuer(settings) as other:
        changes = await asyncio.gather(
            *(
                harness.issuer.keys.rotation.rotate(
                    actor="admin", is_immediate=is_immediate
                )
                for harness in (one, other)
            )
        )
        found = list((await states(one)).values())
        assert found.count("active") == 1
        if not is_immediate:
            assert sorted(change.publish for change in changes) == [False, True]
            assert found.count("next") == 1


async def test_the_database_itself_refuses_a_second_active_key(
    issuer: IssuerHarness,
) -> None:
    second = await issuer.issuer.keys.store.generate(KeyState.ACTIVE)
    with pytest.raises(IntegrityError):
        async with issuer.database.write() as db:
            db.add(second)


async def test_every_key_change_is_on_record(issuer: IssuerHarness) -> None:
    await issuer.issuer.keys.rotation.rotate(actor="admin-1", is_immediate=True)
    kid = (await issuer.issuer.keys.store.signing_key()).kid
    async with issuer.database.read() as db:
        rows = await db.execute(
            text("SELECT event, actor, subject FROM audit_events ORDER BY id")
        )
        assert [tuple(row) for row in rows] == [
            ("key.published", "admin-1", kid),
            ("key.activated", "admin-1", kid),
        ]


# --- at rest -------------------------------------------------------------------------


async def test_a_private_half_is_not_readable_in_the_database(
    issuer: IssuerHarness,
) -> None:
    signing_key = await issuer.issuer.keys.store.signing_key()
    prime = signing_key.private_key.private_numbers().p
    async with issuer.database.read() as db:
        row = await db.get_one(SigningKey, signing_key.kid)
    assert prime.to_bytes(128, "big") not in (row.private_encrypted or b"")
    assert PRIVATE_MEMBERS.isdisjoint(orjson.loads(row.public_jwk))


async def test_a_lost_encryption_key_stops_the_start_with_its_name(
    database_url: str,
) -> None:
    settings = make_settings(database_url, key_encryption_keys=KeyRing(k2=b"\x09" * 32))
    issuer = compose(settings)
    with pytest.raises(UnavailableError) as caught:
        await issuer.keys.store.ensure_active()
    await issuer.close()
    assert "ISSUER_KEY_ENCRYPTION_KEYS lacks id k1" in caught.value.detail
    assert "rotate-keys --now" in caught.value.detail, "the next step"


async def test_an_older_encryption_key_still_opens(database_url: str) -> None:
    ring = KeyRing(k2=b"\x09" * 32, k1=b"\x01" * 32)
    settings = make_settings(database_url, key_encryption_keys=ring)
    async with running_issuer(settings) as harness:
        await harness.issuer.keys.rotation.rotate(actor="admin")
        async with harness.database.read() as db:
            rows = await db.execute(select(SigningKey.state, SigningKey.kek_id))
            assert {(state, kek_id) for state, kek_id in rows} == {
                ("active", "k1"),
                ("next", "k2"),
            }


async def test_a_relabelled_row_does_not_open(issuer: IssuerHarness) -> None:
    """A private half copied under another kid would sign as that key."""
    async with issuer.database.write() as db:
        other = await issuer.issuer.keys.store.generate(KeyState.NEXT)
        db.add(other)
        await db.flush()
        await db.execute(
            update(SigningKey)
            .where(SigningKey.state == "active")
            .values(private_encrypted=other.private_encrypted)
        )
    started_later = compose(issuer.settings, database=issuer.database)
    with pytest.raises(UnavailableError) as caught:
        await started_later.keys.store.ensure_active()
    started_later.hashing.pool.close()
    assert "does not open" in caught.value.detail


def test_the_stored_form_opens_only_whole() -> None:
    ring = KeyRing(k1=b"\x01" * 32)
    private_key = generate_private_key(65_537, 2_048)
    stored = encrypt_private_key(private_key, kid="a", key_ring=ring)
    opened = decrypt_private_key(stored, kid="a", kek_id="k1", key_ring=ring)
    assert opened.private_numbers() == private_key.private_numbers()
    spoiled = [
        b"",
        stored[:5],
        b"\x02" + stored[1:],
        stored[:-1],
        stored[:40] + bytes([stored[40] ^ 1]) + stored[41:],
    ]
    for form in spoiled:
        with pytest.raises(UnavailableError):
            decrypt_private_key(form, kid="a", kek_id="k1", key_ring=ring)
    with pytest.raises(UnavailableError, match="cannot answer"):
        decrypt_private_key(stored, kid="b", kek_id="k1", key_ring=ring)
