"""Failed logins slow the next ones down, and lock no user out (R34)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import func, select

from issuer.composition import compose
from issuer.login.login_upkeep import LoginUpkeep
from issuer.storage.tables.login import KnownSource, LoginThrottle
from tests.support.issuer_harness import (
    FakeClock,
    IssuerHarness,
    make_settings,
    running_issuer,
)
from tests.support.issuer_story import PASSWORD, read_audit
from tests.support.login_story import (
    GATEWAY,
    HOME,
    NEXT_DOOR,
    OFFICE,
    STRANGER,
    fail_from,
    post_login_from,
)


@pytest.fixture
async def issuer(database_url: str) -> AsyncIterator[IssuerHarness]:
    """An issuer behind a gateway, with Alice; three failures are free, 8 per source."""
    settings = make_settings(
        database_url,
        trusted_proxies=(GATEWAY,),
        login_free_failures=3,
        login_source_free_failures=8,
        login_max_delay=60,
    )
    async with running_issuer(settings) as harness:
        await harness.create_user("alice", PASSWORD)
        yield harness


async def status_from(issuer: IssuerHarness, address: str, **how: str) -> int:
    return (await post_login_from(issuer, address, **how)).status_code


async def test_each_failure_makes_the_next_login_wait_twice_as_long(
    issuer: IssuerHarness,
) -> None:
    """R34: the right password waits as well, and costs no hash meanwhile."""
    await fail_from(issuer, STRANGER, 3)
    for wait in (1, 2, 4, 8, 16, 32, 60, 60):
        answer = await post_login_from(issuer, OFFICE)
        assert answer.status_code == 429
        assert answer.headers["Retry-After"] == str(wait)
        issuer.clock.advance(wait)
        await fail_from(issuer, STRANGER, 1)
    issuer.clock.advance(60)
    assert await status_from(issuer, OFFICE) == 200


async def test_a_success_forgets_the_accounts_failures(issuer: IssuerHarness) -> None:
    await fail_from(issuer, STRANGER, 4 - 1)
    issuer.clock.advance(1)
    assert await status_from(issuer, OFFICE) == 200
    await fail_from(issuer, STRANGER, 2)
    assert await status_from(issuer, STRANGER) == 200


async def test_a_known_source_is_not_blocked_by_others_failures(
    issuer: IssuerHarness,
) -> None:
    """R34: a stranger makes an account slow for strangers alone."""
    assert await status_from(issuer, HOME) == 200
    await fail_from(issuer, STRANGER, 3)
    assert await status_from(issuer, STRANGER) == 429
    assert await status_from(issuer, OFFICE) == 429
    assert await status_from(issuer, HOME) == 200
    assert await status_from(issuer, NEXT_DOOR) == 200
    # And that success takes nothing from the strangers' count.
    assert await status_from(issuer, OFFICE) == 429


async def test_failures_from_a_known_source_count_there_alone(
    issuer: IssuerHarness,
) -> None:
    """R34: an attacker in the owner's network guesses no faster, and slows no
    other.
    """
    assert await status_from(issuer, HOME) == 200
    await fail_from(issuer, NEXT_DOOR, 3)
    assert await status_from(issuer, HOME) == 429
    assert await status_from(issuer, OFFICE) == 200
    issuer.clock.advance(1)
    assert await status_from(issuer, HOME) == 200


async def test_a_source_is_forgotten_when_it_was_not_used_for_long(
    issuer: IssuerHarness,
) -> None:
    assert await status_from(issuer, HOME) == 200
    issuer.clock.advance(91 * 86_400)
    await fail_from(issuer, STRANGER, 3)
    assert await status_from(issuer, HOME) == 429


async def test_one_network_is_slowed_for_all_names_together(
    issuer: IssuerHarness,
) -> None:
    """R34: few guesses at each of many names."""
    for number in range(8):
        await fail_from(issuer, STRANGER, 1, f"user{number}")
    assert await status_from(issuer, STRANGER, username="another") == 429
    assert await status_from(issuer, STRANGER) == 429
    assert await status_from(issuer, OFFICE) == 200


async def test_a_success_takes_nothing_from_its_networks_failures(
    issuer: IssuerHarness,
) -> None:
    """R34: otherwise one account of the attacker's own would free him for ever."""
    for number in range(8):
        await fail_from(issuer, STRANGER, 1, f"user{number}")
    issuer.clock.advance(1)
    assert await status_from(issuer, STRANGER) == 200
    await fail_from(issuer, STRANGER, 1, "user9")
    answer = await post_login_from(issuer, STRANGER, "user10")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "2")


