"""Logout: the session, its refresh tokens and its access tokens end together."""

from __future__ import annotations

import asyncio

import pytest

from issuer.acts import Caller
from shared.claims import LONGEST_ACCESS_TTL
from tests.support.issuer_harness import IssuerHarness
from tests.support.issuer_story import (
    PASSWORD,
    Tokens,
    is_accepted,
    is_invalid_grant,
    log_in,
    post_refresh,
    read_audit,
    read_feed,
    refresh,
)


@pytest.fixture(autouse=True)
async def alice(issuer: IssuerHarness) -> str:
    """Alice's user id."""
    user = await issuer.create_user("alice", PASSWORD)
    return user.id


async def has_ended(issuer: IssuerHarness, tokens: Tokens) -> bool:
    """Whether neither token of a session works any more."""
    is_refused = is_invalid_grant(await post_refresh(issuer, tokens.refresh_token))
    return is_refused and not await is_accepted(issuer, tokens)


async def test_logout_ends_the_session_of_the_access_token(
    issuer: IssuerHarness, alice: str
) -> None:
    """R28."""
    ours, other = await log_in(issuer), await log_in(issuer)
    answer = await issuer.client.post("/auth/logout", headers=ours.bearer)
    assert (answer.status_code, answer.json()) == (
        200,
        {"revoked": True, "position": 1},
    )
    assert await has_ended(issuer, ours)
    assert not await has_ended(issuer, other)
    assert await read_feed(issuer) == [("sid", ours.sid, 0)]
    (event,) = await read_audit(issuer, "session.ended")
    assert event["subject"] == alice
    assert event["facts"] == {"sid": ours.sid}


async def test_the_feed_entry_outlives_every_token_it_concerns(
    issuer: IssuerHarness,
) -> None:
    tokens = await log_in(issuer)
    await issuer.client.post("/auth/logout", headers=tokens.bearer)
    answer = await issuer.client.get(
        "/revocations/snapshot",
        headers={"Authorization": f"Bearer {issuer.feed_token}"},
    )
    (entry,) = answer.json()["entries"]
    assert entry[:4] == [1, "sid", tokens.sid, 0]
    # ISSUER_ACCESS_TTL may have been lowered: tokens of its longest value still live.
    assert entry[4] >= tokens.claims["iat"] + LONGEST_ACCESS_TTL + 60


@pytest.mark.parametrize("rotations", [0, 1, 3])
async def test_logout_by_refresh_token_alone_ends_its_session_spent_or_not(
    issuer: IssuerHarness, rotations: int
) -> None:
    first = tokens = await log_in(issuer)
    for _ in range(rotations):
        tokens = await refresh(issuer, tokens.refresh_token)
    body = {"refresh_token": first.refresh_token}
    answer = await issuer.client.post("/auth/logout", json=body)
    assert answer.json() == {"revoked": True, "position": 1}
    assert await has_ended(issuer, tokens)


async def test_a_second_logout_answers_a_position_that_covers_it(
    issuer: IssuerHarness,
) -> None:
    first, second = await log_in(issuer), await log_in(issuer)
    body = {"refresh_token": first.refresh_token}
    await issuer.client.post("/auth/logout", json=body)
    await issuer.client.post("/auth/logout", headers=second.bearer)
    again = await issuer.client.post("/auth/logout", json=body)
    assert again.json() == {"revoked": True, "position": 2}
    assert len(await read_feed(issuer)) == 2
    refused = await issuer.client.post("/auth/logout", headers=second.bearer)
    assert refused.status_code == 401


@pytest.mark.parametrize(
    "token", ["", "ghr_x", "ghr_" + "A" * 71], ids=["empty", "short", "not ours"]
)
async def test_logout_with_a_token_we_did_not_make_is_refused(
    issuer: IssuerHarness, token: str
) -> None:
    answer = await issuer.client.post("/auth/logout", json={"refresh_token": token})
    assert is_invalid_grant(answer)
    assert await read_feed(issuer) == []


async def test_logout_without_any_credential_is_refused(issuer: IssuerHarness) -> None:
    """RFC 6750, section 3.1: no error code without a credential."""
    answer = await issuer.client.post("/auth/logout")
    assert answer.status_code == 401
    assert "error=" not in answer.headers["WWW-Authenticate"]
    for body in ({}, {"refresh_token": "x", "all": True}, {"refresh_token": None}):
        answer = await issuer.client.post("/auth/logout", json=body)
        assert answer.status_code == 400


async def test_logout_everywhere_ends_every_session_of_the_user(
    issuer: IssuerHarness, alice: str
) -> None:
    """One entry, for any number of sessions."""
    await issuer.create_user("bob", PASSWORD)
    others = await log_in(issuer, "bob")
    sessions = [await log_in(issuer) for _ in range(3)]
    sessions[1] = await refresh(issuer, sessions[1].refresh_token)
    answer = await issuer.client.post("/auth/logout-all", headers=sessions[0].bearer)
    assert answer.json() == {"revoked": True, "position": 1}
    assert await read_feed(issuer) == [("user", alice, 1)]
    for tokens in sessions:
        assert await has_ended(issuer, tokens)
    assert not await has_ended(issuer, others)
    # No clock takes part: a login in the same second stands.
    later = await log_in(issuer)
    assert later.claims["gen"] == 1
    assert await is_accepted(issuer, later)


