"""Grants and failures in the audit log: all are counted, and a flood is few rows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import func, select, text

from issuer.acts import Act, Caller
from issuer.audit.tallies import AuditTallies, Overflow, TallyLimits
from issuer.credentials.sources import find_source
from issuer.errors import UnavailableError
from issuer.personal_keys.personal_key_form import make_key as format_key
from issuer.storage.tables.audit import AuditEvent
from tests.support.issuer_harness import IssuerHarness, make_settings, running_issuer
from tests.support.issuer_story import PASSWORD, Tokens, log_in, read_audit
from tests.support.oauth_clients import ClientUnderTest, create_client, is_refused
from tests.support.personal_keys import exchange, get_token, is_dead, make_key

GATEWAY = "192.0.2.7"
LIMITS = TallyLimits(window=60, most=3, overflow=Overflow.OTHERS)
WRONG = "ghs_" + "A" * 48


@pytest.fixture
async def issuer(sqlite_url: str) -> AsyncIterator[IssuerHarness]:
    """Nothing here is about SQL."""
    settings = make_settings(sqlite_url, trusted_proxies=(GATEWAY,))
    async with running_issuer(settings) as harness:
        yield harness


@pytest.fixture
async def alice(issuer: IssuerHarness) -> Tokens:
    await issuer.create_user("alice", PASSWORD)
    return await log_in(issuer)


async def flush(issuer: IssuerHarness, seconds: int) -> None:
    issuer.clock.advance(seconds)
    for tallies in issuer.issuer.audit.counts.tallies:
        await tallies.flush()


def from_address(address: str) -> dict[str, str]:
    return {"X-Forwarded-For": address}


async def fail(issuer: IssuerHarness, client_id: str, address: str) -> None:
    form = {"grant_type": "client_credentials", "client_id": client_id}
    answer = await issuer.client.post(
        "/oauth2/token",
        data=form | {"client_secret": WRONG},
        headers=from_address(address),
    )
    assert is_refused(answer, 401, "invalid_client")


# --- what leaves an event
# --------------------------------------------------------------


async def test_every_exchange_of_a_key_is_recorded(
    issuer: IssuerHarness, alice: Tokens
) -> None:
    """The first at once, with its address; how many followed an hour later."""
    made = await make_key(issuer, alice, scopes=[])
    begun = issuer.clock.now
    await get_token(issuer, made["key"])
    (first,) = await read_audit(issuer, "personal_key.exchanged")
    assert first == {
        "actor": alice.claims["sub"],
        "subject": alice.claims["sub"],
        "address": GATEWAY,
        "facts": {"key_id": made["id"]},
    }
    for _ in range(4):
        issuer.clock.advance(10)
        await get_token(issuer, made["key"])
    await flush(issuer, 3_559)
    assert len(await read_audit(issuer, "personal_key.exchanged")) == 1
    await flush(issuer, 1)
    _, rest = await read_audit(issuer, "personal_key.exchanged")
    assert rest["facts"] == {
        "key_id": made["id"],
        "count": 4,
        "since": begun + 10,
        "until": begun + 40,
    }
    # A new hour begins with a row at once.
    await get_token(issuer, made["key"])
    assert len(await read_audit(issuer, "personal_key.exchanged")) == 3


async def test_a_key_used_from_elsewhere_shows_at_once(
    issuer: IssuerHarness, alice: Tokens
) -> None:
    """A copied key shows in the log by an address that is not the owner's."""
    made = await make_key(issuer, alice, scopes=[])
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token_type": "urn:gatehouse:token-type:personal-key",
        "subject_token": made["key"],
    }
    for number in (1, 2, 2, 3, 1):
        await issuer.client.post(
            "/oauth2/token", data=form, headers=from_address(f"198.51.{number}.9")
        )
    events = await read_audit(issuer, "personal_key.exchanged")
    assert [event["address"] for event in events] == [
        "198.51.1.9",
        "198.51.2.9",
        "198.51.3.9",
    ]


