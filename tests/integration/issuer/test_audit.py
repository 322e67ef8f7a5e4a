"""The audit: written with the act, linked behind it, append-only, read by
administrators.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError

from issuer.acts import Act, Caller
from issuer.audit.chain import Head
from issuer.audit.linking import AuditLinker
from issuer.audit.seals import Sealer
from issuer.audit.verification import AuditBrokenError, AuditVerifier, Verified
from issuer.composition import compose
from issuer.settings.issuer_settings import KeyRing
from issuer.storage.tables.audit import AuditEvent, AuditLink, AuditUnlinked
from tests.support.issuer_harness import IssuerHarness, make_settings
from tests.support.issuer_story import PASSWORD, link_audit, log_in


async def act(issuer: IssuerHarness, *subjects: str, actor: str = "system") -> None:
    """Write one event per subject, in one transaction."""
    async with issuer.database.write() as db:
        for subject in subjects:
            written = Act("thing.done", actor, subject, {"number": 7})
            await issuer.issuer.base.audit(db, written, Caller())


async def verified(issuer: IssuerHarness, expected: Head | None = None) -> Verified:
    sealer = issuer.issuer.audit.log.sealer
    return await AuditVerifier(issuer.database, sealer).verify(expected)


async def count(issuer: IssuerHarness, table: type) -> int:
    async with issuer.database.read() as db:
        return await db.scalar(select(func.count()).select_from(table)) or 0


async def tamper(issuer: IssuerHarness, *statements: str) -> None:
    """Change rows without the triggers, as an owner of the database can."""
    async with issuer.database.write() as db:
        if issuer.database.is_sqlite:
            query = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
            triggers = (await db.execute(text(query))).all()
            for trigger in triggers:
                await db.execute(text(f"DROP TRIGGER {trigger.name}"))
        else:
            triggers = []
            await db.execute(text("SET LOCAL session_replication_role = replica"))
        for statement in statements:
            await db.execute(text(statement))
        for trigger in triggers:
            await db.execute(text(trigger.sql))


# --- the chain -----------------------------------------------------------------------


async def test_every_event_is_linked_once_in_a_gapless_order(
    issuer: IssuerHarness,
) -> None:
    await act(issuer, "a", "b")
    await link_audit(issuer)
    await act(issuer, "c")
    await link_audit(issuer)
    async with issuer.database.read() as db:
        rows = await db.execute(
            select(AuditLink.seq, AuditEvent.subject)
            .join(AuditEvent, AuditEvent.id == AuditLink.event_id)
            .order_by(AuditLink.seq)
        )
        assert [tuple(row) for row in rows] == [(1, "a"), (2, "b"), (3, "c")]
    assert await count(issuer, AuditUnlinked) == 0
    assert (await verified(issuer)).head.seq == 3


async def test_an_event_that_is_rolled_back_was_never_there(
    issuer: IssuerHarness,
) -> None:
    async with issuer.database.write() as db:
        written = Act("thing.done", "system", "a")
        await issuer.issuer.base.audit(db, written, Caller())
        await db.rollback()
    await act(issuer, "b")
    await link_audit(issuer)
    assert (await verified(issuer)).head.seq == 1


@pytest.mark.postgres
async def test_an_event_committed_late_is_linked_late(postgres_url: str) -> None:
    """A smaller id behind a linked one must not be skipped, as a cursor would."""
    issuer = compose(make_settings(postgres_url))
    link, write = issuer.audit.linker.link, issuer.base.audit
    async with issuer.base.database.write() as late:
        await write(late, Act("thing.done", "system", "late"), Caller())
        await late.flush()
        async with issuer.base.database.write() as db:
            await write(db, Act("thing.done", "system", "early"), Caller())
        assert await link() == 1
    assert await link() == 1
    found = await AuditVerifier(issuer.base.database, issuer.audit.log.sealer).verify()
    assert (found.head.seq, found.waiting) == (2, 0)
    await issuer.close()


async def test_linkers_of_several_processes_make_one_chain(
    database_url: str, issuer: IssuerHarness
) -> None:
    others = [compose(issuer.settings) for _ in range(3)]
    linkers = [issuer.issuer.audit.linker, *(each.audit.linker for each in others)]

    async def work(linker: AuditLinker, name: str) -> None:
        for number in range(5):
            await act(issuer, *(f"{name}-{number}-{n}" for n in range(7)))
            await linker.link()

    await asyncio.gather(*(work(each, str(n)) for n, each in enumerate(linkers)))
    await link_audit(issuer)
    found = await verified(issuer)
    assert (found.head.seq, found.waiting) == (140, 0)
    for each in others:
        await each.close()


async def test_more_than_a_batch_is_linked_in_one_go(issuer: IssuerHarness) -> None:
    await act(issuer, *map(str, range(1_203)))
    await link_audit(issuer)
    assert (await verified(issuer)).head.seq == 1_203


# --- append-only ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_events SET actor = 'x'",
        "UPDATE audit_links SET seal = 'x'",
        "DELETE FROM audit_events",
        "DELETE FROM audit_links",
        "UPDATE audit_checkpoints SET seq = 9",
        "DELETE FROM audit_checkpoints",
    ],
)
async def test_the_database_refuses_to_change_or_delete(
    issuer: IssuerHarness, statement: str
) -> None:
    await act(issuer, "a", "b")
    await link_audit(issuer)
    async with issuer.database.write() as db:
        await db.execute(
            text("INSERT INTO audit_checkpoints VALUES (0, :digest, 0, '')"),
            {"digest": bytes(32)},
        )
    with pytest.raises(DBAPIError, match="append-only"):
        async with issuer.database.write() as db:
            await db.execute(text(statement))
    assert await count(issuer, AuditEvent) == 2


async def test_truncate_and_replace_are_refused_too(issuer: IssuerHarness) -> None:
    await act(issuer, "a")
    statement = (
        "INSERT OR REPLACE INTO audit_events SELECT * FROM audit_events"
        if issuer.database.is_sqlite
        else "TRUNCATE audit_events"
    )
    with pytest.raises(DBAPIError, match="append-only"):
        async with issuer.database.write() as db:
            await db.execute(text(statement))


# --- what is found -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        (["UPDATE audit_events SET actor = 'x' WHERE id = 2"], "event 2 (link 2): its"),
        (["UPDATE audit_events SET seal = '' WHERE id = 2"], "event 2 (link 2) has no"),
        (["DELETE FROM audit_events WHERE id = 2"], "event 2 (link 2) was removed"),
        (["DELETE FROM audit_links WHERE seq = 2"], "link 2 is missing"),
        (
            [
                "DELETE FROM audit_links WHERE seq = 4",
                "DELETE FROM audit_events WHERE id = 3",
            ],
            "event 3 (link 3) was removed",
        ),
        (["DELETE FROM audit_links WHERE seq = 4"], "event 4 stands outside"),
        (["UPDATE audit_links SET seal = 'k1.x' WHERE seq = 3"], "link 3: its seal"),
        (["UPDATE audit_links SET seal = 'k9.x' WHERE seq = 3"], "link 3: ISSUER_KEY"),
        (
            [
                "UPDATE audit_links SET event_id = 0 WHERE seq = 2",
                "UPDATE audit_links SET event_id = 2 WHERE seq = 3",
                "UPDATE audit_links SET event_id = 3 WHERE seq = 2",
            ],
            "event 3 (link 2) is not what was linked",
        ),
        (
            ["INSERT INTO audit_unlinked (event_id) VALUES (99)"],
            "event 99 was removed before it was linked",
        ),
    ],
)
async def test_tampered_events_are_named(
    issuer: IssuerHarness, statements: Sequence[str], message: str
) -> None:
    await act(issuer, "a", "b", "c", "d")
    await link_audit(issuer)
    await tamper(issuer, *statements)
    with pytest.raises(AuditBrokenError) as caught:
        await verified(issuer)
    assert str(caught.value).startswith(message)


async def test_an_event_written_by_hand_is_found_although_it_is_linked(
    issuer: IssuerHarness,
) -> None:
    """A linker links every row; the seal shows that no issuer wrote it."""
    await act(issuer, "a")
    await link_audit(issuer)
    columns = "at, event, actor, subject, address, correlation_id, facts"
    async with issuer.database.write() as db:
        await db.execute(
            text(
                f"INSERT INTO audit_events ({columns}) "
                f"SELECT {columns} FROM audit_events"
            )
        )
    await link_audit(issuer)
    with pytest.raises(AuditBrokenError, match="has no seal: no issuer wrote it"):
        await verified(issuer)


async def test_a_copy_of_an_event_is_found_although_its_seal_fits(
    issuer: IssuerHarness,
) -> None:
    await act(issuer, "a")
    columns = "at, event, actor, subject, address, correlation_id, facts, seal"
    async with issuer.database.write() as db:
        await db.execute(
            text(
                f"INSERT INTO audit_events ({columns}) "
                f"SELECT {columns} FROM audit_events"
            )
        )
    await link_audit(issuer)
    with pytest.raises(AuditBrokenError, match="is a copy of another"):
        await verified(issuer)


async def test_a_cut_off_end_shows_against_a_head_kept_elsewhere(
    issuer: IssuerHarness,
) -> None:
    await act(issuer, "a", "b", "c")
    await link_audit(issuer)
    noted = Head.parse(str(await issuer.issuer.audit.linker.head()))
    assert (await verified(issuer, noted)).head == noted
    await tamper(
        issuer,
        "DELETE FROM audit_links WHERE seq = 3",
        "DELETE FROM audit_events WHERE id = 3",
    )
    assert (await verified(issuer)).head.seq == 2
    with pytest.raises(AuditBrokenError, match="the chain ends at 2"):
        await verified(issuer, noted)
    await act(issuer, "another")
    await link_audit(issuer)
    with pytest.raises(AuditBrokenError, match="link 3 is not the one that was noted"):
        await verified(issuer, noted)


async def test_verify_names_a_lost_key_and_can_exclude_it(
    issuer: IssuerHarness,
) -> None:
    await act(issuer, "a")
    await link_audit(issuer)
    sealer = Sealer(KeyRing(k2=b"\x09" * 32))
    with pytest.raises(
        AuditBrokenError, match="ISSUER_KEY_ENCRYPTION_KEYS lacks id k1"
    ):
        await AuditVerifier(issuer.database, sealer).verify()
    tolerant = AuditVerifier(issuer.database, sealer, retired_keys=["k1"])
    assert (await tolerant.verify()).head.seq == 1
    await tamper(issuer, "UPDATE audit_events SET actor = 'x'")
    with pytest.raises(AuditBrokenError, match="is not what was linked here"):
        await tolerant.verify()


# --- retention -----------------------------------------------------------------------


async def test_old_events_are_deleted_up_to_a_sealed_checkpoint(
    issuer: IssuerHarness,
) -> None:
    await act(issuer, "a", "b")
    issuer.clock.advance(100)
    await act(issuer, "c")
    await link_audit(issuer)
    reached = await issuer.issuer.audit.retention.delete_before(
        issuer.clock.now, actor="system"
    )
    assert reached is not None
    assert reached.seq == 2
    await link_audit(issuer)
    found = await verified(issuer)
    assert (found.start, found.head.seq) == (reached, 4)
    async with issuer.database.read() as db:
        rows = await db.scalars(select(AuditEvent).order_by(AuditEvent.id))
        left = [(row.event, row.subject) for row in rows]
    assert left == [("thing.done", "c"), ("audit.pruned", "audit")]
    again = issuer.issuer.audit.retention.delete_before(issuer.clock.now, actor="x")
    assert await again is None


async def test_a_forged_checkpoint_is_found(issuer: IssuerHarness) -> None:
    """Otherwise an attacker with write access could delete evidence as too old."""
    await act(issuer, "a", "b", "c")
    await link_audit(issuer)
    await tamper(
        issuer,
        "INSERT INTO audit_checkpoints SELECT seq, digest, 0, seal FROM audit_links "
        "WHERE seq = 2",
        "DELETE FROM audit_events WHERE id <= 2",
        "DELETE FROM audit_links WHERE seq <= 2",
    )
    with pytest.raises(AuditBrokenError, match="checkpoint 2: its seal does not fit"):
        await verified(issuer)


# --- reading -------------------------------------------------------------------------


async def admin(issuer: IssuerHarness) -> dict[str, str]:
    await issuer.issuer.accounts.users.create_admin("root", PASSWORD, caller=Caller())
    return (await log_in(issuer, "root")).bearer


async def test_only_administrators_read_the_audit(issuer: IssuerHarness) -> None:
    await issuer.create_user("alice", PASSWORD)
    bearer = (await log_in(issuer)).bearer
    assert (await issuer.client.get("/audit", headers=bearer)).status_code == 403
    assert (await issuer.client.get("/audit")).status_code == 401


async def test_pages_go_back_in_time_and_miss_nothing(issuer: IssuerHarness) -> None:
    bearer = await admin(issuer)
    await act(issuer, *map(str, range(7)))
    query: dict[str, str] = {"limit": "3", "event": "thing.done"}
    seen: list[str] = []
    while True:
        answer = await issuer.client.get("/audit", params=query, headers=bearer)
        body = answer.json()
        seen += [event["subject"] for event in body["events"]]
        if body["next_cursor"] is None:
            break
        query["cursor"] = body["next_cursor"]
    assert seen == ["6", "5", "4", "3", "2", "1", "0"]


async def test_filters_apply_together(issuer: IssuerHarness) -> None:
    bearer = await admin(issuer)
    await act(issuer, "a", actor="one")
    issuer.clock.advance(10)
    await act(issuer, "a", "b", actor="two")
    now = issuer.clock.now
    for query, expected in (
        ({"actor": "two"}, ["b", "a"]),
        ({"actor": "two", "subject": "a"}, ["a"]),
        ({"event": "thing.done", "until": str(now)}, ["a"]),
        ({"event": "thing.done", "since": str(now)}, ["b", "a"]),
        ({"correlation_id": "nobody-sent"}, []),
    ):
        answer = await issuer.client.get("/audit", params=query, headers=bearer)
        assert answer.status_code == 200, answer.text
        assert [e["subject"] for e in answer.json()["events"]] == expected, query


async def test_an_event_carries_the_correlation_id_of_its_request(
    issuer: IssuerHarness,
) -> None:
    bearer = await admin(issuer)
    sent = {"X-Correlation-Id": "made-by-the-caller"}
    await issuer.client.post("/auth/logout-all", headers=bearer | sent)
    bearer = (await log_in(issuer, "root")).bearer
    query = {"correlation_id": "made-by-the-caller"}
    answer = await issuer.client.get("/audit", params=query, headers=bearer)
    events = {event["event"] for event in answer.json()["events"]}
    assert "user.logged_out_everywhere" in events


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=501", "cursor=x", "since=-1", "actor=", "more=1", "event=%00"],
)
async def test_a_bad_query_is_400(issuer: IssuerHarness, query: str) -> None:
    bearer = await admin(issuer)
    answer = await issuer.client.get(f"/audit?{query}", headers=bearer)
    assert answer.status_code == 400, answer.text
