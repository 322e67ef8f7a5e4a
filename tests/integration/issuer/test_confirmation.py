"""`confirmed: true` is a promise: from then on no verifier answers 200
(docs/revocation.md).

The clock of leases is the harness's: an integer that the test moves.
"""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import event

from issuer.feed.confirmation import Confirmation
from issuer.feed.feed import Position
from issuer.feed.followers import Follower, Report, end_lease
from issuer.feed.leases import Leases
from issuer.storage.tables.feed import FollowerRow
from tests.support.following import (
    FakeVerifier,
    confirm,
    find_follower,
    log_out,
    read_followers,
    wait_until_said,
)
from tests.support.issuer_harness import IssuerHarness, make_settings, running_issuer
from tests.support.issuer_story import PASSWORD, log_in, read_feed
from tests.support.processes import eventually

STALENESS = 30
#: Seconds for which requests ask to be held, and those within which one that is let go
#: must be answered: long for a busy machine, and before the wait is over.
HELD, EARLY = 30, 20


@pytest.fixture
async def issuer(issuer: IssuerHarness) -> IssuerHarness:
    """A running issuer with one user."""
    await issuer.create_user("alice", PASSWORD)
    return issuer


# --- what the caller sees ------------------------------------------------------------


async def test_a_revocation_without_followers_is_confirmed_at_once(
    issuer: IssuerHarness,
) -> None:
    answer = await log_out(issuer, await log_in(issuer), wait=2)
    assert answer.headers["Preference-Applied"] == "wait=2"
    assert answer.json() == {
        "revoked": True,
        "position": 1,
        "confirmed": True,
        "followers": {"confirmed": 0, "pending": [], "exempt": []},
    }


@pytest.mark.parametrize("preference", [None, "wait", "wait=soon", "respond-async"])
async def test_the_answer_is_unchanged_without_the_preference(
    issuer: IssuerHarness, preference: str | None
) -> None:
    """RFC 7240, section 2: a preference that cannot be read is not there."""
    tokens = await log_in(issuer)
    headers = tokens.bearer if preference is None else {"Prefer": preference}
    answer = await issuer.client.post(
        "/auth/logout", headers={**tokens.bearer, **headers}
    )
    assert answer.json() == {"revoked": True, "position": 1}
    assert "Preference-Applied" not in answer.headers


async def test_one_that_has_only_read_the_entry_is_awaited(
    issuer: IssuerHarness,
) -> None:
    """What it has read may not yet be in force in the gateways that it writes into."""
    verifier = FakeVerifier(issuer)
    await verifier.catch_up()
    tokens = await log_in(issuer)
    await log_out(issuer, tokens)
    read = await verifier.follow()
    verifier.headers["Gatehouse-Follower-Applied"] = str(read.to - 1)
    answer = await verifier.ask()
    assert answer.headers["Gatehouse-Follower-Applied"] == str(read.to - 1)
    assert (await confirm(issuer, tokens))["pending"] == [verifier.id]
    del verifier.headers["Gatehouse-Follower-Applied"]
    assert (await verifier.ask()).headers["Gatehouse-Follower-Applied"] == str(read.to)
    await wait_until_said(verifier)
    assert (await confirm(issuer, tokens))["is_confirmed"]


@pytest.mark.parametrize("applied", ["1", "x"])
async def test_no_more_can_be_applied_than_was_asked_after(
    issuer: IssuerHarness, applied: str
) -> None:
    verifier = FakeVerifier(issuer)
    await verifier.take_snapshot()
    verifier.headers["Gatehouse-Follower-Applied"] = applied
    answer = await verifier.ask()
    assert answer.status_code == 400
    assert "Gatehouse-Follower-Applied" in answer.text


async def test_a_verifier_that_has_not_applied_the_entry_is_named(
    issuer: IssuerHarness,
) -> None:
    ahead, behind = FakeVerifier(issuer), FakeVerifier(issuer)
    await behind.catch_up()
    tokens = await log_in(issuer)
    await log_out(issuer, tokens)
    await ahead.catch_up()
    assert await confirm(issuer, tokens) == {
        "is_confirmed": False,
        "confirmed": 1,
        "pending": [behind.id],
        "exempt": [],
    }
    # Taking the entry is not having applied it: only the next request says so.
    await behind.follow()
    assert (await confirm(issuer, tokens))["pending"] == [behind.id]
    await behind.follow()
    await wait_until_said(behind)
    assert await confirm(issuer, tokens) == {
        "is_confirmed": True,
        "confirmed": 2,
        "pending": [],
        "exempt": [],
    }


