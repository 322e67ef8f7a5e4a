"""A second factor: enrolled with the password, asked for at login, each code once."""

from __future__ import annotations

import asyncio
import base64

import pytest
from sqlalchemy import select

from issuer.acts import Caller
from issuer.credentials.second_factor_codes import SecondFactorCodes
from issuer.errors import InvalidSecondFactorError
from issuer.storage.tables.login import LoginChallenge, RecoveryCode, SecondFactorRow
from tests.support.issuer_harness import IssuerHarness
from tests.support.issuer_story import (
    PASSWORD,
    Tokens,
    is_accepted,
    log_in,
    post_login,
    read_audit,
    read_tokens,
)
from tests.support.login_story import (
    Device,
    begin_login,
    end_login,
    enrol,
    log_in_admin,
)


@pytest.fixture
async def alice(issuer: IssuerHarness) -> str:
    return (await issuer.create_user("alice", PASSWORD)).id


@pytest.fixture
async def tokens(issuer: IssuerHarness, alice: str) -> Tokens:
    return await log_in(issuer)


@pytest.fixture
async def device(issuer: IssuerHarness, tokens: Tokens) -> Device:
    """Alice's app; the code of now was used to switch it on."""
    return await enrol(issuer, tokens)


async def post(issuer: IssuerHarness, path: str, tokens: Tokens, **body: str):
    return await issuer.client.post(
        f"/auth/second-factor/{path}", json=body, headers=tokens.bearer
    )


async def test_a_login_with_a_second_factor_takes_two_steps(
    issuer: IssuerHarness, alice: str, device: Device
) -> None:
    answer = await post_login(issuer)
    assert answer.status_code == 403
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Cache-Control"] == "no-store"
    body = answer.json()
    assert (body["code"], body["expires_in"]) == ("mfa_required", 300)
    assert body["mfa_token"].startswith("ghm_")
    assert "access_token" not in body
    ended = await end_login(issuer, body["mfa_token"], device.next_code())
    assert ended.headers["Cache-Control"] == "no-store"
    tokens = read_tokens(ended)
    assert tokens.claims["sub"] == alice
    assert await is_accepted(issuer, tokens)
    events = await read_audit(issuer, "login.succeeded")
    assert events[-1]["facts"]["second_factor"] == "totp"


async def test_the_wrong_password_is_answered_as_for_everybody(
    issuer: IssuerHarness, device: Device
) -> None:
    """R32: the answer does not reveal a second factor."""
    wrong = await post_login(issuer, "alice", "wrong horse battery")
    unknown = await post_login(issuer, "nobody", PASSWORD)
    assert (wrong.status_code, unknown.status_code) == (401, 401)
    assert wrong.json()["code"] == unknown.json()["code"]


async def test_a_code_is_taken_once(issuer: IssuerHarness, device: Device) -> None:
    """RFC 6238, section 5.2."""
    code = device.next_code()
    assert (await end_login(issuer, await begin_login(issuer), code)).status_code == 200
    again = await end_login(issuer, await begin_login(issuer), code)
    assert again.status_code == 401
    assert again.json()["code"] == "invalid_second_factor"
    (event,) = await read_audit(issuer, "login.failed")
    assert event["facts"] == {"reason": "spent code"}


async def test_the_code_that_switched_it_on_is_spent(
    issuer: IssuerHarness, device: Device
) -> None:
    ended = await end_login(issuer, await begin_login(issuer), device.code())
    assert ended.status_code == 401


async def test_only_one_of_two_concurrent_uses_of_a_code_succeeds(
    issuer: IssuerHarness, device: Device
) -> None:
    challenges = [await begin_login(issuer) for _ in range(4)]
    code = device.next_code()
    answers = await asyncio.gather(*(end_login(issuer, c, code) for c in challenges))
    codes = [answer.status_code for answer in answers]
    assert codes.count(200) == 1
    assert set(codes) <= {200, 401}


