"""The Token Status List: every way of revoking sets the bit, and nothing else does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest

from issuer.acts import Caller
from issuer.composition import compose
from issuer.exports.status_list import StatusOwner
from issuer.feed.feed import Revocation
from shared.claims import CLOCK_ALLOWANCE, LONGEST_ACCESS_TTL, MAX_LEEWAY
from shared.feed import EntryKind
from tests.support.issuer_harness import IssuerHarness, make_settings, running_issuer
from tests.support.issuer_story import PASSWORD, Tokens, is_accepted, log_in, refresh
from tests.support.status_list_reader import read_list, read_status
from tests.support.trusting import trust_in
from verifier.check.denials import Denied, DenyReason
from verifier.check.policy import TokenPolicy
from verifier.check.trust import parse_jwks
from verifier.check.verify import verify

ADDRESS = "https://issuer.test"


@pytest.fixture
async def issuer(database_url: str) -> AsyncIterator[IssuerHarness]:
    async with running_issuer(make_settings(database_url, status_list=True)) as harness:
        await harness.create_user("alice", PASSWORD)
        yield harness


async def fetch_list(issuer: IssuerHarness, uri: str) -> str:
    # A list is looked at once a second.
    issuer.clock.advance(1)
    answer = await issuer.client.get(uri)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/statuslist+jwt"
    return answer.text


async def fetch_jwks(issuer: IssuerHarness) -> Any:
    return (await issuer.client.get("/.well-known/jwks.json")).json()


async def bit_of(issuer: IssuerHarness, tokens: Tokens) -> int:
    uri = tokens.claims["status"]["status_list"]["uri"]
    return read_status(
        tokens.claims, await fetch_list(issuer, uri), await fetch_jwks(issuer)
    )


async def client_tokens(issuer: IssuerHarness) -> tuple[str, Tokens, Any]:
    """Return a new client's id, a token of its own, and how to get another."""
    clients = issuer.issuer.clients.clients
    made = await clients.create("robot", ["a"], actor="system", caller=Caller())

    async def get() -> Tokens:
        form = {"grant_type": "client_credentials"}
        answer = await issuer.client.post(
            "/oauth2/token", data=form, auth=(made.client_id, made.secret)
        )
        return Tokens(answer.json()["access_token"], "")

    return made.client_id, await get(), get


async def test_a_session_has_one_bit_of_its_own(issuer: IssuerHarness) -> None:
    first, other = await log_in(issuer), await log_in(issuer)
    later = await refresh(issuer, first.refresh_token)
    assert first.claims["status"] == later.claims["status"]
    assert first.claims["status"] != other.claims["status"]
    assert first.claims["jti"] != later.claims["jti"]
    assert await bit_of(issuer, first) == await bit_of(issuer, other) == 0


async def test_a_logout_sets_the_bit_of_its_session_alone(
    issuer: IssuerHarness,
) -> None:
    ended, other = await log_in(issuer), await log_in(issuer)
    answer = await issuer.client.post("/auth/logout", headers=ended.bearer)
    assert answer.status_code == 200
    assert await bit_of(issuer, ended) == 1
    assert await bit_of(issuer, other) == 0


async def test_logging_out_everywhere_sets_every_bit_of_the_user(
    issuer: IssuerHarness,
) -> None:
    await issuer.create_user("bob", PASSWORD)
    first, second = await log_in(issuer), await log_in(issuer)
    bob = await log_in(issuer, "bob")
    await issuer.client.post("/auth/logout-all", headers=first.bearer)
    assert [await bit_of(issuer, tokens) for tokens in (first, second, bob)] == [
        1,
        1,
        0,
    ]
    assert await bit_of(issuer, await log_in(issuer)) == 0


async def test_a_bit_of_the_generation_that_still_counts_stays(
    issuer: IssuerHarness,
) -> None:
    """Publishing the same raise twice affects no session after the first."""
    indices = issuer.issuer.exports.status_indices
    assert indices is not None
    await issuer.client.post("/auth/logout-all", headers=(await log_in(issuer)).bearer)
    tokens = await log_in(issuer)
    claims = tokens.claims
    repeated = Revocation(EntryKind.USER, claims["sub"], 0, claims["gen"])
    async with issuer.database.write() as db:
        await indices.mark_revoked(db, [repeated])
    assert await bit_of(issuer, tokens) == 0