async def test_no_refresh_succeeds_after_a_logout_that_it_raced(
    issuer: IssuerHarness,
) -> None:
    """R28: tokens that won the race die with the session."""
    for path in ("/auth/logout", "/auth/logout-all") * 10:
        tokens = await log_in(issuer)
        answer, raced = await asyncio.gather(
            issuer.client.post(path, headers=tokens.bearer),
            post_refresh(issuer, tokens.refresh_token),
        )
        assert answer.status_code == 200
        if raced.status_code == 200:
            body = raced.json()
            survivor = Tokens(body["access_token"], body["refresh_token"])
            assert await has_ended(issuer, survivor)
        assert await has_ended(issuer, tokens)


async def test_logouts_of_everything_at_once_do_not_block_each_other(
    issuer: IssuerHarness,
) -> None:
    """The lock order: single logouts, logouts everywhere and refreshes in one
    moment.
    """
    sessions = [await log_in(issuer) for _ in range(6)]
    answers = await asyncio.gather(
        *(issuer.client.post("/auth/logout", headers=t.bearer) for t in sessions),
        *(issuer.client.post("/auth/logout-all", headers=t.bearer) for t in sessions),
        *(post_refresh(issuer, t.refresh_token) for t in sessions),
    )
    assert {answer.status_code for answer in answers} <= {200, 401}
    for tokens in sessions:
        assert await has_ended(issuer, tokens)


async def test_a_user_lists_and_ends_single_sessions(issuer: IssuerHarness) -> None:
    await issuer.create_user("bob", PASSWORD)
    stranger = await log_in(issuer, "bob")
    phone = await log_in(issuer)
    issuer.clock.advance(5)
    desk = await log_in(issuer)
    answer = await issuer.client.get("/auth/sessions", headers=desk.bearer)
    listed = answer.json()["sessions"]
    assert [session["sid"] for session in listed] == [desk.sid, phone.sid]
    assert [session["is_current"] for session in listed] == [True, False]
    assert listed[0]["address"] == "192.0.2.7"

    refused = await issuer.client.delete(
        f"/auth/sessions/{phone.sid}", headers=stranger.bearer
    )
    assert refused.status_code == 404
    answer = await issuer.client.delete(
        f"/auth/sessions/{phone.sid}", headers=desk.bearer
    )
    assert answer.json() == {"revoked": True, "position": 1}
    assert await has_ended(issuer, phone)
    assert not await has_ended(issuer, desk)
    for sid in (phone.sid, "00000000-0000-4000-8000-000000000000"):
        gone = await issuer.client.delete(f"/auth/sessions/{sid}", headers=desk.bearer)
        assert gone.status_code == 404
    odd = await issuer.client.delete("/auth/sessions/%00", headers=desk.bearer)
    assert odd.status_code == 400


# --- the Bearer token of our own endpoints -----------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda t: [f"Bearer {t}", f"Bearer {t}"], id="two headers"),
        pytest.param(lambda t: [f"Bearer {t}, Bearer {t}"], id="comma list"),
        pytest.param(lambda t: [f"Bearer {t},{t}"], id="comma"),
        pytest.param(lambda t: [f"Basic {t}"], id="another scheme"),
        pytest.param(lambda t: [t], id="no scheme"),
        pytest.param(lambda t: ["Bearer"], id="scheme alone"),
        pytest.param(lambda t: [f"Bearer {t} {t}"], id="two tokens"),
        pytest.param(lambda t: [f"Bearer {t}x"], id="changed"),
        pytest.param(lambda t: ["Bearer " + "A" * 9_000], id="over-long"),
        pytest.param(lambda t: ["Bearer W1tbW1tbW1s.e30.eA"], id="not a JWT"),
        pytest.param(lambda t: ["Bearer " + "W1tb" * 1_500 + ".e30.eA"], id="nested"),
    ],
)
async def test_anything_but_one_bearer_token_of_ours_is_refused(
    issuer: IssuerHarness, make
) -> None:
    """R4."""
    tokens = await log_in(issuer)
    headers = [("Authorization", value) for value in make(tokens.access_token)]
    answer = await issuer.client.get("/auth/sessions", headers=headers)
    assert answer.status_code == 401
    assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]


async def test_the_scheme_is_read_in_any_case(issuer: IssuerHarness) -> None:
    """RFC 9110, section 11.1."""
    tokens = await log_in(issuer)
    headers = {"Authorization": f"bEARER {tokens.access_token}"}
    answer = await issuer.client.get("/auth/sessions", headers=headers)
    assert answer.status_code == 200


async def test_an_access_token_ends_with_its_time(issuer: IssuerHarness) -> None:
    tokens = await log_in(issuer)
    issuer.clock.advance(issuer.settings.access_ttl - 1)
    assert await is_accepted(issuer, tokens)
    issuer.clock.advance(1)
    assert not await is_accepted(issuer, tokens)


async def test_revoking_a_signing_key_ends_all_it_signed(issuer: IssuerHarness) -> None:
    tokens = await log_in(issuer)
    parts = issuer.issuer
    stolen = (await parts.keys.store.signing_key()).kid
    await parts.keys.rotation.rotate(actor="system", is_immediate=True)
    await parts.revoking.revocations.revoke_key(stolen, Caller(), actor="system")
    issuer.clock.advance(1)
    assert not await is_accepted(issuer, tokens)
    jwks = (await issuer.client.get("/.well-known/jwks.json")).json()
    assert stolen not in {jwk["kid"] for jwk in jwks["keys"]}
    assert await read_feed(issuer) == [("kid", stolen, 0)]
    assert await is_accepted(issuer, await refresh(issuer, tokens.refresh_token))