async def test_a_code_that_is_being_spent_is_spent(
    issuer: IssuerHarness, alice: str, device: Device
) -> None:
    """RFC 6238, section 5.2: the second request finds it spent, after any read."""
    codes = SecondFactorCodes(issuer.settings.key_encryption_keys)
    code = device.next_code()

    async def spend() -> str:
        async with issuer.database.write() as db:
            return await codes.verify(db, alice, code, issuer.clock.now)

    async with issuer.database.write() as db:
        await codes.verify(db, alice, code, issuer.clock.now)
        second = asyncio.create_task(spend())
        # It waits for us, on either database.
        assert not (await asyncio.wait([second], timeout=0.3))[0]
    with pytest.raises(InvalidSecondFactorError):
        await second


async def test_a_challenge_is_good_once_and_takes_the_others_with_it(
    issuer: IssuerHarness, device: Device
) -> None:
    first, second = await begin_login(issuer), await begin_login(issuer)
    assert (await end_login(issuer, first, device.next_code())).status_code == 200
    for challenge in (first, second):
        answer = await end_login(issuer, challenge, device.next_code())
        assert answer.status_code == 401
        assert answer.json()["code"] == "invalid_grant"


async def test_a_challenge_expires(issuer: IssuerHarness, device: Device) -> None:
    challenge = await begin_login(issuer)
    issuer.clock.advance(300)
    assert (await end_login(issuer, challenge, device.code())).status_code == 401
    await issuer.issuer.login.upkeep.prune()
    async with issuer.database.read() as db:
        assert (await db.scalars(select(LoginChallenge.user_id))).all() == []


async def test_a_logout_everywhere_voids_a_challenge(
    issuer: IssuerHarness, alice: str, device: Device
) -> None:
    """R28: a login that began before it must not be valid after it."""
    challenge = await begin_login(issuer)
    await issuer.issuer.sessions.logout.log_out_everywhere(
        alice, Caller(), actor="system"
    )
    answer = await end_login(issuer, challenge, device.next_code())
    assert answer.json()["code"] == "invalid_grant"


@pytest.mark.parametrize("token", ["", "ghm_", "ghm_" + "A" * 48, "ghp_x", "\u00e9"])
async def test_an_invented_challenge_is_refused(
    issuer: IssuerHarness, device: Device, token: str
) -> None:
    answer = await end_login(issuer, token, device.next_code())
    assert answer.status_code == 401
    assert answer.json()["code"] == "invalid_grant"


async def test_wrong_codes_end_a_challenge_and_slow_all_others(
    issuer: IssuerHarness, device: Device
) -> None:
    """R34: a stolen password does not make six digits guessable."""
    challenge = await begin_login(issuer)
    for _ in range(5):
        answer = await end_login(issuer, challenge, device.wrong_code())
        assert answer.json()["code"] == "invalid_second_factor"
    refused = await end_login(issuer, await begin_login(issuer), device.next_code())
    assert refused.status_code == 200, "30 s have passed, the wait was one"
    issuer.clock.advance(1)
    assert (await end_login(issuer, challenge, device.next_code())).status_code == 401


async def test_a_burst_of_guesses_over_many_challenges_is_slowed(
    issuer: IssuerHarness, device: Device
) -> None:
    """R34: guesses are counted before they are made."""
    challenges = [await begin_login(issuer) for _ in range(9)]
    wrong = device.wrong_code()
    answers = await asyncio.gather(*(end_login(issuer, c, wrong) for c in challenges))
    codes = sorted(answer.status_code for answer in answers)
    assert codes == [401] * 5 + [429] * 4
    right = await end_login(issuer, await begin_login(issuer), device.code(steps=1))
    assert right.status_code == 429
    assert int(right.headers["Retry-After"]) >= 1


async def test_a_recovery_code_replaces_a_code_once(
    issuer: IssuerHarness, device: Device
) -> None:
    code = device.recovery_codes[3].lower()
    assert (await end_login(issuer, await begin_login(issuer), code)).status_code == 200
    again = await end_login(issuer, await begin_login(issuer), code)
    assert again.json()["code"] == "invalid_second_factor"
    events = await read_audit(issuer, "login.succeeded")
    assert events[-1]["facts"]["second_factor"] == "recovery_code"
    tokens = read_tokens(
        await end_login(issuer, await begin_login(issuer), device.next_code())
    )
    shown = await issuer.client.get("/auth/second-factor", headers=tokens.bearer)
    assert shown.json()["recovery_codes_left"] == 9


