"""Any history of sign-ins, refreshes, replays, races, waits and logouts (R28, R29).

The machine drives the real code on a real SQLite database; on PostgreSQL it does so in
`integration/issuer/test_refresh_family_postgres.py`. Beside it stands a model of
a few lines, which says for every token ever handed out what presenting it must do. Two
things hold after every step: a family has at most one living token, and a family that
was once revoked never yields a token again.
"""

from __future__ import annotations

import asyncio
import atexit
import shutil
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    rule,
)
from sqlalchemy import select

from issuer import migrations
from issuer.acts import Caller
from issuer.composition import Issuer, compose
from issuer.errors import InvalidGrantError, ReuseDetectedError
from issuer.storage.tables.feed import FeedEntryRow
from issuer.storage.tables.sessions import RefreshFamily, Session
from issuer.tokens.opaque_tokens import digest_token
from issuer.tokens.subjects import load_subject
from tests.support.issuer_harness import FakeClock, make_settings
from tests.support.proofs import examples

pytestmark = pytest.mark.proof

T = TypeVar("T")
GRACE, IDLE, ABSOLUTE = 10, 300, 900
CALLER = Caller("192.0.2.7")


@dataclass
class Family:
    """The truth about one family."""

    sid: str
    tokens: list[str]  #: by generation, as handed out
    rotated_at: int
    expires_at: int
    is_revoked: bool = False

    def expect(self, generation: int, now: int) -> str:
        """The required outcome of presenting the token of a generation: one word."""
        current = len(self.tokens) - 1
        age = now - self.rotated_at
        if self.is_revoked:
            return "revoked"
        if now >= self.expires_at or age >= IDLE:
            return "expired"
        if generation == current:
            return "rotate"
        if generation == current - 1 and age < GRACE:
            return "repeat"
        return "reuse"


