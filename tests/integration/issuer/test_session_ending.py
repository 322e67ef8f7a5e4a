"""`end_sessions` ends exactly what it is asked to, in rows and in the feed."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from issuer.feed.feed import Position
from issuer.sessions.session_ending import Ended, SessionsToEnd
from issuer.storage.tables.personal_keys import PersonalKey
from issuer.storage.tables.sessions import RefreshFamily, Session
from shared.feed import EntryKind, parse_page
from tests.support.issuer_harness import FEED_TOKEN, IssuerHarness
from tests.support.issuer_story import PASSWORD, log_in
from tests.support.personal_keys import make_key

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


class People:
    """Alice with two sessions and a key, bob with one of each.

    Attributes:
        users: their ids by name.
        sids: their sessions by name.
        keys: the ids of their keys by name.
    """

    def __init__(self) -> None:
        self.users: dict[str, str] = {}
        self.sids: dict[str, list[str]] = {}
        self.keys: dict[str, str] = {}


async def settle(issuer: IssuerHarness) -> People:
    people = People()
    for name in ("alice", "bob"):
        await issuer.create_user(name, PASSWORD)
        tokens = await log_in(issuer, name)
        if name == "alice":
            await log_in(issuer, name)
        key = await make_key(issuer, tokens, scopes=[], expires_in=3_600)
        people.keys[name] = key["id"]
    async with issuer.database.read() as db:
        for row in (await db.execute(select(Session.sid, Session.user_id))).all():
            people.sids.setdefault(row.user_id, []).append(row.sid)
        owners = dict(
            (await db.execute(select(PersonalKey.id, PersonalKey.user_id))).all()
        )
    people.users = {name: owners[key] for name, key in people.keys.items()}
    people.sids = {name: people.sids[id] for name, id in people.users.items()}
    return people


async def end(issuer: IssuerHarness, which: SessionsToEnd) -> Ended:
    async with issuer.database.write() as db:
        return await issuer.issuer.sessions.ending.end_sessions(
            db, which, reason="test", now=issuer.clock.now
        )


async def living(issuer: IssuerHarness) -> tuple[set[str], set[str], set[str]]:
    """Return the living sessions, those with living refresh tokens, and keys."""
    async with issuer.database.read() as db:
        sessions = await db.scalars(
            select(Session.sid).where(Session.ended_at.is_(None))
        )
        families = await db.scalars(
            select(RefreshFamily.sid).where(RefreshFamily.revoked_at.is_(None))
        )
        keys = await db.scalars(
            select(PersonalKey.id).where(PersonalKey.revoked_at.is_(None))
        )
        return set(sessions), set(families), set(keys)


async def test_one_session_ends_with_its_refresh_tokens_alone(
    issuer: IssuerHarness,
) -> None:
    people = await settle(issuer)
    sessions, families, keys = await living(issuer)
    sid = people.sids["alice"][0]
    ended = await end(issuer, SessionsToEnd(sids=[sid]))
    assert ended == Ended({sid: people.users["alice"]}, {})
    assert await living(issuer) == (sessions - {sid}, families - {sid}, keys)
    # What has ended has ended: it is not counted, dated or published again.
    issuer.clock.advance(1)
    assert await end(issuer, SessionsToEnd(sids=[sid])) == Ended({}, {})
    async with issuer.database.read() as db:
        at = await db.scalar(select(Session.ended_at).where(Session.sid == sid))
    assert at == issuer.clock.now - 1


async def test_a_user_ends_with_everything_and_nobody_else_does(
    issuer: IssuerHarness,
) -> None:
    people = await settle(issuer)
    sessions, families, keys = await living(issuer)
    alice, sids = people.users["alice"], set(people.sids["alice"])
    ended = await end(issuer, SessionsToEnd(user_ids=[alice]))
    key = people.keys["alice"]
    assert ended == Ended(dict.fromkeys(sids, alice), {key: alice})
    assert await living(issuer) == (sessions - sids, families - sids, keys - {key})


async def test_the_kept_session_loses_its_refresh_tokens_and_the_keys_may_stay(
    issuer: IssuerHarness,
) -> None:
    people = await settle(issuer)
    sessions, families, keys = await living(issuer)
    kept, other = people.sids["alice"]
    which = SessionsToEnd(
        user_ids=[people.users["alice"]], keep_sid=kept, keep_keys=True
    )
    assert await end(issuer, which) == Ended({other: people.users["alice"]}, {})
    assert await living(issuer) == (
        sessions - {other},
        families - {kept, other},
        keys,
    )


async def test_a_key_named_by_its_sid_ends_though_keys_are_kept(
    issuer: IssuerHarness,
) -> None:
    """R50: the `sid` of a key's tokens is the key's id."""
    people = await settle(issuer)
    sessions, families, keys = await living(issuer)
    key = people.keys["bob"]
    ended = await end(issuer, SessionsToEnd(sids=[key, "unknown"], keep_keys=True))
    assert ended == Ended({}, {key: people.users["bob"]})
    assert await living(issuer) == (sessions, families, keys - {key})


async def test_nothing_named_ends_nothing(issuer: IssuerHarness) -> None:
    await settle(issuer)
    before = await living(issuer)
    assert await end(issuer, SessionsToEnd()) == Ended({}, {})
    assert await living(issuer) == before


async def test_every_entry_outlives_every_token(issuer: IssuerHarness) -> None:
    """An entry that is pruned earlier accepts what it revoked again."""
    ending, now = issuer.issuer.sessions.ending, issuer.clock.now
    async with issuer.database.write() as db:
        first = await ending.publish_sids(db, ["one", "two"], now)
    async with issuer.database.write() as db:
        last = await ending.publish_generation(db, "someone", 7, now)
    assert isinstance(first, Position)
    assert (first.seq, last.seq) == (2, 3)
    answer = await issuer.client.get(
        "/revocations/snapshot", headers={"Authorization": f"Bearer {FEED_TOKEN}"}
    )
    entries = parse_page(answer.content).entries
    assert [(e.kind, e.key, e.minimum_generation) for e in entries] == [
        (EntryKind.SID, "one", 0),
        (EntryKind.SID, "two", 0),
        (EntryKind.USER, "someone", 7),
    ]
    assert all(e.prune_at >= now + issuer.settings.access_ttl for e in entries)