@pytest.mark.parametrize("name", ["alice", "nobody", "disabled", "x" * 70, ""])
async def test_a_throttled_answer_is_the_same_whether_or_not_the_account_exists(
    issuer: IssuerHarness, name: str
) -> None:
    """R32, R34: status, headers and body, byte for byte."""
    await fail_from(issuer, STRANGER, 3, name)
    answer = await issuer.client.post(
        "/auth/login",
        json={"username": name, "password": PASSWORD},
        headers={"X-Forwarded-For": OFFICE, "X-Correlation-Id": "the-same-for-all"},
    )
    assert answer.status_code == 429
    assert answer.headers["Retry-After"] == "1"
    assert answer.json() == {
        "type": "about:blank",
        "title": "Too Many Requests",
        "status": 429,
        "detail": "Too many attempts.",
        "code": "too_many_requests",
        "correlation_id": answer.headers["X-Correlation-Id"],
    }


async def test_guesses_that_come_at_once_pass_one_at_a_time(
    issuer: IssuerHarness,
) -> None:
    """R34: once failures are free no more, a burst is one guess."""
    await fail_from(issuer, STRANGER, 3)
    issuer.clock.advance(1)
    answers = await asyncio.gather(
        *(
            post_login_from(issuer, STRANGER, password=f"wrong horse battery {n}")
            for n in range(8)
        )
    )
    codes = sorted(answer.status_code for answer in answers)
    assert codes == [401] + [429] * 7


async def test_replicas_count_together(
    issuer: IssuerHarness, database_url: str
) -> None:
    """R34: counters are in the database."""
    async with running_issuer(issuer.settings, issuer.clock) as other:
        await fail_from(issuer, STRANGER, 2)
        await fail_from(other, STRANGER, 1)
        assert await status_from(issuer, OFFICE) == 429
        assert await status_from(other, OFFICE) == 429


async def test_replicas_with_different_clocks_count_one_wait_once(
    issuer: IssuerHarness, database_url: str
) -> None:
    """R53: a wait set by a clock that is ahead was none to the other; guesses
    doubled.
    """
    late = FakeClock(issuer.clock.now_ms - 2_000)
    async with running_issuer(issuer.settings, late) as other:
        await fail_from(issuer, STRANGER, 3)
        for wait in (1, 2, 4, 8, 16, 32, 60):
            issuer.clock.advance(wait)
            late.advance(wait)
            await fail_from(issuer, STRANGER, 1)
        answer = await post_login_from(other, STRANGER)
        assert answer.status_code == 429
        assert answer.headers["Retry-After"] == "60"


async def test_a_slowed_login_is_recorded_with_its_cause(
    issuer: IssuerHarness,
) -> None:
    await fail_from(issuer, STRANGER, 3)
    events = await read_audit(issuer, "login.failed")
    assert [event["facts"].get("slowed") for event in events] == [None, None, "account"]


async def test_no_submitted_name_is_stored(issuer: IssuerHarness) -> None:
    """R35: people type their password there."""
    await fail_from(issuer, STRANGER, 1, "tr0ub4dor-and-three")
    async with issuer.database.read() as db:
        keys = (await db.scalars(select(LoginThrottle.key))).all()
    assert {len(key) for key in keys} == {32}


async def count_rows(issuer: IssuerHarness) -> int:
    async with issuer.database.read() as db:
        return await db.scalar(select(func.count()).select_from(LoginThrottle))