class RefreshFamilyMachine(RuleBasedStateMachine):
    """The issuer's sessions beside the model."""

    families = Bundle("families")

    def __init__(self) -> None:
        super().__init__()
        url = self.make_database()
        self.runner = asyncio.Runner()
        self.clock = FakeClock()
        self.issuer: Issuer = compose(family_settings(url), clock=self.clock)
        self.user_id = self.run(self.issuer.accounts.users.find("alice")).id
        self.known: list[Family] = []

    def make_database(self) -> str:
        """Return the URL of a database of this example's own."""
        self.directory = tempfile.TemporaryDirectory()
        path = Path(self.directory.name) / "issuer.db"
        shutil.copyfile(template(), path)
        return f"sqlite+aiosqlite:///{path}"

    def remove_database(self) -> None:
        """Remove it."""
        self.directory.cleanup()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def teardown(self) -> None:
        self.run(self.issuer.close())
        self.runner.close()
        self.remove_database()

    @rule(target=families)
    def sign_in(self) -> Family:
        sid, token = self.run(self._open())
        now = self.clock.now
        family = Family(sid, [token], now, now + ABSOLUTE)
        self.known.append(family)
        return family

    @rule(family=families, back=st.integers(0, 4))
    def present(self, family: Family, back: int) -> None:
        """Present the current token, the one before, or an older one."""
        generation = max(len(family.tokens) - 1 - back, 0)
        expected = family.expect(generation, self.clock.now)
        try:
            pair = self.run(
                self.issuer.sessions.sessions.refresh(family.tokens[generation], CALLER)
            )
        except ReuseDetectedError:
            assert expected == "reuse"
            family.is_revoked = True
        except InvalidGrantError:
            assert expected in {"revoked", "expired"}
        else:
            self._take(family, expected, pair.refresh_token)

    @rule(family=families, rotations=st.integers(1, 3), back=st.sampled_from([2, 3, 1]))
    def rotate_and_replay(self, family: Family, rotations: int, back: int) -> None:
        """An old token right after its successors were made and used."""
        for _ in range(rotations):
            self.present(family, back=0)
        self.present(family, back)

    @rule(family=families)
    def rotate_until_the_session_ends(self, family: Family) -> None:
        """Never idle for too long, and ended all the same (ASVS 10.4.8)."""
        while self.clock.now < family.expires_at:
            self.present(family, back=0)
            left = family.expires_at - self.clock.now
            self.clock.advance(min(left, IDLE - 1))
        self.present(family, back=0)

    @rule(family=families, count=st.integers(2, 5))
    def present_at_once(self, family: Family, count: int) -> None:
        """Several callers present the current token in the same moment."""
        generation = len(family.tokens) - 1
        expected = family.expect(generation, self.clock.now)
        outcomes = self.run(self._refresh_at_once(family.tokens[generation], count))
        if expected == "rotate":
            successors = {outcome.refresh_token for outcome in outcomes}
            assert len(successors) == 1
            self._take(family, expected, successors.pop())
        else:
            assert all(isinstance(o, InvalidGrantError) for o in outcomes)

    @rule(family=families, back=st.integers(2, 4))
    def race_a_replay_with_a_rotation(self, family: Family, back: int) -> None:
        """A thief's old token and the owner's current one in the same moment."""
        current = len(family.tokens) - 1
        spent = current - back
        if spent < 0 or family.expect(spent, self.clock.now) != "reuse":
            return
        outcomes = self.run(
            self._refresh_both(family.tokens[spent], family.tokens[current])
        )
        assert isinstance(outcomes[0], ReuseDetectedError)
        if not isinstance(outcomes[1], InvalidGrantError):
            self._take(family, "rotate", outcomes[1].refresh_token)
        family.is_revoked = True

    @rule(seconds=st.sampled_from([1, 1, GRACE - 1, GRACE, 60, IDLE - 1, IDLE]))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule(family=families, back=st.integers(0, 2))
    def log_out(self, family: Family, back: int) -> None:
        """With any token of the family, spent or not."""
        token = family.tokens[max(len(family.tokens) - 1 - back, 0)]
        self.run(self.issuer.sessions.logout.log_out_by_refresh(token, CALLER))
        family.is_revoked = True

    @rule()
    def log_out_everywhere(self) -> None:
        self.run(
            self.issuer.sessions.logout.log_out_everywhere(
                self.user_id, CALLER, actor=self.user_id
            )
        )
        for family in self.known:
            family.is_revoked = True

    @invariant()
    def at_most_one_token_of_a_family_lives(self) -> None:
        """R28: the database has one digest per family, and it is the newest
        token's.
        """
        rows = self.run(self._read_families())
        assert len(rows) == len(self.known)
        for family in self.known:
            digest, revoked_at = rows[family.sid]
            assert (revoked_at is not None) == family.is_revoked
            living = [t for t in family.tokens if digest_token(t) == digest]
            assert living == [family.tokens[-1]]
            assert len(set(family.tokens)) == len(family.tokens)

    @invariant()
    def what_was_revoked_stands_in_the_feed(self) -> None:
        """Its access tokens are refused by every verifier that has read so far."""
        ended, shown = self.run(self._read_endings())
        revoked = {family.sid for family in self.known if family.is_revoked}
        assert ended == revoked
        assert revoked <= shown

    def _take(self, family: Family, expected: str, token: str) -> None:
        assert not family.is_revoked
        if expected == "repeat":
            assert token == family.tokens[-1]
            return
        assert expected == "rotate"
        assert token not in family.tokens
        family.tokens.append(token)
        family.rotated_at = self.clock.now

    async def _open(self) -> tuple[str, str]:
        async with self.issuer.base.database.write() as db:
            subject = await load_subject(db, self.user_id, is_locked=True)
            assert subject is not None
            session = await self.issuer.sessions.sessions.open(db, subject, CALLER)
        return session.grant.sid, session.refresh_token

    async def _refresh_at_once(self, token: str, count: int) -> list[Any]:
        return await self._gather([token] * count)

    async def _refresh_both(self, first: str, second: str) -> list[Any]:
        return await self._gather([first, second])

    async def _gather(self, tokens: list[str]) -> list[Any]:
        outcomes = await asyncio.gather(
            *(self.issuer.sessions.sessions.refresh(token, CALLER) for token in tokens),
            return_exceptions=True,
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException) and not isinstance(
                outcome, InvalidGrantError
            ):
                raise outcome
        return list(outcomes)

    async def _read_families(self) -> dict[str, tuple[bytes, int | None]]:
        async with self.issuer.base.database.read() as db:
            rows = await db.scalars(select(RefreshFamily))
            return {row.sid: (row.current_digest, row.revoked_at) for row in rows}

    async def _read_endings(self) -> tuple[set[str], set[str]]:
        """Return the sids that have ended, and those that the feed revokes."""
        async with self.issuer.base.database.read() as db:
            sessions = (await db.scalars(select(Session))).all()
            entries = (await db.scalars(select(FeedEntryRow))).all()
        ended = {session.sid for session in sessions if session.ended_at is not None}
        shown = {entry.key for entry in entries if entry.kind == "sid"}
        if any(entry.kind == "user" for entry in entries):
            # Their tokens carry a smaller generation.
            shown |= ended
        return ended, shown


def family_settings(url: str) -> Any:
    return make_settings(
        url,
        refresh_grace=GRACE,
        refresh_idle_ttl=IDLE,
        refresh_ttl=ABSOLUTE,
    )


@cache
def template() -> Path:
    """A migrated database with a signing key and a user, copied for every example."""
    directory = tempfile.mkdtemp(prefix="gatehouse-template-")
    atexit.register(shutil.rmtree, directory)
    path = Path(directory) / "template.db"
    prepare(f"sqlite+aiosqlite:///{path}")
    return path


def prepare(url: str) -> None:
    """Migrate a database, and give it a signing key and a user."""
    migrations.upgrade(url)

    async def make_key() -> None:
        issuer = compose(family_settings(url), clock=FakeClock())
        await issuer.keys.store.ensure_active()
        await issuer.accounts.users.create(
            "alice", "correct horse battery", actor="system", caller=CALLER
        )
        await issuer.close()

    asyncio.run(make_key())


RefreshFamilyMachine.TestCase.settings = settings(
    max_examples=examples(25),
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestRefreshFamily = RefreshFamilyMachine.TestCase
