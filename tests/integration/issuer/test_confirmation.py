"""`confirmed: true` is a promise: from then on no verifier answers 200 (docs/revocation.md).

The clock of leases is the harness's: an integer that the test moves.
"""

from __future__ import annotations

import asyncio

import httpx
import pytest
from sqlalchemy import event, text

from issuer.models import FollowerRow
from issuer.revocation.confirmation import Confirmation
from issuer.revocation.feed import Position
from issuer.revocation.followers import Follower, Report, end_lease
from issuer.revocation.lease_watch import LAPSED_KEPT, term
from issuer.revocation.leases import Leases
from tests.support.following import (
    FakeVerifier,
    find_follower,
    read_followers,
    wait_until_said,
)
from tests.support.issuer_harness import IssuerHarness, make_settings, running_issuer
from tests.support.issuer_story import PASSWORD, Tokens, log_in, read_feed
from tests.support.processes import eventually

STALENESS = 30


@pytest.fixture
async def issuer(issuer: IssuerHarness) -> IssuerHarness:
    """A running issuer with one user."""
    await issuer.create_user("alice", PASSWORD)
    return issuer


async def log_out(
    issuer: IssuerHarness, tokens: Tokens, wait: int | None = 0
) -> httpx.Response:
    """End the session by its refresh token, which may be done again and again."""
    preference = {} if wait is None else {"Prefer": f"wait={wait}"}
    answer = await issuer.client.post(
        "/auth/logout", json={"refresh_token": tokens.refresh_token}, headers=preference
    )
    assert answer.status_code == 200, answer.text
    return answer


async def confirm(issuer: IssuerHarness, tokens: Tokens, wait: int = 0) -> dict:
    """Log out and return the answer's `followers`, with `is_confirmed` in it."""
    body = (await log_out(issuer, tokens, wait)).json()
    assert body["revoked"] is True
    return {**body["followers"], "is_confirmed": body["confirmed"]}


async def look(issuer: IssuerHarness) -> None:
    await issuer.issuer.following.lease_watch.look()


# --- what the caller sees ------------------------------------------------------------


