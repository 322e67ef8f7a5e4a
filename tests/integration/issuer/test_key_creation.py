"""Making a personal key needs the proof of a login: a stolen token alone makes none
(R51).
"""

from __future__ import annotations

import asyncio

import pytest

from issuer.acts import Caller
from issuer.credentials.account_proof import AccountProof
from issuer.errors import UnauthenticatedError
from issuer.personal_keys.personal_keys import KeyWish, OwnerProof, PersonalKeys
from tests.support.issuer_harness import IssuerHarness, make_settings, running_issuer
from tests.support.issuer_story import PASSWORD, Tokens, log_in, post_login, read_audit
from tests.support.login_story import Device, enrol
from tests.support.personal_keys import WISH, list_keys, make_key, post_key

WRONG = "wrong horse battery"


@pytest.fixture
async def issuer(sqlite_url: str) -> IssuerHarness:
    """Nothing here is about SQL."""
    async with running_issuer(make_settings(sqlite_url)) as harness:
        yield harness


@pytest.fixture
async def alice(issuer: IssuerHarness) -> Tokens:
    await issuer.create_user("alice", PASSWORD)
    return await log_in(issuer)


@pytest.fixture
async def device(issuer: IssuerHarness, alice: Tokens) -> Device:
    """Alice's app; the code of now was used to switch it on."""
    return await enrol(issuer, alice)


async def test_an_access_token_alone_makes_no_key(
    issuer: IssuerHarness, alice: Tokens
) -> None:
    """R51: it lives for minutes, and the key would live for a year."""
    wish = {name: value for name, value in WISH.items() if name != "password"}
    answer = await issuer.client.post(
        "/users/me/keys", json=wish | {"scopes": []}, headers=alice.bearer
    )
    assert answer.status_code == 400
    assert answer.json()["problems"] == [{"field": "password", "rule": "is required"}]
    wrong = await post_key(issuer, alice, scopes=[], password=WRONG)
    assert (wrong.status_code, wrong.json()["code"]) == (401, "invalid_credentials")
    assert await list_keys(issuer, alice) == []
    (event,) = await read_audit(issuer, "password.proof_failed")
    assert WRONG not in str(event)


async def test_guesses_are_slowed_as_those_of_a_login(
    issuer: IssuerHarness, alice: Tokens
) -> None:
    """R34: a stolen token is no oracle for the password."""
    for _ in range(5):
        answer = await post_key(issuer, alice, scopes=[], password=WRONG)
        assert answer.status_code == 401
    waiting = await post_key(issuer, alice, scopes=[])
    assert waiting.status_code == 429
    assert int(waiting.headers["Retry-After"]) >= 1
    # They count together with those of logins from there.
    assert (await post_login(issuer)).status_code == 429
    issuer.clock.advance(2)
    assert (await post_key(issuer, alice, scopes=[])).status_code == 201


async def test_malformed_requests_cost_no_hash_and_no_attempt(
    issuer: IssuerHarness, alice: Tokens
) -> None:
    for changes in ({"name": ""}, {"scopes": ["orders:read"]}, {"expires_in": 1}):
        for _ in range(3):
            answer = await post_key(issuer, alice, password=WRONG, **changes)
            assert answer.status_code == 400
    assert await read_audit(issuer, "password.proof_failed") == []


async def test_an_enrolled_second_factor_is_required(
    issuer: IssuerHarness, alice: Tokens, device: Device
) -> None:
    """R51: token and password without the device are no more than a login without
    it.
    """
    missing = await post_key(issuer, alice, scopes=[])
    assert missing.status_code == 400
    assert missing.json()["problems"][0]["field"] == "code"
    wrong = await post_key(issuer, alice, scopes=[], code=device.wrong_code())
    assert (wrong.status_code, wrong.json()["code"]) == (401, "invalid_second_factor")
    assert await list_keys(issuer, alice) == []
    (event,) = await read_audit(issuer, "second_factor.code_refused")
    assert event["subject"] == alice.claims["sub"]
    code = device.next_code()
    await make_key(issuer, alice, scopes=[], code=code)
    # RFC 6238, section 5.2: no code is taken twice.
    again = await post_key(issuer, alice, scopes=[], code=code)
    assert again.json()["code"] == "invalid_second_factor"
    recovery = device.recovery_codes[0]
    issuer.clock.advance(60)
    await make_key(issuer, alice, scopes=[], code=recovery)
    assert len(await list_keys(issuer, alice)) == 2


async def test_guesses_at_the_code_are_slowed_too(
    issuer: IssuerHarness, alice: Tokens, device: Device
) -> None:
    wrong = device.wrong_code()
    statuses = [
        (await post_key(issuer, alice, scopes=[], code=wrong)).status_code
        for _ in range(7)
    ]
    assert statuses == [401] * 5 + [429] * 2
    right = await post_key(issuer, alice, scopes=[], code=device.code(steps=1))
    assert right.status_code == 429


async def test_a_code_without_a_second_factor_is_refused(
    issuer: IssuerHarness, alice: Tokens
) -> None:
    """Its owner believes in a protection that is not there."""
    answer = await post_key(issuer, alice, scopes=[], code="123456")
    assert answer.status_code == 400
    assert answer.json()["problems"][0]["field"] == "code"


async def test_no_key_is_made_for_a_session_that_ended_during_the_proof(
    issuer: IssuerHarness, alice: Tokens
) -> None:
    """A logout everywhere ends every key there is: one that is being made, too."""
    principal = await issuer.issuer.tokens.access_tokens.verify(alice.access_token)
    proved, ended = asyncio.Event(), asyncio.Event()
    proof = issuer.issuer.login.account_proof

    async def prove_slowly(*arguments: object) -> None:
        await AccountProof.prove(proof, *arguments)
        proved.set()
        await ended.wait()

    keys = PersonalKeys(issuer.issuer.base, issuer.issuer.feed.feed, prove_slowly)
    wish, shown = KeyWish("export", [], 3_600), OwnerProof(PASSWORD)
    making = asyncio.create_task(keys.create(principal, wish, shown, Caller()))
    await proved.wait()
    for path in ("/auth/logout", "/auth/logout-all"):
        await issuer.client.post(path, headers=alice.bearer)
    ended.set()
    with pytest.raises(UnauthenticatedError):
        await making
    assert await list_keys(issuer, await log_in(issuer)) == []