async def test_failures_are_forgotten_and_their_rows_go(issuer: IssuerHarness) -> None:
    """R34: few after an hour, those that made others wait after a day."""
    upkeep = LoginUpkeep(issuer.issuer.base)
    await fail_from(issuer, STRANGER, 3)
    await fail_from(issuer, OFFICE, 1, "nobody")
    assert await count_rows(issuer) == 4
    issuer.clock.advance(3_600)
    await upkeep.prune()
    assert await count_rows(issuer) == 1
    assert await status_from(issuer, OFFICE, password="wrong horse battery") == 401
    issuer.clock.advance(86_400)
    await upkeep.prune()
    assert await count_rows(issuer) == 0


async def test_the_table_is_bounded(issuer: IssuerHarness) -> None:
    """R34: the entry that expires soonest is dropped first."""
    await fail_from(issuer, STRANGER, 3)
    for number in range(4):
        await fail_from(issuer, OFFICE, 1, f"user{number}")
    await LoginUpkeep(issuer.issuer.base, max_throttles=2).prune()
    assert await count_rows(issuer) <= 2
    assert await status_from(issuer, HOME) == 429


async def test_known_sources_are_pruned(issuer: IssuerHarness) -> None:
    assert await status_from(issuer, HOME) == 200
    issuer.clock.advance(90 * 86_400)
    await LoginUpkeep(issuer.issuer.base).prune()
    async with issuer.database.read() as db:
        assert (await db.scalars(select(KnownSource.source))).all() == []


async def test_right_passwords_that_come_at_once_pass_as_far_as_failures_are_free(
    issuer: IssuerHarness,
) -> None:
    """R34: each counts until it has succeeded, so the rest waits; nothing is left of
    it.
    """
    answers = await asyncio.gather(*(post_login_from(issuer, HOME) for _ in range(3)))
    assert {answer.status_code for answer in answers} == {200}
    assert await count_rows(issuer) == 0
    answers = await asyncio.gather(*(post_login_from(issuer, HOME) for _ in range(9)))
    codes = [answer.status_code for answer in answers]
    assert codes.count(200) >= 3
    assert set(codes) <= {200, 429}
    assert await count_rows(issuer) == 0
    assert await status_from(issuer, HOME) == 200


async def test_a_burst_of_guesses_gets_the_free_ones_and_no_more(
    issuer: IssuerHarness,
) -> None:
    """R34: counted before they are hashed; 36 of 60 were hashed where 5 were free."""
    answers = await asyncio.gather(
        *(
            post_login_from(issuer, STRANGER, password=f"wrong horse battery {n}")
            for n in range(30)
        )
    )
    codes = [answer.status_code for answer in answers]
    assert (codes.count(401), codes.count(429)) == (3, 27)


async def test_a_burst_over_many_names_gets_the_free_attempts_of_its_network(
    issuer: IssuerHarness,
) -> None:
    """R34."""
    answers = await asyncio.gather(
        *(
            post_login_from(issuer, STRANGER, f"user{n}", "wrong horse battery")
            for n in range(20)
        )
    )
    codes = [answer.status_code for answer in answers]
    assert (codes.count(401), codes.count(429)) == (8, 12)


async def test_a_success_does_not_shorten_a_wait_that_another_attempt_set(
    issuer: IssuerHarness,
) -> None:
    """R34: a right login that was under way takes back its own count alone."""
    await issuer.create_user("bob", PASSWORD)
    for number in range(7):
        await fail_from(issuer, STRANGER, 1, f"user{number}")
    throttling, now = issuer.issuer.login.throttling, issuer.clock.now

    async def admit(name: str):
        async with issuer.database.read() as db:
            recorded = await throttling.look(db, name, address=STRANGER, now=now)
        return await throttling.admit(recorded, now)

    right = await admit("bob")
    issuer.clock.advance(1)
    now = issuer.clock.now
    await admit("user8")
    async with issuer.database.write() as db:
        await throttling.succeed(db, right)
    assert await status_from(issuer, STRANGER, username="user9") == 429


async def test_a_background_task_prunes(database_url: str) -> None:
    issuer = compose(make_settings(database_url))
    await issuer.login.upkeep.prune()
    await issuer.close()