async def test_without_followers_a_revocation_is_confirmed_at_once(
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
async def test_without_the_preference_the_answer_is_as_ever(
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
    held = asyncio.create_task(confirm(issuer, tokens, wait=30))
    for verifier in verifiers:
        assert not held.done()
        assert len((await verifier.follow(wait=30)).entries) == 1
    for verifier in verifiers:
        assert not held.done()
        await verifier.follow()
    async with asyncio.timeout(5):
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
    told = answer.json()
    assert (told["revoked"], told["confirmed"]) == (True, False)
    assert told["followers"]["pending"] == [verifier.id]


async def test_a_wait_ends_when_the_process_stops(issuer: IssuerHarness) -> None:
    await FakeVerifier(issuer).catch_up()
    tokens = await log_in(issuer)
    held = asyncio.create_task(confirm(issuer, tokens, wait=30))

    async def has_ended() -> bool:
        return bool(await read_feed(issuer))

    await eventually(has_ended)
    issuer.issuer.following.release_waiters()
    async with asyncio.timeout(5):
        assert not (await held)["is_confirmed"]


# --- leases ----------------------------------------------------------------------------


async def test_a_lease_ends_when_it_was_watched_for_its_whole_term(
    issuer: IssuerHarness,
) -> None:
    """Not a moment earlier: the verifier may answer 200 until then."""
    verifier = FakeVerifier(issuer, staleness=STALENESS)
    await verifier.catch_up()
    tokens = await log_in(issuer)
    await look(issuer)
    issuer.clock.advance(term(STALENESS) - 0.01)
    await look(issuer)
    assert (await confirm(issuer, tokens))["pending"] == [verifier.id]
    issuer.clock.advance(0.02)
    await look(issuer)
    assert (await confirm(issuer, tokens))["is_confirmed"]
    assert await find_follower(verifier) is None


def test_the_term_covers_two_clocks_and_the_age_of_a_renewal() -> None:
    for staleness in (11, 60, 3_600):
        assert term(staleness) / 1.01 >= staleness + 5 * 1.01


async def test_a_process_just_started_watches_the_whole_term_itself(
    database_url: str,
) -> None:
    """An issuer's restart loses nothing, and takes nobody's word for how long it was."""
    settings = make_settings(database_url)
    async with running_issuer(settings) as first:
        verifier = FakeVerifier(first, staleness=STALENESS)
        await verifier.catch_up()
        await look(first)
        clock = first.clock
    clock.advance(term(STALENESS) - 1)
    async with running_issuer(settings, clock) as second:
        verifier.issuer = second
        await look(second)
        clock.advance(term(STALENESS) - 1)
        await look(second)
        assert await find_follower(verifier) is not None
        clock.advance(1.01)
        await look(second)
        assert await find_follower(verifier) is None


async def test_a_renewed_lease_is_watched_anew(issuer: IssuerHarness) -> None:
    verifier = FakeVerifier(issuer, staleness=STALENESS)
    await verifier.catch_up()
    for _ in range(3):
        await look(issuer)
        issuer.clock.advance(term(STALENESS) - 1)
        await verifier.follow()
    await look(issuer)
    assert await find_follower(verifier) is not None


async def test_a_row_made_again_is_not_taken_for_the_one_watched(
    issuer: IssuerHarness,
) -> None:
    """Deleted by another replica and made again between two looks of ours."""
    verifier = FakeVerifier(issuer, staleness=STALENESS)
    await verifier.take_snapshot()
    await look(issuer)
    issuer.clock.advance(term(STALENESS) - 1)
    async with issuer.database.write() as db:
        await db.execute(text("DELETE FROM followers"))
    await verifier.take_snapshot()
    issuer.clock.advance(1)
    await look(issuer)
    assert await find_follower(verifier) is not None


async def test_a_lease_renewed_of_late_is_not_written_again(
    issuer: IssuerHarness,
) -> None:
    verifier = FakeVerifier(issuer)
    await verifier.catch_up()
    before = await find_follower(verifier)
    issuer.clock.advance(5)
    await verifier.follow()
    now = await find_follower(verifier)
    assert before is not None
    assert now is not None
    assert now.renewal == before.renewal
    issuer.clock.advance(1)
    await verifier.follow()
    later = await find_follower(verifier)
    assert later is not None
    assert later.renewal != before.renewal


async def test_the_lease_is_committed_before_the_page_is_read(
    issuer: IssuerHarness,
) -> None:
    """The order that carries the proof."""
    statements: list[str] = []

    def note(_connection, _cursor, statement, *_rest) -> None:
        # The watch of the leases looks every second, at the followers with the head.
        if "JOIN followers" not in statement:
            statements.append(" ".join(statement.split()))

    def note_commit(_connection) -> None:
        statements.append("COMMIT")

    engine = issuer.database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    event.listen(engine, "commit", note_commit)
    verifier = FakeVerifier(issuer)
    await verifier.take_snapshot()
    assert _order(statements) == [
        "INSERT INTO followers",
        "COMMIT",
        "SELECT feed_head.epoch",
    ]
    issuer.clock.advance(6)
    statements.clear()
    await verifier.follow()
    assert _order(statements) == [
        "INSERT INTO followers",
        "COMMIT",
        "SELECT feed_head.epoch",
    ]


def _order(statements: list[str]) -> list[str]:
    """The lease's statement, the first commit after it, and the first look at the feed."""
    marks = ("INSERT INTO followers", "COMMIT", "SELECT feed_head.epoch")
    found = [m for s in statements for m in marks if s.startswith(m)]
    start = found.index("INSERT INTO followers")
    assert "SELECT feed_head.epoch" not in found[:start]
    return list(dict.fromkeys(found[start:]))


async def test_a_new_verifier_between_commit_and_confirmation_is_awaited(
    issuer: IssuerHarness,
) -> None:
    tokens = await log_in(issuer)
    await log_out(issuer, tokens)
    verifier = FakeVerifier(issuer)
    await verifier.take_snapshot()
    assert (await confirm(issuer, tokens))["pending"] == [verifier.id]
    await verifier.follow()
    await wait_until_said(verifier)
    assert (await confirm(issuer, tokens))["is_confirmed"]


async def test_late_and_repeated_requests_take_nothing_back(
    issuer: IssuerHarness,
) -> None:
    verifier = FakeVerifier(issuer)
    await verifier.catch_up()
    tokens = await log_in(issuer)
    await log_out(issuer, tokens)
    await verifier.catch_up()
    assert verifier.position == 1
    for late in (0, 1, 0):
        issuer.clock.advance(6)
        verifier.position = late
        await verifier.ask()
    assert (await confirm(issuer, tokens))["is_confirmed"]


async def test_a_position_never_given_out_is_not_believed(
    issuer: IssuerHarness,
) -> None:
    verifier = FakeVerifier(issuer)
    await verifier.take_snapshot()
    verifier.position = 7
    assert (await verifier.ask()).status_code == 409
    issuer.clock.advance(6)
    assert (await verifier.ask()).status_code == 409
    tokens = await log_in(issuer)
    assert (await confirm(issuer, tokens))["pending"] == [verifier.id]


async def test_an_anonymous_reader_is_promised_nothing(issuer: IssuerHarness) -> None:
    reader = FakeVerifier(issuer)
    for name in [name for name in reader.headers if name != "Authorization"]:
        del reader.headers[name]
    await reader.take_snapshot()
    await reader.follow()
    assert (await read_followers(issuer)).followers == ()


# --- who takes over, and who opts out ---------------------------------------------------


async def test_a_verifier_that_takes_over_drops_the_ended_ones_row(
    issuer: IssuerHarness,
) -> None:
    old, other = FakeVerifier(issuer), FakeVerifier(issuer)
    await old.catch_up()
    await other.catch_up()
    new = FakeVerifier(issuer, replaces=(old.id,))
    # A snapshot says nothing of what is applied: until then the old row is needed.
    await new.take_snapshot()
    assert await find_follower(old) is not None
    new.epoch, new.position = old.epoch, old.position
    await new.follow()
    left = [follower.id for follower in (await read_followers(issuer)).followers]
    assert left == sorted([other.id, new.id])


async def test_one_that_allows_stale_answers_is_exempt_when_its_lease_is_over(
    issuer: IssuerHarness,
) -> None:
    verifier = FakeVerifier(issuer, staleness=STALENESS, allows_stale=True)
    await verifier.catch_up()
    tokens = await log_in(issuer)
    assert (await confirm(issuer, tokens))["pending"] == [verifier.id]
    await look(issuer)
    issuer.clock.advance(term(STALENESS))
    await look(issuer)
    assert await confirm(issuer, tokens) == {
        "is_confirmed": True,
        "confirmed": 0,
        "pending": [],
        "exempt": [verifier.id],
    }
    # Back again, it is awaited as any other.
    await verifier.take_snapshot()
    assert (await confirm(issuer, tokens))["pending"] == [verifier.id]


async def test_an_exempt_verifier_is_named_for_a_day(issuer: IssuerHarness) -> None:
    verifier = FakeVerifier(issuer, staleness=STALENESS, allows_stale=True)
    await verifier.catch_up()
    await look(issuer)
    issuer.clock.advance(term(STALENESS))
    await look(issuer)
    issuer.clock.advance(LAPSED_KEPT)
    await look(issuer)
    assert (await read_followers(issuer)).exempt == (verifier.id,)
    issuer.clock.advance(1)
    await look(issuer)
    assert (await read_followers(issuer)).exempt == ()


# --- what a follower's request may look like ---------------------------------------------


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
async def test_a_follower_that_does_not_say_who_it_is_is_refused(
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


# --- trouble ------------------------------------------------------------------------------


async def test_a_position_of_another_epoch_is_not_confirmed(
    issuer: IssuerHarness,
) -> None:
    tokens = await log_in(issuer)
    await log_out(issuer, tokens)
    confirmation: Confirmation = issuer.issuer.following.confirmation
    epoch = (await issuer.issuer.feed.head()).epoch
    assert (await confirmation.wait(Position(epoch, 1), 0)).is_confirmed
    found = await confirmation.wait(Position("another", 1), 0)
    assert (found.is_confirmed, found.pending) == (False, ("database-continuity",))


async def test_an_acknowledgement_wakes_who_waits_and_a_renewal_does_not(
    issuer: IssuerHarness,
) -> None:
    """Without that word each wait would end with the next look only."""
    following, woken = issuer.issuer.following, 0

    def wake() -> None:
        nonlocal woken
        woken += 1
        patient.look_again()

    patient = Confirmation(
        issuer.database, following.continuity, lambda *_: None, look_every=60
    )
    leases = Leases(
        issuer.database,
        following.continuity,
        elapsed=issuer.clock.elapsed,
        on_recorded=wake,
    )
    writing = asyncio.create_task(leases.write())
    epoch = (await issuer.issuer.feed.head()).epoch
    follower = Follower("a-follower", STALENESS)
    await leases.hold(Report(follower, epoch, 0))
    tokens = await log_in(issuer)
    await log_out(issuer, tokens)
    held = asyncio.create_task(patient.wait(Position(epoch, 1), 30))
    issuer.clock.advance(6)
    await leases.hold(Report(follower, epoch, 0))
    assert woken == 1
    await leases.hold(Report(follower, epoch, 1))
    async with asyncio.timeout(10):
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
async def test_any_replica_may_be_asked_to_revoke_and_any_may_serve_a_follower(
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
            harness.issuer.following.wake_ups.close()
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
    metrics = issuer.issuer.metrics

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