async def test_an_enrolment_needs_the_password_and_a_first_code(
    issuer: IssuerHarness, tokens: Tokens
) -> None:
    """A stolen access token must not lock its owner out."""
    wrong = await post(issuer, "enrolment", tokens, password="wrong horse battery")
    assert wrong.status_code == 401
    begun = await post(issuer, "enrolment", tokens, password=PASSWORD)
    assert begun.headers["Cache-Control"] == "no-store"
    device = Device(begun.json()["secret"], issuer, [])
    assert begun.json()["otpauth_uri"].startswith("otpauth://totp/issuer.test:alice?")
    await log_in(issuer)  # not on yet
    refused = await post(issuer, "confirmation", tokens, code=device.wrong_code())
    assert refused.json()["code"] == "invalid_second_factor"
    done = await post(issuer, "confirmation", tokens, code=device.code())
    assert len(set(done.json()["recovery_codes"])) == 10
    await begin_login(issuer)
    assert len(await read_audit(issuer, "second_factor.enrolled")) == 1


async def test_an_enrolment_that_is_not_confirmed_expires(
    issuer: IssuerHarness, tokens: Tokens
) -> None:
    begun = await post(issuer, "enrolment", tokens, password=PASSWORD)
    device = Device(begun.json()["secret"], issuer, [])
    issuer.clock.advance(599)
    issuer.clock.advance(1)
    late = read_tokens(await post_login(issuer))
    assert (
        await post(issuer, "confirmation", late, code=device.code())
    ).status_code == 404


async def test_a_second_enrolment_replaces_one_that_is_not_on_and_never_one_that_is(
    issuer: IssuerHarness, tokens: Tokens
) -> None:
    first = await post(issuer, "enrolment", tokens, password=PASSWORD)
    device = await enrol(issuer, tokens)
    assert device.secret != first.json()["secret"]
    again = await post(issuer, "enrolment", tokens, password=PASSWORD)
    assert again.status_code == 409
    confirmed = await post(issuer, "confirmation", tokens, code=device.next_code())
    assert confirmed.status_code == 409


@pytest.mark.parametrize(
    ("password", "is_code_right", "status"),
    [("wrong horse battery", True, 401), (PASSWORD, False, 401), (PASSWORD, True, 204)],
)
async def test_a_removal_needs_the_password_and_a_code(
    issuer: IssuerHarness,
    tokens: Tokens,
    device: Device,
    password: str,
    is_code_right: bool,
    status: int,
) -> None:
    code = device.next_code() if is_code_right else device.wrong_code()
    answer = await post(issuer, "removal", tokens, password=password, code=code)
    assert answer.status_code == status, answer.text
    if status == 204:
        await log_in(issuer)
        assert len(await read_audit(issuer, "second_factor.removed")) == 1
    else:
        await begin_login(issuer)


async def test_recovery_codes_are_replaced_and_the_old_ones_void(
    issuer: IssuerHarness, tokens: Tokens, device: Device
) -> None:
    answer = await post(
        issuer,
        "recovery-codes",
        tokens,
        password=PASSWORD,
        code=device.recovery_codes[0],
    )
    new = answer.json()["recovery_codes"]
    assert len(set(new) | set(device.recovery_codes)) == 20
    old = await end_login(issuer, await begin_login(issuer), device.recovery_codes[1])
    assert old.status_code == 401
    assert (
        await end_login(issuer, await begin_login(issuer), new[0])
    ).status_code == 200


async def test_guesses_at_the_password_by_a_stolen_token_are_throttled(
    issuer: IssuerHarness, tokens: Tokens, device: Device
) -> None:
    """R34."""
    codes = [
        (
            await post(issuer, "removal", tokens, password="wrong" * 4, code="")
        ).status_code
        for _ in range(6)
    ]
    assert codes == [401] * 5 + [429]


