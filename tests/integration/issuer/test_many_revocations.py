"""Single tokens revoked by many callers at once, on both databases."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import func, select, text

from issuer.acts import Caller
from issuer.audit.verification import AuditVerifier
from issuer.feed.feed import Position
from issuer.storage.tables.audit import AuditEvent
from issuer.storage.tables.feed import FeedEntryRow, FeedHead
from tests.support.issuer_harness import IssuerHarness, make_settings, running_issuer
from tests.support.issuer_story import link_audit

MANY = 50
CALLER = Caller(correlation_id="together")


async def revoke_many(issuer: IssuerHarness) -> list[int]:
    """Revoke `MANY` tokens at once and return their positions, in order."""
    revoke = issuer.issuer.revoking.revocations.revoke_token
    calls = (revoke(f"jti-{number}", CALLER, actor="me") for number in range(MANY))
    return [position.seq for position in await asyncio.gather(*calls)]


async def read_rows(issuer: IssuerHarness) -> tuple[dict[str, int], int, list[str]]:
    """Return positions by key, the head, and the subjects of the audit's events."""
    async with issuer.database.read() as db:
        entries = await db.execute(select(FeedEntryRow.key, FeedEntryRow.seq))
        head = await db.scalar(select(FeedHead.seq))
        subjects = await db.scalars(
            select(AuditEvent.subject).where(AuditEvent.correlation_id == "together")
        )
        return {row.key: row.seq for row in entries}, head or 0, sorted(subjects)


async def test_each_gets_the_position_of_its_own_entry(issuer: IssuerHarness) -> None:
    """R18: gapless, each with its sealed audit event, in any shared statement."""
    answered = await revoke_many(issuer)
    positions, head, subjects = await read_rows(issuer)
    assert answered == [positions[f"jti-{number}"] for number in range(MANY)]
    assert sorted(answered) == list(range(1, MANY + 1))
    assert head == MANY
    assert subjects == sorted(f"jti-{number}" for number in range(MANY))
    verifier = AuditVerifier(issuer.database, issuer.issuer.audit.log.sealer)
    await link_audit(issuer)
    assert (await verifier.verify()).head.seq >= MANY


async def test_rows_written_along_with_a_revocation_are_not_left_out(
    database_url: str,
) -> None:
    """With a status list, a statement without the list's bits would be wrong."""
    async with running_issuer(make_settings(database_url, status_list=True)) as issuer:
        assert issuer.issuer.feed.feed.has_companions
        answered = await revoke_many(issuer)
        positions, _, subjects = await read_rows(issuer)
    assert answered == [positions[f"jti-{number}"] for number in range(MANY)]
    assert len(subjects) == MANY


@pytest.mark.postgres
async def test_a_failed_statement_fails_only_the_callers_that_share_it(
    postgres_url: str,
) -> None:
    """R42: an uncommitted entry is not confirmed."""
    async with running_issuer(make_settings(postgres_url)) as issuer:
        async with issuer.database.write() as db:
            await db.execute(text("ALTER TABLE feed_entries RENAME TO away"))
        revoke = issuer.issuer.revoking.revocations.revoke_token
        calls = (revoke(f"jti-{n}", CALLER, actor="me") for n in range(MANY))
        failed = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(outcome, Exception) for outcome in failed)
        async with issuer.database.write() as db:
            await db.execute(text("ALTER TABLE away RENAME TO feed_entries"))
        assert await read_rows(issuer) == ({}, 0, [])
        assert sorted(await revoke_many(issuer)) == list(range(1, MANY + 1))


@pytest.mark.postgres
async def test_a_cancelled_caller_does_not_cancel_others(postgres_url: str) -> None:
    async with running_issuer(make_settings(postgres_url)) as issuer:
        revoke = issuer.issuer.revoking.revocations.revoke_token
        calls = [
            asyncio.create_task(revoke(f"jti-{n}", CALLER, actor="me"))
            for n in range(MANY)
        ]
        await asyncio.sleep(0)
        calls[MANY // 2].cancel()
        done = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(outcome, Position) for outcome in done) >= MANY - 1
        async with issuer.database.read() as db:
            assert await db.scalar(select(func.count()).select_from(FeedEntryRow)) >= (
                MANY - 1
            )