async def test_the_answer_is_held_until_the_last_verifier_has_applied_it(
    issuer: IssuerHarness,
) -> None:
    verifiers = [FakeVerifier(issuer) for _ in range(3)]
    for verifier in verifiers:
        await verifier.catch_up()
    tokens = await log_in(issuer)
    held = asyncio.create_task(confirm(issuer, tokens, wait=HELD))
    for verifier in verifiers:
        assert not held.done()
        assert len((await verifier.follow(wait=30)).entries) == 1
    for verifier in verifiers:
        assert not held.done()
        await verifier.follow()
    async with asyncio.timeout(EARLY):
        assert (await held)["is_confirmed"]


async def test_connected_verifiers_confirm_within_the_wait(
    issuer: IssuerHarness,
) -> None:
    verifiers = [FakeVerifier(issuer) for _ in range(2)]
    for verifier in verifiers:
        await verifier.catch_up()
    sessions = [await log_in(issuer) for _ in range(5)]
    async with verifiers[0].following(), verifiers[1].following():
        for tokens in sessions:
            found = await confirm(issuer, tokens, wait=10)
            assert (found["is_confirmed"], found["confirmed"]) == (True, 2)


@pytest.mark.parametrize(
    "path", ["/auth/logout-all", "/auth/sessions", "/auth/password"]
)
async def test_every_revoking_call_can_be_confirmed(
    issuer: IssuerHarness, path: str
) -> None:
    verifier = FakeVerifier(issuer)
    await verifier.catch_up()
    tokens = await log_in(issuer)
    headers = {**tokens.bearer, "Prefer": "wait=0"}
    if path == "/auth/sessions":
        path = f"{path}/{tokens.sid}"
        answer = await issuer.client.delete(path, headers=headers)
    else:
        body = {"current_password": PASSWORD, "new_password": PASSWORD + " new"}
        sent = body if path == "/auth/password" else None
        answer = await issuer.client.post(path, headers=headers, json=sent)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Preference-Applied"] == "wait=0"
    shown = answer.json()
    assert (shown["revoked"], shown["confirmed"]) == (True, False)
    assert shown["followers"]["pending"] == [verifier.id]


async def test_a_wait_ends_when_the_process_stops(issuer: IssuerHarness) -> None:
    await FakeVerifier(issuer).catch_up()
    tokens = await log_in(issuer)
    held = asyncio.create_task(confirm(issuer, tokens, wait=HELD))

    async def has_ended() -> bool:
        return bool(await read_feed(issuer))

    await eventually(has_ended)
    issuer.issuer.feed.release_waiters()
    async with asyncio.timeout(EARLY):
        assert not (await held)["is_confirmed"]


# --- what a follower's request may look like
# ---------------------------------------------


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"Gatehouse-Follower": "me"}, "Gatehouse-Follower"),
        ({"Gatehouse-Follower-Staleness": None}, "Gatehouse-Follower-Staleness"),
        ({"Gatehouse-Follower-Staleness": "0"}, "Gatehouse-Follower-Staleness"),
        ({"Gatehouse-Follower-Staleness": "1.5"}, "Gatehouse-Follower-Staleness"),
        ({"Gatehouse-Follower-Staleness": "61"}, "Gatehouse-Follower-Staleness"),
        ({"Gatehouse-Follower-On-Stale": "deny"}, "Gatehouse-Follower-On-Stale"),
        ({"Gatehouse-Follower-Replaces": "me"}, "Gatehouse-Follower-Replaces"),
        (
            {"Gatehouse-Follower-Replaces": ",".join(["0" * 8] * 65)},
            "Gatehouse-Follower-Replaces",
        ),
    ],
)
async def test_a_follower_without_an_id_is_refused(
    issuer: IssuerHarness, changes: dict[str, str | None], field: str
) -> None:
    """R5: malformed is not absent."""
    verifier = FakeVerifier(issuer)
    verifier.headers |= changes
    headers = {n: value for n, value in verifier.headers.items() if value is not None}
    answer = await issuer.client.get("/revocations/snapshot", headers=headers)
    assert answer.status_code == 400
    assert [problem["field"] for problem in answer.json()["problems"]] == [field]
    if changes.get("Gatehouse-Follower-Staleness") == "61":
        assert "ISSUER_MAX_FOLLOWER_STALENESS" in answer.text
    assert (await read_followers(issuer)).followers == ()


# --- trouble
# ------------------------------------------------------------------------------


async def test_a_position_of_another_epoch_is_not_confirmed(
    issuer: IssuerHarness,
) -> None:
    tokens = await log_in(issuer)
    await log_out(issuer, tokens)
    confirmation: Confirmation = issuer.issuer.feed.confirmation
    epoch = (await issuer.issuer.feed.feed.head()).epoch
    assert (await confirmation.wait(Position(epoch, 1), 0)).is_confirmed
    found = await confirmation.wait(Position("another", 1), 0)
    assert (found.is_confirmed, found.pending) == (False, ("database-continuity",))


