"""A device that has logged in before does not wait for strangers' failures (R34)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest

from issuer.acts import Caller
from issuer.credentials.failure_counts import LoginAttempt
from issuer.errors import TooManyRequestsError
from tests.support.issuer_harness import IssuerHarness, make_settings, running_issuer
from tests.support.issuer_story import PASSWORD, Tokens, log_in, read_tokens
from tests.support.login_story import (
    GATEWAY,
    HOME,
    OFFICE,
    STRANGER,
    enrol,
    fail_from,
    log_in_admin,
    post_login_from,
)

WRONG = "wrong horse battery"
NEW_PASSWORD = "another horse battery"
FREE = 3
DAY = 86_400


@pytest.fixture
async def issuer(database_url: str) -> AsyncIterator[IssuerHarness]:
    """An issuer behind a gateway, with Alice; three failures are free."""
    settings = make_settings(
        database_url,
        trusted_proxies=(GATEWAY,),
        login_free_failures=FREE,
        login_source_free_failures=1_000,
        login_max_delay=60,
    )
    async with running_issuer(settings) as harness:
        await harness.create_user("alice", PASSWORD)
        yield harness


@pytest.fixture
async def known(issuer: IssuerHarness) -> str:
    """The token of Alice's device, which has logged in at home."""
    return read_device(await post_login_from(issuer, HOME))


def read_device(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    token = answer.json()["device_token"]
    assert token.startswith("ghd_")
    return str(token)


async def status_with(
    issuer: IssuerHarness, token: str, password: str = PASSWORD, address: str = OFFICE
) -> int:
    answer = await post_login_from(
        issuer, address, password=password, device_token=token
    )
    return answer.status_code


async def test_a_known_device_logs_in_from_a_new_network_during_an_attack(
    issuer: IssuerHarness, known: str
) -> None:
    """R34: the right password from a new network was 429."""
    await fail_from(issuer, STRANGER, FREE)
    assert (await post_login_from(issuer, OFFICE)).status_code == 429
    assert await status_with(issuer, known) == 200
    # Which takes nothing from the strangers' count.
    assert (await post_login_from(issuer, STRANGER)).status_code == 429


async def test_a_device_has_the_free_failures_and_is_then_as_strange_as_any(
    issuer: IssuerHarness, known: str
) -> None:
    """R34: until a day has passed, or a login has succeeded."""
    await fail_from(issuer, STRANGER, FREE)
    for _ in range(FREE):
        assert await status_with(issuer, known, WRONG) == 401
    assert await status_with(issuer, known) == 429
    # An hour later it still is, and takes the turns that its guesses have cost.
    issuer.clock.advance(3_600)
    assert await status_with(issuer, known) == 429
    issuer.clock.advance(DAY)
    await fail_from(issuer, STRANGER, FREE)
    assert await status_with(issuer, known) == 200


async def test_a_burst_with_a_device_token_gets_the_free_failures_and_no_more(
    issuer: IssuerHarness, known: str
) -> None:
    """R34: counted before they are hashed."""
    await fail_from(issuer, STRANGER, FREE)
    codes = await asyncio.gather(*(status_with(issuer, known, WRONG) for _ in range(9)))
    assert sorted(codes) == [401] * FREE + [429] * (9 - FREE)


async def test_two_devices_count_apart(issuer: IssuerHarness, known: str) -> None:
    other = read_device(await post_login_from(issuer, HOME))
    assert other != known
    await fail_from(issuer, STRANGER, FREE)
    for _ in range(FREE):
        assert await status_with(issuer, known, WRONG) == 401
    assert await status_with(issuer, other) == 200


async def test_a_success_gives_a_device_its_free_failures_again(
    issuer: IssuerHarness, known: str
) -> None:
    for _ in range(2):
        for _ in range(FREE - 1):
            assert await status_with(issuer, known, WRONG) == 401
        assert await status_with(issuer, known) == 200


# --- The bindings of a token ---------------------------------------------------------


async def change_password(issuer: IssuerHarness, tokens: Tokens) -> None:
    answer = await issuer.client.post(
        "/auth/password",
        json={"current_password": PASSWORD, "new_password": NEW_PASSWORD},
        headers=tokens.bearer,
    )
    assert answer.status_code == 200, answer.text


async def reset_password(issuer: IssuerHarness, tokens: Tokens) -> None:
    admin = await log_in_admin(issuer)
    made = await issuer.client.post(
        f"/users/{tokens.claims['sub']}/password-reset", headers=admin.bearer
    )
    body = {
        "reset_token": made.json()["reset_token"],
        "new_password": NEW_PASSWORD,
    }
    answer = await issuer.client.post("/auth/password-reset", json=body)
    assert answer.status_code == 200, answer.text


async def log_out_everywhere(issuer: IssuerHarness, tokens: Tokens) -> None:
    answer = await issuer.client.post("/auth/logout-all", headers=tokens.bearer)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("end", "password"),
    [
        (change_password, NEW_PASSWORD),
        (reset_password, NEW_PASSWORD),
        (log_out_everywhere, PASSWORD),
    ],
)
async def test_a_new_password_and_a_logout_everywhere_end_device_tokens(
    issuer: IssuerHarness,
    known: str,
    end: Callable[[IssuerHarness, Tokens], Awaitable[None]],
    password: str,
) -> None:
    """R51: a thief's device too is strange from then on."""
    await end(issuer, await log_in(issuer))
    await fail_from(issuer, STRANGER, FREE)
    assert await status_with(issuer, known, password) == 429