async def begin_enrolment(issuer: IssuerHarness, tokens: Tokens) -> Device:
    begun = await post(issuer, "enrolment", tokens, password=PASSWORD)
    return Device(begun.json()["secret"], issuer, [])


async def test_guesses_at_the_first_code_are_throttled(
    issuer: IssuerHarness, tokens: Tokens
) -> None:
    """R34: 335 a second were looked at; the right one has to wait as well."""
    device = await begin_enrolment(issuer, tokens)
    wrong = device.wrong_code()
    for expected in [401] * 5 + [429] * 2:
        answer = await post(issuer, "confirmation", tokens, code=wrong)
        assert answer.status_code == expected, answer.text
    waiting = await post(issuer, "confirmation", tokens, code=device.code())
    assert waiting.status_code == 429
    assert int(waiting.headers["Retry-After"]) >= 1
    issuer.clock.advance(1)
    done = await post(issuer, "confirmation", tokens, code=device.code())
    assert done.status_code == 200
    events = await read_audit(issuer, "second_factor.code_refused")
    assert [event["facts"] for event in events] == [{"reason": "wrong code"}] * 5


async def test_a_burst_of_guesses_at_the_first_code_gets_the_free_ones(
    issuer: IssuerHarness, tokens: Tokens
) -> None:
    """R34: counted before they are looked at."""
    device = await begin_enrolment(issuer, tokens)
    answers = await asyncio.gather(
        *(
            post(issuer, "confirmation", tokens, code=device.wrong_code())
            for _ in range(24)
        )
    )
    codes = [answer.status_code for answer in answers]
    # Five of the session's, and at most five more where it is as strange as any.
    assert set(codes) == {401, 429}
    assert 5 <= codes.count(401) <= 10


@pytest.mark.parametrize("path", ["removal", "recovery-codes"])
async def test_guesses_at_a_code_beside_the_right_password_are_throttled(
    issuer: IssuerHarness, tokens: Tokens, device: Device, path: str
) -> None:
    """R34: recovery codes too, and each is recorded."""
    tried = [device.wrong_code(), "AAAA-BBBB-CCCC-DDDD"] * 3 + ["x"]
    codes = [
        (await post(issuer, path, tokens, password=PASSWORD, code=code)).status_code
        for code in tried
    ]
    assert codes == [401] * 5 + [429] * 2
    assert len(await read_audit(issuer, "second_factor.code_refused")) == 5


async def test_an_enrolment_that_is_not_there_counts_no_guess(
    issuer: IssuerHarness, tokens: Tokens
) -> None:
    for _ in range(7):
        answer = await post(issuer, "confirmation", tokens, code="123456")
        assert answer.status_code == 404


async def test_an_administrator_resets_a_factor(
    issuer: IssuerHarness, alice: str, tokens: Tokens, device: Device
) -> None:
    admin = await log_in_admin(issuer)
    challenge = await begin_login(issuer)
    path = f"/users/{alice}/second-factor"
    assert (await issuer.client.delete(path, headers=tokens.bearer)).status_code == 403
    assert (await issuer.client.delete(path, headers=admin.bearer)).status_code == 204
    assert (await issuer.client.delete(path, headers=admin.bearer)).status_code == 404
    assert (await end_login(issuer, challenge, device.next_code())).status_code == 401
    await log_in(issuer)
    (event,) = await read_audit(issuer, "second_factor.reset")
    assert (event["actor"], event["subject"]) == (admin.claims["sub"], alice)
    async with issuer.database.read() as db:
        assert (await db.scalars(select(RecoveryCode.user_id))).all() == []


async def test_no_secret_or_code_is_in_the_database(
    issuer: IssuerHarness, device: Device
) -> None:
    """R35."""
    async with issuer.database.read() as db:
        row = (await db.scalars(select(SecondFactorRow))).one()
        digests = (await db.scalars(select(RecoveryCode.digest))).all()
    assert base64.b32decode(device.secret) not in row.secret_encrypted
    assert row.kek_id == issuer.settings.key_encryption_keys.current_id
    assert {len(digest) for digest in digests} == {32}
