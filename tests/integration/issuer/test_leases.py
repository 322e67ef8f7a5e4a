"""The lease of a follower, its successor, and policies that opt out
(docs/revocation.md).

The clock of leases is the harness's: an integer that the test moves.
"""

from __future__ import annotations

import pytest
from sqlalchemy import event, text

from issuer.feed.lease_watch import LAPSED_KEPT, term
from tests.support.following import (
    FakeVerifier,
    confirm,
    find_follower,
    log_out,
    look,
    read_followers,
    wait_until_said,
)
from tests.support.issuer_harness import IssuerHarness, make_settings, running_issuer
from tests.support.issuer_story import PASSWORD, log_in

STALENESS = 30


@pytest.fixture
async def issuer(issuer: IssuerHarness) -> IssuerHarness:
    """A running issuer with one user."""
    await issuer.create_user("alice", PASSWORD)
    return issuer


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
    """An issuer's restart loses nothing, and accepts no claim about how long it
    was.
    """
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
    """The lease's statement, the first commit after it, and the first look at the
    feed.
    """
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


async def test_a_position_that_was_never_issued_is_ignored(
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


# --- successors, and policies that opt out
# ---------------------------------------------------


async def test_a_verifier_that_takes_over_drops_the_ended_ones_row(
    issuer: IssuerHarness,
) -> None:
    old, other = FakeVerifier(issuer), FakeVerifier(issuer)
    await old.catch_up()
    await other.catch_up()
    new = FakeVerifier(issuer, replaces=(old.id,))
    # A snapshot acknowledges nothing: until the next request the old row is needed.
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