async def test_a_change_of_password_answers_a_token_for_this_device(
    issuer: IssuerHarness,
) -> None:
    tokens = await log_in(issuer)
    answer = await issuer.client.post(
        "/auth/password",
        json={"current_password": PASSWORD, "new_password": NEW_PASSWORD},
        headers=tokens.bearer,
    )
    await fail_from(issuer, STRANGER, FREE)
    assert await status_with(issuer, read_device(answer), NEW_PASSWORD) == 200


async def test_foreign_expired_and_forged_device_tokens_count_as_none(
    issuer: IssuerHarness, known: str
) -> None:
    """And are no error: the login goes on as it would without."""
    await issuer.create_user("bob", PASSWORD)
    bobs = read_device(await post_login_from(issuer, HOME, "bob"))
    await fail_from(issuer, STRANGER, FREE)
    changed = known[:-1] + ("A" if known[-1] != "A" else "B")
    for token in (bobs, changed, known + "A", known.replace("ghd_", "ghr_"), "", "x"):
        assert await status_with(issuer, token) == 429
        assert await status_with(issuer, token, address=HOME) == 200
    issuer.clock.advance(issuer.settings.device_token_ttl)
    await fail_from(issuer, STRANGER, FREE)
    assert await status_with(issuer, known) == 429


async def test_no_device_is_known_where_that_is_switched_off(sqlite_url: str) -> None:
    async with running_issuer(make_settings(sqlite_url, device_token_ttl=0)) as issuer:
        await issuer.create_user("alice", PASSWORD)
        answer = await post_login_from(issuer, HOME)
        assert "device_token" not in answer.json()
        read_tokens(answer)


# --- The second factor, and the password again -------------------------------------


async def test_a_known_device_passes_the_second_step_during_an_attack(
    issuer: IssuerHarness, known: str
) -> None:
    """R34: for the second step too, with a count of its own."""
    device = await enrol(issuer, await log_in(issuer))
    challenge = (await post_login_from(issuer, OFFICE)).json()["mfa_token"]

    async def show(code: str, token: str | None) -> int:
        body = {"mfa_token": challenge, "code": code}
        answer = await issuer.client.post(
            "/auth/login/second-factor",
            json=body | ({} if token is None else {"device_token": token}),
            headers={"X-Forwarded-For": STRANGER},
        )
        return answer.status_code

    assert [await show(device.wrong_code(), None) for _ in range(4)] == [
        401,
        401,
        401,
        429,
    ]
    assert await show(device.wrong_code(), known) == 401
    assert await show(device.next_code(), known) == 200


