"""Bulk revocation: by list and by filter, through the API, without stalling others."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest
from sqlalchemy import func, insert, select

from issuer.acts import Caller
from issuer.composition import Issuer, compose
from issuer.errors import InvalidRequestError, UnavailableError
from issuer.feed.feed import Position
from issuer.revoking.bulk import BulkOutcome, BulkRevocation, BulkRun, collect
from issuer.revoking.bulk_filter import SessionFilter, read_network
from issuer.revoking.bulk_items import BulkItem, BulkKind, RefusedItem
from issuer.storage.db import Database
from issuer.storage.tables.feed import FeedEntryRow
from issuer.storage.tables.roles import Role
from issuer.storage.tables.sessions import RefreshFamily, Session
from issuer.tokens.access import last_expiry
from tests.support.issuer_harness import (
    FakeClock,
    IssuerHarness,
    make_settings,
    running_issuer,
)
from tests.support.issuer_story import (
    PASSWORD,
    Tokens,
    is_accepted,
    is_invalid_grant,
    log_in,
    post_refresh,
    read_audit,
    read_feed,
)
from tests.support.personal_keys import exchange, get_token, is_dead, make_key

RUN = BulkRun("file", "system", Caller())


@pytest.fixture
async def admin(issuer: IssuerHarness) -> Tokens:
    await issuer.issuer.accounts.users.create_admin("root", PASSWORD, caller=Caller())
    return await log_in(issuer, "root")


async def post(issuer: IssuerHarness, admin: Tokens, **body: Any) -> Any:
    answer = await issuer.client.post(
        "/revocations/bulk", json=body, headers=admin.bearer
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def items_of(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"kind": kind, "key": key} for kind, key in pairs]


async def add_sessions(database: Database, user_id: str, **columns: Any) -> list[str]:
    """Insert sessions as rows; each column a list of as many values."""
    now = FakeClock().now
    count = len(next(iter(columns.values())))
    rows = [
        {
            "sid": str(uuid.uuid4()),
            "user_id": user_id,
            "client_id": "gatehouse",
            "device_label": "",
            "address": "192.0.2.7",
            "created_at": now,
            "last_used_at": now,
            "expires_at": now + 86_400,
        }
        | {name: values[number] for name, values in columns.items()}
        for number in range(count)
    ]
    async with database.write() as db:
        await db.execute(insert(Session), rows)
    return [row["sid"] for row in rows]


# --- by list -------------------------------------------------------------------------


async def test_every_kind_is_revoked_and_the_answer_counts(
    issuer: IssuerHarness, admin: Tokens
) -> None:
    await issuer.create_user("alice", PASSWORD)
    await issuer.create_user("bob", PASSWORD)
    alice, bob, kept = [await log_in(issuer, n) for n in ("alice", "bob", "alice")]
    made = await issuer.issuer.clients.clients.create(
        "robot", [], actor="system", caller=Caller()
    )
    await issuer.issuer.keys.rotation.rotate(actor="system", is_immediate=True)
    jwks = (await issuer.client.get("/.well-known/jwks.json")).json()["keys"]
    active = (await issuer.issuer.keys.store.signing_key()).kid
    (retired,) = {jwk["kid"] for jwk in jwks} - {active}
    admin = await log_in(issuer, "root")
    body = await post(
        issuer,
        admin,
        items=[
            *items_of(("sid", alice.sid), ("username", "BOB"), ("jti", "a-jti")),
            *items_of(("client", made.client_id), ("kid", retired)),
            *items_of(("kid", active), ("kid", "none"), ("user", "nobody")),
            *items_of(("client", "none"), ("username", "nobody"), ("username", "\t")),
            *items_of(("cookie", "x"), ("sid", alice.sid), ("kid", retired)),
        ],
    )
    assert body["revoked"] is True
    assert body["counts"] == {"revoked": 6, "already": 2, "refused": 6}
    assert sorted((p["item"], p["field"]) for p in body["problems"]) == [
        (7, "key"),
        (8, "key"),
        (9, "key"),
        (10, "key"),
        (11, "key"),
        (12, "kind"),
    ]
    feed = await read_feed(issuer)
    assert body["position"] == len(feed) == 6
    # The active key was among them: another signs.
    assert (await issuer.issuer.keys.store.signing_key()).kid not in {active, retired}
    assert {kind for kind, _, _ in feed} == {"sid", "user", "jti", "client", "kid"}
    assert is_invalid_grant(await post_refresh(issuer, alice.refresh_token))
    assert is_invalid_grant(await post_refresh(issuer, bob.refresh_token))
    assert (await post_refresh(issuer, kept.refresh_token)).status_code == 200
    async with issuer.database.read() as db:
        query = select(RefreshFamily.sid).where(RefreshFamily.revoked_at.is_not(None))
        assert set(await db.scalars(query)) == {alice.sid, bob.sid}


async def test_a_second_run_leaves_revoked_sessions_alone(
    issuer: IssuerHarness, admin: Tokens
) -> None:
    """A run that broke off is started again."""
    await issuer.create_user("alice", PASSWORD)
    tokens = await log_in(issuer, "alice")
    user_id = tokens.claims["sub"]
    items = items_of(("sid", tokens.sid), ("user", user_id), ("jti", "j"), ("sid", "g"))
    first = await post(issuer, admin, items=items)
    assert first["counts"] == {"revoked": 4, "already": 0, "refused": 0}
    again = await post(issuer, admin, items=items)
    assert again["counts"] == {"revoked": 0, "already": 4, "refused": 0}
    # A confirmation also covers earlier revocations.
    assert (again["revoked"], again["position"]) == (True, 4)
    assert len(await read_feed(issuer)) == 4


async def test_a_dry_run_counts_and_changes_nothing(
    issuer: IssuerHarness, admin: Tokens
) -> None:
    items = items_of(("sid", admin.sid), ("sid", "other"), ("sid", ""))
    body = await post(issuer, admin, items=items, dry_run=True)
    assert body["counts"] == {"revoked": 2, "already": 0, "refused": 1}
    assert body["revoked"] is False
    assert "position" not in body
    assert await read_feed(issuer) == []
    assert await is_accepted(issuer, admin)
    assert await read_audit(issuer, "bulk.revoked") == []


async def test_an_entry_stays_in_the_feed_as_long_as_its_token_may_live(
    issuer: IssuerHarness, admin: Tokens
) -> None:
    now = issuer.clock.now
    last = last_expiry(now)
    far, ahead, near, dead = now + 10**9, last + 20, now + 100, now - 1_000
    items = [
        {"kind": "jti", "key": "far", "exp": far},
        {"kind": "jti", "key": "ahead", "exp": ahead},
        {"kind": "jti", "key": "near", "exp": near},
        {"kind": "jti", "key": "dead", "exp": dead},
        {"kind": "jti", "key": "open"},
    ]
    body = await post(issuer, admin, items=items)
    assert body["counts"] == {"revoked": 5, "already": 0, "refused": 0}
    async with issuer.database.read() as db:
        rows = await db.execute(select(FeedEntryRow.key, FeedEntryRow.prune_at))
        ends = {row.key: row.prune_at for row in rows}
    # R50a: `exp` is the caller's word. It can lengthen an entry, by as much as clocks
    # may differ, and never shorten it.
    assert ends == {
        "far": last + 120,
        "ahead": last + 80,
        "near": last,
        "dead": last,
        "open": last,
    }
    # An entry counts as there only if it lasts as long as the row says the token does.
    items = [{"kind": "jti", "key": "open", "exp": last + 1}]
    body = await post(issuer, admin, items=[*items, {"kind": "jti", "key": "far"}])
    assert body["counts"] == {"revoked": 1, "already": 1, "refused": 0}


async def test_user_with_only_a_personal_key_is_logged_out(
    issuer: IssuerHarness, admin: Tokens
) -> None:
    """R49: "no living session" is not "no living token"."""
    await issuer.create_user("alice", PASSWORD)
    tokens = await log_in(issuer, "alice")
    user_id = tokens.claims["sub"]
    for kind, key, generation in [("user", user_id, 1), ("username", "alice", 2)]:
        tokens = await log_in(issuer, "alice")
        made = await make_key(issuer, tokens, scopes=[])
        await post(issuer, admin, items=items_of(("sid", tokens.sid)))
        await get_token(issuer, made["key"])
        body = await post(issuer, admin, items=items_of((kind, key)))
        assert body["counts"] == {"revoked": 1, "already": 0, "refused": 0}
        assert (await read_feed(issuer))[-1] == ("user", user_id, generation)
        assert is_dead(await exchange(issuer, made["key"]))


async def test_sid_of_a_personal_key_ends_the_key(
    issuer: IssuerHarness, admin: Tokens
) -> None:
    """R50: an entry is pruned after an hour; the key must not mint its sid again."""
    await issuer.create_user("alice", PASSWORD)
    tokens = await log_in(issuer, "alice")
    keys = [await make_key(issuer, tokens, scopes=[]) for _ in range(2)]
    await issuer.issuer.sessions.logout.end_any(keys[0]["id"], Caller(), actor="system")
    body = await post(issuer, admin, items=items_of(("sid", keys[1]["id"])))
    assert body["counts"]["revoked"] == 1
    for key in keys:
        assert is_dead(await exchange(issuer, key["key"]))


async def test_a_bulk_run_can_be_confirmed(
    issuer: IssuerHarness, admin: Tokens
) -> None:
    answer = await issuer.client.post(
        "/revocations/bulk",
        json={"items": items_of(("sid", "s1"), ("sid", ""))},
        headers=admin.bearer | {"Prefer": "wait=2"},
    )
    assert answer.headers["Preference-Applied"] == "wait=2"
    body = answer.json()
    assert (body["position"], body["confirmed"]) == (1, True)
    assert body["followers"] == {"confirmed": 0, "pending": [], "exempt": []}
    assert body["counts"] == {"revoked": 1, "already": 0, "refused": 1}


async def test_a_new_epoch_within_a_run_is_not_passed_over() -> None:
    """docs/revocation.md: what the older epoch held may be lost."""

    async def outcomes() -> AsyncIterator[BulkOutcome]:
        yield BulkOutcome(revoked=1, position=Position("old", 1))
        yield BulkOutcome(revoked=1, position=Position("new", 2))

    with pytest.raises(UnavailableError, match="send it again"):
        await collect(outcomes())


async def test_each_chunk_is_recorded_with_everything_in_it(
    issuer: IssuerHarness, admin: Tokens
) -> None:
    await post(issuer, admin, items=items_of(("sid", "s1"), ("jti", "j1")))
    (event,) = await read_audit(issuer, "bulk.revoked")
    assert event["actor"] == admin.claims["sub"]
    assert event["address"] == "192.0.2.7"
    assert event["facts"] == {"source": "items", "revoked": 2, "keys": "jti:j1 sid:s1"}


# --- by filter -----------------------------------------------------------------------


async def find(issuer: IssuerHarness, **conditions: Any) -> set[str]:
    sessions = SessionFilter(**conditions)
    pages = sessions.find_sids(issuer.database, issuer.clock.now, page=2)
    found = [sid async for sids in pages for sid in sids]
    assert len(found) == len(set(found))
    return set(found)


async def test_a_filter_finds_rows_that_meet_all_its_conditions(
    issuer: IssuerHarness,
) -> None:
    now = issuer.clock.now
    async with issuer.database.write() as db:
        db.add(Role(name="clerk", scopes="", created_at=now))
    alice = await issuer.create_user("alice", PASSWORD)
    bob = await issuer.create_user("bob", PASSWORD, ["clerk"])
    old, ended, gone, young, unix = await add_sessions(
        issuer.database,
        alice.id,
        created_at=[now - 100, now - 100, now - 100, now, now],
        ended_at=[None, now, None, None, None],
        # The third expired just now: some verifier may still take its last token.
        expires_at=[now + 9, now + 9, now - 180, now + 9, now - 179],
        address=["192.0.2.7"] * 3 + ["2001:db8::1", "unix"],
    )
    bobs, apps = await add_sessions(
        issuer.database, bob.id, client_id=["gatehouse", "gc_app"]
    )
    assert await find(issuer, started_before=now) == {old}
    assert await find(issuer, started_since=now) == {young, unix, bobs, apps}
    assert await find(issuer, role="clerk") == {bobs, apps}
    assert await find(issuer, role="clerk", client_id="gc_app") == {apps}
    assert await find(issuer, role="nobody") == set()
    network = read_network("192.0.2.0/24")
    assert await find(issuer, address=network) == {old, bobs, apps}
    assert await find(issuer, address=read_network("2001:db8::/32")) == {young}
    assert await find(issuer, address=network, started_before=now) == {old}
    assert {ended, gone}.isdisjoint(await find(issuer, started_before=now + 1))


async def test_sessions_end_by_filter(issuer: IssuerHarness, admin: Tokens) -> None:
    await issuer.create_user("alice", PASSWORD)
    old = await log_in(issuer, "alice")
    issuer.clock.advance(10)
    young = await log_in(issuer, "alice")
    condition = {"started_before": issuer.clock.now, "client_id": "gatehouse"}
    trial = await post(issuer, admin, filter=condition, dry_run=True)
    assert trial["counts"]["revoked"] == 2
    assert await is_accepted(issuer, old)
    body = await post(issuer, admin, filter=condition)
    assert body["counts"] == {"revoked": 2, "already": 0, "refused": 0}
    assert not await is_accepted(issuer, old)
    assert not await is_accepted(issuer, admin)
    assert await is_accepted(issuer, young)
    (event,) = await read_audit(issuer, "bulk.revoked")
    shown = f"client_id=gatehouse started_before={issuer.clock.now}"
    assert event["facts"]["source"] == shown


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"items": []},
        {"items": "x"},
        {"items": [{}], "filter": {"role": "x"}},
        {"filter": {}},
        {"filter": {"address": "somewhere"}},
        {"filter": {"address": "192.0.2.7/24"}},
        {"filter": {"started_before": "now"}},
        {"filter": {"started_before": True}},
        {"filter": {"why": "x"}},
        {"filter": {"role": "x"}, "dry_run": "yes"},
        {"filter": {"role": "x"}, "force": True},
    ],
    ids=str,
)
async def test_a_body_that_could_mean_two_things_is_refused(
    issuer: IssuerHarness, admin: Tokens, body: Any
) -> None:
    answer = await issuer.client.post(
        "/revocations/bulk", json=body, headers=admin.bearer
    )
    assert answer.status_code == 400, answer.text
    assert answer.json()["problems"]
    assert await read_feed(issuer) == []


async def test_a_filter_without_conditions_cannot_be_made() -> None:
    with pytest.raises(InvalidRequestError):
        SessionFilter()


# --- who may, and how much -----------------------------------------------------------


async def test_administrators_alone_may_and_others_bodies_are_not_read(
    issuer: IssuerHarness,
) -> None:
    await issuer.create_user("alice", PASSWORD)
    alice = await log_in(issuer, "alice")
    for headers, status in ((alice.bearer, 403), ({}, 401)):
        answer = await issuer.client.post(
            "/revocations/bulk", content=b"{", headers=headers
        )
        assert answer.status_code == status
    assert await read_feed(issuer) == []


async def test_a_bulk_body_may_be_larger_than_others_and_has_a_limit(
    database_url: str,
) -> None:
    """R35."""
    settings = make_settings(database_url, bulk_max_body_bytes=100_000)
    async with running_issuer(settings) as issuer:
        await issuer.issuer.accounts.users.create_admin(
            "root", PASSWORD, caller=Caller()
        )
        admin = await log_in(issuer, "root")
        items = items_of(*(("jti", f"jti-{n:040}") for n in range(1_000)))
        body = await post(issuer, admin, items=items)
        assert body["counts"]["revoked"] == body["position"] == 1_000
        answer = await issuer.client.post(
            "/revocations/bulk", json={"items": items * 2}, headers=admin.bearer
        )
        assert answer.status_code == 413
        answer = await issuer.client.post("/auth/login", json={"x": "y" * 20_000})
        assert answer.status_code == 413


# --- many, beside others -------------------------------------------------------------


async def test_a_run_that_breaks_off_is_finished_by_another(
    issuer: IssuerHarness,
) -> None:
    parts = issuer.issuer
    items = [BulkItem(n, BulkKind.SID, f"sid-{n}") for n in range(1, 26)]
    bulk = small_chunks(parts, 10)
    async for outcome in bulk.revoke(items, RUN):
        assert outcome.position is not None
        assert outcome.position.seq == outcome.revoked == 10
        break
    assert len(await read_feed(issuer)) == 10
    rest = await collect(bulk.revoke(items, RUN))
    assert rest.position is not None
    assert (rest.revoked, rest.already, rest.position.seq) == (15, 10, 25)


async def test_two_runs_of_the_same_rows_do_not_lock_each_other_out(
    issuer: IssuerHarness,
) -> None:
    user = await issuer.create_user("alice", PASSWORD)
    sids = await add_sessions(issuer.database, user.id, device_label=[""] * 40)
    bulk = small_chunks(issuer.issuer, 20)

    async def run(order: Iterable[str]) -> BulkOutcome:
        items = [BulkItem(n, BulkKind.SID, sid) for n, sid in enumerate(order, 1)]
        return await collect(bulk.revoke(items, RUN))

    everywhere = issuer.issuer.sessions.logout.log_out_everywhere(
        user.id, Caller(), actor="system"
    )
    done = await asyncio.gather(run(sids), run(reversed(sids)), everywhere)
    assert all(o.revoked + o.already == 40 for o in done[:2])
    async with issuer.database.read() as db:
        living = select(func.count()).where(Session.ended_at.is_(None))
        assert await db.scalar(living) == 0


def small_chunks(parts: Issuer, chunk: int) -> BulkRevocation:
    bulk = parts.revoking.bulk
    return BulkRevocation(
        parts.base,
        bulk._rows,
        bulk._ending,
        bulk._revocations,
        bulk._feed,
        chunk=chunk,
    )


@pytest.mark.parametrize("rows", [5_000])
async def test_single_revocations_go_on_beside_a_bulk_run(
    database_url: str, rows: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Issue 5: no other revocation waits longer than a second.

    On a machine so busy that a chunk takes longer, no longer than a part of the run.
    """
    issuer = compose(make_settings(database_url), clock=FakeClock())
    user = await issuer.accounts.users.create(
        "alice", PASSWORD, (), actor="system", caller=Caller()
    )
    sids: list[str] = []
    while len(sids) < rows:
        sids += await add_sessions(
            issuer.base.database, user.id, device_label=[""] * 1_000
        )
    items = [BulkItem(n, BulkKind.SID, sid) for n, sid in enumerate(sids, 1)]
    is_over = asyncio.Event()

    async def run() -> BulkOutcome:
        try:
            return await collect(issuer.revoking.bulk.revoke(items, RUN))
        finally:
            is_over.set()

    async def revoke_singly() -> AsyncIterator[float]:
        while not is_over.is_set():
            began = time.perf_counter()
            await issuer.sessions.logout.end_any(str(uuid.uuid4()), Caller(), actor="x")
            yield time.perf_counter() - began

    began = time.perf_counter()
    task = asyncio.create_task(run())
    waits = sorted([wait async for wait in revoke_singly()])
    outcome = await task
    took = time.perf_counter() - began
    await issuer.close()
    assert (outcome.revoked, outcome.refused) == (rows, ())
    assert len(waits) > 5
    with capsys.disabled():
        print(
            f"\n{database_url[:6]}: {rows} in {took:.1f} s beside {len(waits)} singly: median "
            f"{waits[len(waits) // 2] * 1e3:.0f} ms, p99 "
            f"{waits[int(len(waits) * 0.99)] * 1e3:.0f} ms, longest "
            f"{waits[-1] * 1e3:.0f} ms"
        )
    assert waits[-1] < max(1.0, took / 2)


def test_refused_rows_are_counted_among_the_rows() -> None:
    position = Position("epoch", 7)
    first = BulkOutcome(1, 2, (RefusedItem(3, "key", "x"),), position)
    outcome = first + BulkOutcome(1)
    assert (outcome.rows, outcome.position) == (5, position)