async def test_every_refused_exchange_is_recorded_with_its_reason(
    issuer: IssuerHarness, alice: Tokens
) -> None:
    made = await make_key(issuer, alice, scopes=[], expires_in=300)
    revoked = await make_key(issuer, alice, scopes=[])
    await issuer.client.delete(f"/users/me/keys/{revoked['id']}", headers=alice.bearer)
    for wrong in ("ghk_x", revoked["key"][:-1], format_key(b"\x07" * 22)):
        assert is_dead(await exchange(issuer, wrong))
    assert is_dead(await exchange(issuer, revoked["key"]))
    more = await exchange(issuer, made["key"], scope="orders:read")
    assert is_refused(more, 400, "invalid_scope")
    issuer.clock.advance(300)
    assert is_dead(await exchange(issuer, made["key"]))
    events = await read_audit(issuer, "personal_key.exchange_failed")
    owner = alice.claims["sub"]
    assert [(event["subject"], event["facts"]) for event in events] == [
        ("unknown", {"reason": "malformed"}),
        ("unknown", {"reason": "unknown"}),
        (owner, {"reason": "revoked", "key_id": revoked["id"]}),
        (owner, {"reason": "scope", "key_id": made["id"]}),
        (owner, {"reason": "expired", "key_id": made["id"]}),
    ]
    assert {event["actor"] for event in events} == {"unknown"}


async def test_every_client_grant_is_recorded(issuer: IssuerHarness) -> None:
    client = await create_client(issuer, ["orders:read"])
    for _ in range(5):
        await client.get_token()
    (first,) = await read_audit(issuer, "client.token_granted")
    assert (first["actor"], first["subject"]) == (client.id, client.id)
    await flush(issuer, 3_600)
    _, rest = await read_audit(issuer, "client.token_granted")
    assert rest["facts"]["count"] == 4


@pytest.mark.parametrize("path", ["token", "revoke", "introspect"])
async def test_every_failed_client_authentication_is_recorded(
    issuer: IssuerHarness, path: str
) -> None:
    """Of a client of ours by its id; an id that is none may be a secret."""
    real = await create_client(issuer)
    wrong = ClientUnderTest(issuer, real.id, WRONG)
    stranger = ClientUnderTest(issuer, "not-one-of-ours", real.secret)
    grant = {"grant_type": "client_credentials"} if path == "token" else {"token": "x"}
    for client in (wrong, wrong, stranger, stranger):
        answer = await client.post(f"/oauth2/{path}", **grant)
        assert is_refused(answer, 401, "invalid_client")
    nobody = await issuer.client.post(f"/oauth2/{path}", data=grant)
    assert is_refused(nobody, 401, "invalid_client")
    events = await read_audit(issuer, "client.authentication_failed")
    assert [event["subject"] for event in events] == [real.id, "unknown", "unknown"]
    assert {event["actor"] for event in events} == {"unknown"}
    assert "not-one-of-ours" not in str(events)
    assert events[-1]["facts"] == {"reason": "no client credentials"}
    await flush(issuer, 600)
    events = await read_audit(issuer, "client.authentication_failed")
    assert [event["facts"].get("count") for event in events[3:]] == [1, 1]


async def test_a_disabled_client_is_recorded_as_such(issuer: IssuerHarness) -> None:
    client = await create_client(issuer)
    await issuer.issuer.clients.clients.disable(
        client.id, lambda _: None, actor="system", caller=Caller()
    )
    answer = await client.post("/oauth2/token", grant_type="client_credentials")
    assert is_refused(answer, 401, "invalid_client")
    (event,) = await read_audit(issuer, "client.authentication_failed")
    assert event["facts"] == {"reason": "the client is disabled"}


# --- what bounds it
# --------------------------------------------------------------------


async def test_a_flood_from_everywhere_is_few_rows(issuer: IssuerHarness) -> None:
    """And guesses at a client of ours are counted apart from it."""
    real = await create_client(issuer)
    for number in range(230):
        await fail(issuer, f"x{number}", f"198.{number}.0.9")
    for number in range(12):
        await fail(issuer, real.id, f"203.0.{number}.9")
    events = await read_audit(issuer, "client.authentication_failed")
    subjects = [event["subject"] for event in events]
    assert subjects.count("unknown") == 200
    assert subjects.count("others") == 1
    # Eight networks, and one row for all further ones.
    assert subjects.count(real.id) == 9
    await flush(issuer, 600)
    events = await read_audit(issuer, "client.authentication_failed")
    counted = {
        event["subject"]: event["facts"]["count"]
        for event in events
        if "count" in event["facts"]
    }
    assert counted == {"others": 29, real.id: 3}