async def test_the_session_that_survives_a_new_password_gets_a_new_bit(
    issuer: IssuerHarness,
) -> None:
    before = await log_in(issuer)
    body = {"current_password": PASSWORD, "new_password": "another long pass phrase"}
    answer = await issuer.client.post(
        "/auth/password", json=body, headers=before.bearer
    )
    assert answer.status_code == 200, answer.text
    after = Tokens(answer.json()["access_token"], answer.json()["refresh_token"])
    assert after.sid == before.sid
    assert await bit_of(issuer, before) == 1
    assert await bit_of(issuer, after) == 0


async def test_a_token_revoked_alone_takes_its_sessions_bit_and_the_next_gets_another(
    issuer: IssuerHarness,
) -> None:
    revoked = await log_in(issuer)
    await issuer.issuer.revoking.revocations.revoke_token(
        revoked.claims["jti"], Caller(), actor="system"
    )
    later = await refresh(issuer, revoked.refresh_token)
    assert await bit_of(issuer, revoked) == 1
    assert await bit_of(issuer, later) == 0
    assert await is_accepted(issuer, later)


@pytest.mark.parametrize("how", ["client", "jti", "sid"])
async def test_a_clients_own_tokens_are_covered(
    issuer: IssuerHarness, how: str
) -> None:
    client_id, revoked, get = await client_tokens(issuer)
    _, other, _ = await client_tokens(issuer)
    caller = Caller()
    if how == "client":
        await issuer.issuer.clients.clients.revoke_all(
            client_id, caller, actor="system"
        )
    elif how == "jti":
        await issuer.issuer.revoking.revocations.revoke_token(
            revoked.claims["jti"], caller, actor="system"
        )
    else:
        await issuer.issuer.sessions.logout.end_any(revoked.sid, caller, actor="system")
    assert await bit_of(issuer, revoked) == 1
    assert await bit_of(issuer, await get()) == 0
    assert await bit_of(issuer, other) == 0


async def test_a_session_that_ended_before_its_bit_was_given_out_has_it_set(
    issuer: IssuerHarness,
) -> None:
    """The window between a session's commit and its first token."""
    indices = issuer.issuer.exports.status_indices
    assert indices is not None
    tokens = await log_in(issuer)
    claims = tokens.claims
    await issuer.issuer.revoking.revocations.revoke_token(
        claims["jti"], Caller(), actor="system"
    )
    await issuer.client.post("/auth/logout-all", headers=(await log_in(issuer)).bearer)
    owner = StatusOwner(
        tokens.sid, claims["sub"], claims["gen"], issuer.clock.now + 1_000
    )
    late = await indices.find(owner)
    token = await fetch_list(issuer, late.uri)
    fake = {"status": late.to_claim()}
    assert read_status(fake, token, await fetch_jwks(issuer)) == 1


async def test_issuers_that_allot_at_once_give_one_session_one_bit(
    database_url: str,
) -> None:
    async with running_issuer(make_settings(database_url)) as plain:
        await plain.create_user("alice", PASSWORD)
        tokens = await log_in(plain)
        settings = make_settings(database_url, status_list=True)
        issuers = [compose(settings, clock=plain.clock) for _ in range(2)]
        claims = tokens.claims
        ends_at = plain.clock.now + 1_000
        owner = StatusOwner(tokens.sid, claims["sub"], claims["gen"], ends_at)
        found = await asyncio.gather(
            *(one.exports.status_indices.find(owner) for one in issuers * 4)
        )
        for one in issuers:
            await one.close()
    assert len(set(found)) == 1


async def test_the_list_has_its_expiry(issuer: IssuerHarness) -> None:
    """Draft, sections 5.1 and 9."""
    uri = (await log_in(issuer)).claims["status"]["status_list"]["uri"]
    assert uri == f"{ADDRESS}/status-lists/0"
    jwks = await fetch_jwks(issuer)
    claims = read_list(await fetch_list(issuer, uri), jwks)
    assert claims["iat"] == issuer.clock.now
    assert claims["ttl"] == 60
    assert claims["exp"] == issuer.clock.now + 300
    all_lists = await issuer.client.get(claims["status_list"]["aggregation_uri"])
    assert all_lists.json() == {"status_lists": [uri]}
    metadata = (
        await issuer.client.get("/.well-known/oauth-authorization-server")
    ).json()
    assert metadata["status_list_aggregation_endpoint"] == f"{ADDRESS}/status-lists"


async def test_an_unchanged_list_is_not_sent_again(issuer: IssuerHarness) -> None:
    """RFC 9110, section 15.4.5."""
    tokens = await log_in(issuer)
    first = await issuer.client.get("/status-lists/0")
    etag = first.headers["ETag"]
    assert first.headers["Cache-Control"] == "public, max-age=60"
    assert first.headers["Access-Control-Allow-Origin"] == "*"

    async def ask() -> int:
        issuer.clock.advance(1)
        answer = await issuer.client.get(
            "/status-lists/0", headers={"If-None-Match": etag}
        )
        assert answer.headers["Cache-Control"] == "public, max-age=60"
        return answer.status_code

    assert await ask() == 304
    await log_in(issuer)
    assert await ask() == 304
    await issuer.client.post("/auth/logout", headers=tokens.bearer)
    assert await ask() == 200


