"""A goodbye ends the lease of the process that sends it, and no other lease.

The verifier must send it late enough (docs/revocation.md).
"""

from __future__ import annotations

import asyncio
import uuid

import pytest

from issuer.feed.followers import Departure, Follower, Report, leave
from issuer.feed.lease_watch import term
from tests.support.following import (
    FakeVerifier,
    confirm,
    find_follower,
    log_out,
    look,
    read_followers,
)
from tests.support.issuer_harness import IssuerHarness
from tests.support.issuer_story import PASSWORD, log_in

STALENESS = 30


@pytest.fixture
async def issuer(issuer: IssuerHarness) -> IssuerHarness:
    """A running issuer with one user."""
    await issuer.create_user("alice", PASSWORD)
    return issuer


async def test_a_revocation_after_a_goodbye_is_confirmed_at_once(
    issuer: IssuerHarness,
) -> None:
    verifier = FakeVerifier(issuer)
    await verifier.catch_up()
    tokens = await log_in(issuer)
    assert (await confirm(issuer, tokens))["pending"] == [verifier.id]
    answer = await verifier.say_goodbye()
    assert (answer.status_code, answer.content) == (204, b"")
    assert await confirm(issuer, tokens) == {
        "is_confirmed": True,
        "confirmed": 0,
        "pending": [],
        "exempt": [],
    }


async def test_a_goodbye_wakes_a_revocation_that_waits(issuer: IssuerHarness) -> None:
    verifier = FakeVerifier(issuer)
    await verifier.catch_up()
    tokens = await log_in(issuer)
    waiting = asyncio.create_task(log_out(issuer, tokens, wait=30))
    while (await read_followers(issuer)).head.seq == 0:
        await asyncio.sleep(0)
    await verifier.say_goodbye()
    async with asyncio.timeout(25):
        assert (await waiting).json()["confirmed"] is True


async def test_it_ends_its_own_lease_alone(issuer: IssuerHarness) -> None:
    leaving, other = FakeVerifier(issuer), FakeVerifier(issuer)
    await leaving.catch_up()
    await other.catch_up()
    await leaving.say_goodbye()
    tokens = await log_in(issuer)
    assert (await confirm(issuer, tokens))["pending"] == [other.id]


async def test_repeated_late_or_unknown_it_changes_nothing(
    issuer: IssuerHarness,
) -> None:
    """Behind a successor's first requests as well: that one has an id of its own."""
    old = FakeVerifier(issuer)
    await old.catch_up()
    new = FakeVerifier(issuer, replaces=(old.id,))
    new.epoch, new.position = old.epoch, old.position
    await new.follow()
    before = await read_followers(issuer)
    for _ in range(2):
        assert (await old.say_goodbye()).status_code == 204
    assert (await read_followers(issuer)) == before
    assert (await FakeVerifier(issuer).say_goodbye()).status_code == 204


async def test_an_acknowledgement_before_the_goodbye_does_not_recreate_the_row(
    issuer: IssuerHarness,
) -> None:
    """An acknowledgement is written in the background: the goodbye stands behind it."""
    verifier = FakeVerifier(issuer, staleness=STALENESS)
    await verifier.catch_up()
    await log_out(issuer, await log_in(issuer))
    leases, follower = issuer.issuer.feed.leases, Follower(verifier.id, STALENESS)
    await leases.hold(Report(follower, verifier.epoch, 1))
    await leases.leave(Departure(verifier.id))
    # Behind all that was left to be written.
    await leases.leave(Departure(str(uuid.uuid4())))
    assert await find_follower(verifier) is None