async def test_counts_are_written_when_the_process_ends(sqlite_url: str) -> None:
    async with running_issuer(make_settings(sqlite_url)) as issuer:
        client = await create_client(issuer)
        for _ in range(3):
            await client.get_token()
    async with running_issuer(make_settings(sqlite_url)) as issuer:
        _, rest = await read_audit(issuer, "client.token_granted")
        assert rest["facts"]["count"] == 2


async def test_no_token_is_issued_without_a_record(issuer: IssuerHarness) -> None:
    """Committed first, then answered: a grant that left no row could not be found."""
    client = await create_client(issuer)
    async with issuer.database.write() as db:
        await db.execute(text("ALTER TABLE audit_events RENAME TO audit_elsewhere"))
    answer = await client.post("/oauth2/token", grant_type="client_credentials")
    assert answer.status_code >= 500
    assert "access_token" not in answer.text
    async with issuer.database.write() as db:
        await db.execute(text("ALTER TABLE audit_elsewhere RENAME TO audit_events"))
    await client.get_token()
    assert len(await read_audit(issuer, "client.token_granted")) == 1


# --- the tallies themselves
# ------------------------------------------------------------


def keep(issuer: IssuerHarness, limits: TallyLimits = LIMITS) -> AuditTallies:
    return AuditTallies(
        issuer.issuer.base,
        find_source=find_source,
        limits=limits,
    )


def act(subject: str) -> Act:
    return Act("tried", "unknown", subject)


async def count_rows(issuer: IssuerHarness) -> int:
    async with issuer.database.read() as db:
        query = select(func.count()).where(AuditEvent.event == "tried")
        return await db.scalar(query) or 0


async def test_one_of_many_concurrent_starts_writes_the_first_row(
    issuer: IssuerHarness,
) -> None:
    tallies = keep(issuer)
    await asyncio.gather(*(tallies.note(act("a"), Caller()) for _ in range(40)))
    assert await count_rows(issuer) == 1
    await tallies.close()
    _, rest = await read_audit(issuer, "tried")
    assert rest["facts"]["count"] == 39


async def test_past_the_bound_the_quietest_ends_early(issuer: IssuerHarness) -> None:
    """One credential that is used all the time never makes more rows by it."""
    tallies = keep(issuer, TallyLimits(60, 3, Overflow.OLDEST))
    for number in range(20):
        await tallies.note(act("busy"), Caller())
        await tallies.note(act(f"s{number}"), Caller())
    events = await read_audit(issuer, "tried")
    assert [event["subject"] for event in events].count("busy") == 1
    assert len(events) == 21
    await tallies.close()
    events = await read_audit(issuer, "tried")
    assert events[-1]["facts"]["count"] == 19


async def test_a_clock_put_back_begins_a_new_window(issuer: IssuerHarness) -> None:
    """R53: otherwise nothing would be counted until the clock is there again."""
    tallies = keep(issuer)
    await tallies.note(act("a"), Caller())
    issuer.clock.advance(-86_400)
    await tallies.note(act("a"), Caller())
    assert await count_rows(issuer) == 2


async def test_counts_survive_a_database_that_is_away(issuer: IssuerHarness) -> None:
    tallies = keep(issuer)
    for _ in range(3):
        await tallies.note(act("a"), Caller())
    issuer.clock.advance(60)
    async with issuer.database.write() as db:
        await db.execute(text("ALTER TABLE audit_events RENAME TO audit_elsewhere"))
    with pytest.raises(UnavailableError):
        await tallies.flush()
    async with issuer.database.write() as db:
        await db.execute(text("ALTER TABLE audit_elsewhere RENAME TO audit_events"))
    await tallies.flush()
    _, rest = await read_audit(issuer, "tried")
    assert rest["facts"]["count"] == 2
