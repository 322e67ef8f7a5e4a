"""Audit events are deleted by age, and the rest can still be verified."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.acts import Act, Caller
from issuer.audit.verification import AuditBrokenError, AuditVerifier, Verified
from issuer.composition import compose
from issuer.storage.tables.audit import AuditCheckpoint, AuditEvent
from shared.steady_time import HOLD
from tests.support.issuer_harness import IssuerHarness, make_settings, resting_issuer
from tests.support.issuer_story import link_audit, read_audit

DAY = 86_400
RETENTION = 10 * DAY


@pytest.fixture
async def issuer(database_url: str) -> AsyncIterator[IssuerHarness]:
    """An issuer that keeps its audit events for ten days."""
    settings = make_settings(database_url, audit_retention=RETENTION)
    async with resting_issuer(settings) as harness:
        yield harness


async def act(issuer: IssuerHarness, *subjects: str) -> None:
    for subject in subjects:
        async with issuer.database.write() as db:
            event = Act("thing.done", actor="system", subject=subject)
            await issuer.issuer.base.audit(db, event, Caller())
    await link_audit(issuer)


async def keep(issuer: IssuerHarness) -> bool:
    """Do the minute's work of an issuer; return whether something was deleted."""
    reached = await issuer.issuer.audit.retention.keep()
    await link_audit(issuer)
    return reached is not None


async def left(issuer: IssuerHarness) -> list[str]:
    async with issuer.database.read() as db:
        subjects = await db.scalars(
            select(AuditEvent.subject)
            .where(AuditEvent.event == "thing.done")
            .order_by(AuditEvent.id)
        )
        return list(subjects)


async def verified(issuer: IssuerHarness) -> Verified:
    parts = issuer.issuer.audit
    return await AuditVerifier(issuer.database, parts.log.sealer).verify()


async def test_events_past_their_time_go_and_the_rest_is_in_order(
    issuer: IssuerHarness,
) -> None:
    await act(issuer, "a", "b")
    before = await issuer.issuer.audit.linker.head()
    issuer.clock.advance(2 * DAY)
    await act(issuer, "c")
    issuer.clock.advance(8 * DAY)
    assert not await keep(issuer), "a day at most is granted on top"
    issuer.clock.advance(DAY)
    assert await keep(issuer)
    assert await left(issuer) == ["c"]
    found = await verified(issuer)
    assert found.start == before
    (event,) = await read_audit(issuer, "audit.pruned")
    assert event["actor"] == "system"
    assert event["facts"] == {
        "before": issuer.clock.now - RETENTION,
        "up_to": before.seq,
    }


async def test_a_deletion_is_recorded_once_a_day_at_most(
    issuer: IssuerHarness,
) -> None:
    for _ in range(4 * 13):
        issuer.clock.advance(DAY / 4)
        await act(issuer, "x")
        await keep(issuer)
    async with issuer.database.read() as db:
        made = await db.scalar(select(func.count()).select_from(AuditCheckpoint))
    assert made == 2
    await verified(issuer)


async def test_r53_an_event_of_a_clock_that_was_behind_does_not_multiply_deletions(
    issuer: IssuerHarness,
) -> None:
    """Dated long ago, amid the chain: each look found it too old, and deleted
    others.
    """
    for _ in range(3):
        await act(issuer, "x")
        issuer.clock.advance(DAY / 4)
    issuer.clock.set_by(-100 * DAY)
    await act(issuer, "dated wrongly")
    issuer.clock.set_by(100 * DAY)
    issuer.clock.advance(9 * DAY)
    for _ in range(8):
        await keep(issuer)
        issuer.clock.advance(DAY / 4)
    assert await left(issuer) == []
    assert len(await read_audit(issuer, "audit.pruned")) == 1


async def test_a_row_behind_the_checkpoint_that_was_removed_is_still_found(
    issuer: IssuerHarness,
) -> None:
    await act(issuer, "a")
    issuer.clock.advance(5 * DAY)
    await act(issuer, "b", "c")
    issuer.clock.advance(6 * DAY)
    assert await keep(issuer)
    # The triggers refuse it; an owner of the database can go around them.
    async with issuer.database.write() as db:
        await switch_triggers_off(issuer, db)
        await db.execute(AuditEvent.__table__.delete().where(AuditEvent.subject == "b"))
    with pytest.raises(AuditBrokenError, match="was removed"):
        await verified(issuer)


async def switch_triggers_off(issuer: IssuerHarness, db: AsyncSession) -> None:
    statement = "ALTER TABLE audit_events DISABLE TRIGGER ALL"
    if issuer.database.is_sqlite:
        statement = "DROP TRIGGER audit_events_no_delete"
    await db.execute(text(statement))


async def test_r53_a_clock_that_jumps_ahead_deletes_nothing(
    issuer: IssuerHarness,
) -> None:
    """Deleted events do not come back once the clock is right."""
    await act(issuer, "a", "b")
    issuer.clock.set_by(100 * DAY)
    assert not await keep(issuer)
    issuer.clock.set_by(-100 * DAY)
    assert not await keep(issuer)
    issuer.clock.set_by(100 * DAY)
    assert not await keep(issuer)
    issuer.clock.advance(HOLD)
    assert await keep(issuer), "it is no jump any more"


async def test_r53_events_of_a_clock_that_was_ahead_hold_nothing_up(
    issuer: IssuerHarness,
) -> None:
    """Dated in ten years, they would keep all later events for as long."""
    await act(issuer, "a")
    issuer.clock.set_by(3_650 * DAY)
    await act(issuer, "future")
    issuer.clock.set_by(-3_650 * DAY)
    await act(issuer, "b")
    issuer.clock.advance(2 * DAY)
    await act(issuer, "c")
    issuer.clock.advance(9 * DAY)
    assert await keep(issuer)
    assert await left(issuer) == ["c"]
    await verified(issuer)


async def test_events_are_kept_for_ever_without_the_setting(database_url: str) -> None:
    async with resting_issuer(make_settings(database_url)) as issuer:
        await act(issuer, "a")
        issuer.clock.advance(3_650 * DAY)
        assert not await keep(issuer)
        assert await left(issuer) == ["a"]


async def test_two_issuers_delete_once(
    issuer: IssuerHarness, database_url: str
) -> None:
    await act(issuer, "a")
    other = compose(issuer.settings, clock=issuer.clock, elapsed=issuer.clock.elapsed)
    try:
        issuer.clock.advance(11 * DAY)
        assert await keep(issuer)
        assert await other.audit.retention.keep() is None
    finally:
        await other.close()
    assert len(await read_audit(issuer, "audit.pruned")) == 1


@pytest.mark.parametrize("value", [1, 86_399])
def test_a_retention_below_a_day_is_refused(value: int) -> None:
    with pytest.raises(ValueError, match="86400 seconds or more"):
        make_settings("sqlite+aiosqlite:///unused.db", audit_retention=value)