async def test_a_list_is_signed_anew_before_it_expires_and_by_the_new_key(
    issuer: IssuerHarness,
) -> None:
    await log_in(issuer)
    first = await fetch_list(issuer, "/status-lists/0")
    issuer.clock.advance(60)
    second = await fetch_list(issuer, "/status-lists/0")
    assert jwt.get_unverified_header(first) == jwt.get_unverified_header(second)
    assert first != second
    await issuer.issuer.keys.rotation.rotate(actor="system", is_immediate=True)
    third = await fetch_list(issuer, "/status-lists/0")
    assert jwt.get_unverified_header(third) != jwt.get_unverified_header(second)


@pytest.mark.parametrize("number", ["0", "1", "-1", "00", "x", "9" * 40])
async def test_a_list_that_is_not_there_is_not_found(
    issuer: IssuerHarness, number: str
) -> None:
    """Nothing is allotted yet."""
    answer = await issuer.client.get(f"/status-lists/{number}")
    assert answer.status_code == 404


async def test_nothing_of_it_is_there_without_the_setting(database_url: str) -> None:
    async with running_issuer(make_settings(database_url)) as plain:
        await plain.create_user("alice", PASSWORD)
        assert "status" not in (await log_in(plain)).claims
        assert (await plain.client.get("/status-lists/0")).status_code == 404
        metadata = await plain.client.get("/.well-known/oauth-authorization-server")
        assert "status_list_aggregation_endpoint" not in metadata.json()


async def test_a_session_of_before_the_setting_gets_a_bit_at_its_next_token(
    database_url: str,
) -> None:
    async with running_issuer(make_settings(database_url)) as plain:
        await plain.create_user("alice", PASSWORD)
        tokens = await log_in(plain)
    settings = make_settings(database_url, status_list=True)
    async with running_issuer(settings) as harness:
        later = await refresh(harness, tokens.refresh_token)
        assert await bit_of(harness, later) == 0
        await harness.client.post("/auth/logout", headers=later.bearer)
        assert await bit_of(harness, later) == 1


async def test_bits_outlive_the_tokens_and_no_longer(issuer: IssuerHarness) -> None:
    indices = issuer.issuer.exports.status_indices
    assert indices is not None
    tokens = await log_in(issuer)
    await issuer.client.post("/auth/logout", headers=tokens.bearer)
    issuer.clock.advance(issuer.settings.access_ttl + 60)
    assert await indices.prune() == 0
    assert await bit_of(issuer, tokens) == 1
    issuer.clock.advance(2 * 3_600)
    assert await indices.prune() == 1


async def test_a_bit_stays_for_clocks_that_differ_at_both_ends(
    issuer: IssuerHarness,
) -> None:
    """Minted and pruned by clocks that are ahead of the one that revokes and reads."""
    apart = CLOCK_ALLOWANCE - 10
    issuer.issuer.tokens.access_tokens._access_ttl = LONGEST_ACCESS_TTL
    issuer.clock.advance(apart)
    tokens = await log_in(issuer)
    issuer.clock.advance(-apart)
    await issuer.client.post("/auth/logout", headers=tokens.bearer)
    last_at_reader = tokens.claims["exp"] + MAX_LEEWAY
    issuer.clock.advance(last_at_reader + apart - issuer.clock.now)
    indices = issuer.issuer.exports.status_indices
    assert indices is not None
    assert await indices.prune() == 0
    assert await bit_of(issuer, tokens) == 1


async def test_the_verifier_takes_a_token_with_a_status_and_no_list(
    issuer: IssuerHarness,
) -> None:
    """R23: a list has a type of its own."""
    tokens = await log_in(issuer)
    body = (await issuer.client.get("/.well-known/jwks.json")).content
    trust = trust_in(parse_jwks(body), issuer=ADDRESS)
    policy = TokenPolicy.own(issuer=ADDRESS, audience="api")
    now = issuer.clock.now
    claims = verify(tokens.access_token.encode(), trust, policy, now)
    assert claims.jti == tokens.claims["jti"]
    listed = await fetch_list(issuer, "/status-lists/0")
    with pytest.raises(Denied) as denied:
        verify(listed.encode(), trust, policy, now)
    assert denied.value.reason is DenyReason.TYP_NOT_ALLOWED