@pytest.mark.parametrize("allows_stale", [False, True])
async def test_a_pending_write_of_another_replica_does_not_recreate_the_row(
    issuer: IssuerHarness, allows_stale: bool
) -> None:
    """An acknowledgement in the background is for a row that is there."""
    verifier = FakeVerifier(issuer, staleness=STALENESS, allows_stale=allows_stale)
    await verifier.catch_up()
    await log_out(issuer, await log_in(issuer))
    leases = issuer.issuer.feed.leases
    follower = Follower(verifier.id, STALENESS, allows_stale)
    # The goodbye arrives at another replica, and is committed first.
    async with issuer.database.write() as db:
        await leave(db, [Departure(verifier.id)], now=issuer.clock.now)
    await leases.hold(Report(follower, verifier.epoch, 1))
    await leases.leave(Departure(str(uuid.uuid4())))
    assert (await read_followers(issuer)).awaited == ()
    # One that lives after all has its row before its next page.
    await leases.hold(Report(follower, verifier.epoch, 1))
    assert [f.id for f in (await read_followers(issuer)).awaited] == [verifier.id]


async def test_a_request_delivered_after_the_goodbye_costs_the_term(
    issuer: IssuerHarness,
) -> None:
    """It makes the row again, though its sender has ended: safe, and not for long."""
    verifier = FakeVerifier(issuer, staleness=STALENESS)
    await verifier.catch_up()
    await verifier.say_goodbye()
    assert (await verifier.ask()).status_code == 200
    tokens = await log_in(issuer)
    assert (await confirm(issuer, tokens))["pending"] == [verifier.id]
    await look(issuer)
    issuer.clock.advance(term(STALENESS))
    await look(issuer)
    assert (await confirm(issuer, tokens))["is_confirmed"]


async def test_a_goodbye_ends_the_leases_of_replaced_followers(
    issuer: IssuerHarness,
) -> None:
    killed = FakeVerifier(issuer)
    await killed.catch_up()
    successor = FakeVerifier(issuer, replaces=(killed.id,))
    # Stopped before its first request was answered.
    await successor.take_snapshot()
    await successor.say_goodbye()
    assert (await read_followers(issuer)).followers == ()


async def test_one_that_allows_stale_answers_stays_named(issuer: IssuerHarness) -> None:
    """Its list is on disk: the next process there may answer from it."""
    verifier = FakeVerifier(issuer, allows_stale=True)
    await verifier.catch_up()
    tokens = await log_in(issuer)
    for _ in range(2):
        await verifier.say_goodbye()
        assert await confirm(issuer, tokens) == {
            "is_confirmed": True,
            "confirmed": 0,
            "pending": [],
            "exempt": [verifier.id],
        }


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": "Bearer another-token-of-32-characters-or-more"}, 401),
        ({"Authorization": "Basic Zm9vOmJhcg=="}, 401),
        ({"Gatehouse-Follower": ""}, 400),
        ({"Gatehouse-Follower": "*"}, 400),
        ({"Gatehouse-Follower": f"{uuid.uuid4()},{uuid.uuid4()}"}, 400),
        ({"Gatehouse-Follower-Replaces": "all"}, 400),
    ],
    ids=["other feed token", "other scheme", "empty", "all", "two", "replaces all"],
)
async def test_a_forged_goodbye_ends_nothing(
    issuer: IssuerHarness, headers: dict[str, str], status: int
) -> None:
    verifier = FakeVerifier(issuer)
    await verifier.catch_up()
    assert (await verifier.say_goodbye(**headers)).status_code == status
    assert await find_follower(verifier) is not None


async def test_an_access_token_cannot_send_a_goodbye(issuer: IssuerHarness) -> None:
    """R23: nor does no credential at all."""
    verifier = FakeVerifier(issuer)
    await verifier.catch_up()
    tokens = await log_in(issuer)
    given = {"Authorization": f"Bearer {tokens.access_token}"}
    assert (await verifier.say_goodbye(**given)).status_code == 401
    del verifier.headers["Authorization"]
    assert (await verifier.say_goodbye()).status_code == 401
    assert await find_follower(verifier) is not None


async def test_a_goodbye_names_somebody(issuer: IssuerHarness) -> None:
    verifier = FakeVerifier(issuer)
    del verifier.headers["Gatehouse-Follower"]
    answer = await verifier.say_goodbye()
    assert answer.status_code == 400
    assert "Gatehouse-Follower" in answer.text