async def test_a_signed_in_user_proves_the_password_during_an_attack(
    issuer: IssuerHarness,
) -> None:
    """R34: the session is the known device."""
    tokens = read_tokens(await post_login_from(issuer, HOME))
    await fail_from(issuer, STRANGER, FREE)

    async def enrol_with(password: str) -> int:
        answer = await issuer.client.post(
            "/auth/second-factor/enrolment",
            json={"password": password},
            headers={**tokens.bearer, "X-Forwarded-For": OFFICE},
        )
        return answer.status_code

    assert await enrol_with(PASSWORD) == 200
    for _ in range(FREE):
        assert await enrol_with(WRONG) == 401
    assert await enrol_with(PASSWORD) == 429


# --- The number of guesses ---------------------------------------------------------


class Guesser:
    """Guesses at Alice's password whenever the issuer lets it, and counts."""

    def __init__(self, issuer: IssuerHarness) -> None:
        self._issuer = issuer
        self._throttling = issuer.issuer.login.throttling
        self.made = 0

    async def guess(self, device: str | None = None) -> bool:
        """Guess; whether it was let."""
        now = self._issuer.clock.now
        async with self._issuer.database.read() as db:
            recorded = await self._throttling.look(
                db, "alice", address=STRANGER, now=now, device=device
            )
        try:
            attempt: LoginAttempt = await self._throttling.admit(recorded, now)
        except TooManyRequestsError:
            return False
        self.made += 1
        async with self._issuer.database.write() as db:
            await self._throttling.fail(db, attempt, now)
        return True


async def count_guesses(issuer: IssuerHarness, devices: int, *, at: int) -> int:
    """Return the guesses of an hour; stolen devices' begin at a second of them."""
    guesser = Guesser(issuer)
    for second in range(0, 3_600, 30):
        while await guesser.guess():
            pass
        if second >= at:
            for number in range(devices):
                while await guesser.guess(f"device {number}"):
                    pass
        issuer.clock.advance(30)
    return guesser.made


@pytest.mark.parametrize("at", [0, 60, 1_800], ids="at {}".format)
async def test_stolen_devices_add_no_guess(sqlite_url: str, at: int) -> None:
    """R34: attempts of a known device reduce the attempts of strangers."""
    settings = make_settings(
        sqlite_url,
        trusted_proxies=(GATEWAY,),
        login_free_failures=FREE,
        login_source_free_failures=10_000,
        login_max_delay=120,
    )
    async with running_issuer(settings) as issuer:
        alone = await count_guesses(issuer, 0, at=at)
        issuer.clock.advance(2 * DAY)
        assert 30 <= alone < 50
        assert await count_guesses(issuer, 2, at=at) <= alone


async def test_a_charged_turn_is_refused_with_the_wait_for_the_next(
    issuer: IssuerHarness, known: str
) -> None:
    await fail_from(issuer, STRANGER, FREE)
    assert await status_with(issuer, known, WRONG) == 401
    issuer.clock.advance(1)
    refused = await post_login_from(issuer, STRANGER)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "2")
    issuer.clock.advance(2)
    assert (await post_login_from(issuer, STRANGER)).status_code == 200


async def test_a_device_uses_up_the_free_failures_of_strangers(
    issuer: IssuerHarness, known: str
) -> None:
    assert await status_with(issuer, known, WRONG) == 401
    await fail_from(issuer, STRANGER, FREE - 1)
    assert (await post_login_from(issuer, STRANGER)).status_code == 429


async def test_a_disabled_users_device_is_unknown_afterwards(
    issuer: IssuerHarness, known: str
) -> None:
    """R52."""
    users = issuer.issuer.accounts.users
    alice = await users.find("alice")
    changes = issuer.issuer.accounts.user_changes
    await changes.disable(alice.id, lambda _: None, actor="system", caller=Caller())
    assert await status_with(issuer, known) == 401
    await changes.enable(alice.id, lambda _: None, actor="system", caller=Caller())
    await fail_from(issuer, STRANGER, FREE - 1)
    assert await status_with(issuer, known) == 429