async def test_an_acknowledgement_wakes_waiting_calls_and_a_renewal_does_not(
    issuer: IssuerHarness,
) -> None:
    """Without that word each wait would end with the next look only."""
    following, woken = issuer.issuer.feed, 0

    def wake() -> None:
        nonlocal woken
        woken += 1
        patient.look_again()

    patient = Confirmation(
        issuer.database, following.continuity, lambda *_: None, look_every=60
    )
    leases = Leases(
        issuer.issuer.base,
        following.continuity,
        on_recorded=wake,
    )
    writing = asyncio.create_task(leases.write())
    epoch = (await issuer.issuer.feed.feed.head()).epoch
    follower = Follower("a-follower", STALENESS)
    await leases.hold(Report(follower, epoch, 0))
    tokens = await log_in(issuer)
    await log_out(issuer, tokens)
    held = asyncio.create_task(patient.wait(Position(epoch, 1), HELD))
    issuer.clock.advance(6)
    await leases.hold(Report(follower, epoch, 0))
    assert woken == 1
    await leases.hold(Report(follower, epoch, 1))
    async with asyncio.timeout(EARLY):
        assert (await held).is_confirmed
    assert woken == 2
    leases.close()
    await writing


async def test_a_lease_renewed_after_the_last_look_is_not_ended(
    issuer: IssuerHarness,
) -> None:
    """Compare and delete, in one statement."""
    verifier = FakeVerifier(issuer)
    await verifier.catch_up()
    (seen,) = (await read_followers(issuer)).followers
    issuer.clock.advance(6)
    await verifier.follow()
    for follower in (seen, seen._replace(allows_stale=True)):
        async with issuer.database.write() as db:
            assert not await end_lease(db, follower, lapsed_at=1)
    (now,) = (await read_followers(issuer)).followers
    async with issuer.database.write() as db:
        assert await end_lease(db, now, lapsed_at=1)


@pytest.mark.postgres
async def test_any_replica_can_revoke_and_any_can_serve_a_follower(
    postgres_url: str,
) -> None:
    settings = make_settings(postgres_url)
    async with running_issuer(settings) as one, running_issuer(settings) as other:
        await one.create_user("alice", PASSWORD)
        verifiers = [FakeVerifier(one), FakeVerifier(other)]
        for verifier in verifiers:
            await verifier.catch_up()
        for issuer in (one, other):
            tokens = await log_in(issuer)
            found = await confirm(issuer, tokens)
            assert sorted(found["pending"]) == sorted(v.id for v in verifiers)
            async with verifiers[0].following(), verifiers[1].following():
                assert (await confirm(issuer, tokens, wait=10))["confirmed"] == 2


@pytest.mark.postgres
async def test_a_word_that_is_lost_costs_one_look(postgres_url: str) -> None:
    """LISTEN and NOTIFY are a wake-up only."""
    settings = make_settings(postgres_url)
    async with running_issuer(settings) as one, running_issuer(settings) as other:
        await one.create_user("alice", PASSWORD)
        for harness in (one, other):
            harness.issuer.feed.wake_ups.close()
        verifier = FakeVerifier(other)
        await verifier.catch_up()
        async with verifier.following():
            found = await confirm(one, await log_in(one), wait=10)
    assert found["is_confirmed"]


async def test_a_hundred_verifiers_at_one_position_share_one_read(
    issuer: IssuerHarness,
) -> None:
    verifiers = [FakeVerifier(issuer) for _ in range(100)]
    await asyncio.gather(*(verifier.take_snapshot() for verifier in verifiers))
    held = [asyncio.create_task(verifier.follow(wait=30)) for verifier in verifiers]
    metrics = issuer.issuer.base.metrics

    async def all_wait() -> bool:
        return b"gatehouse_issuer_feed_waiting 100.0" in metrics.render()

    await eventually(all_wait)
    reads: list[str] = []

    def note(_connection, _cursor, statement, *_rest) -> None:
        if "LEFT OUTER JOIN feed_entries" in statement:
            reads.append(statement)

    event.listen(issuer.database.engine.sync_engine, "before_cursor_execute", note)
    tokens = await log_in(issuer)
    confirming = asyncio.create_task(confirm(issuer, tokens, wait=20))
    pages = await asyncio.gather(*held)
    assert {len(page.entries) for page in pages} == {1}
    assert len(reads) <= 3
    await asyncio.gather(*(verifier.follow() for verifier in verifiers))
    found = await confirming
    assert (found["is_confirmed"], found["confirmed"]) == (True, 100)
    assert isinstance(await find_follower(verifiers[0]), FollowerRow)
