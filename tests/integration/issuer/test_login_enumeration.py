"""Time and body of a refusal do not reveal whether an account exists (R32).

Time is counted, not measured: each hash takes its work's time on a clock of the test,
so that comparisons are exact on a busy machine. Only the last test
measures.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

import pytest
from sqlalchemy import delete, event, update
from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.accounts.user_rows import UserRow
from issuer.acts import Caller
from issuer.errors import (
    InvalidCredentialsError,
    TooManyRequestsError,
    UnavailableError,
)
from issuer.hashing.hash_times import HashTimes
from issuer.hashing.hash_work import Work, bcrypt_work
from issuer.hashing.hashing_pool import HashingPool
from issuer.hashing.parts import HashingParts
from issuer.hashing.passwords import PasswordHasher
from issuer.login.parts import LoginParts
from issuer.settings.issuer_settings import IssuerSettings, KeyRing
from issuer.storage.db import Database
from issuer.storage.tables.login import StoredWork
from issuer.storage.tables.users import User
from tests.support.imported import HASHES
from tests.support.issuer_harness import (
    CHEAP_COST,
    IssuerHarness,
    make_settings,
    running_issuer,
)
from tests.support.issuer_story import PASSWORD, read_audit
from tests.support.login_story import GATEWAY, OFFICE
from tests.support.timed_hashing import CountedTime, TimedHasher, seconds_of

WRONG = "wrong horse battery"
CALLER = Caller(OFFICE, "test", "c" * 32)
PRESENT = bcrypt_work(CHEAP_COST)
#: Name and password of each kind; the others are compared with the first.
KINDS = {
    "known": ("alice", WRONG),
    "unknown": ("nobody", WRONG),
    "disabled, right password": ("disabled", PASSWORD),
    "malformed hash": ("broken", WRONG),
    "over-long name": ("x" * 3_000, WRONG),
    "over-long password": ("alice", "x" * 3_000),
    "empty": ("", ""),
    "imported, over-long password": ("argon2id", "x" * 3_000),
} | {f"imported {name}": (name, WRONG) for name in HASHES}


@dataclass(frozen=True)
class Desk:
    """A login over an issuer's database, on counted time."""

    parts: LoginParts
    time: CountedTime
    times: HashTimes
    pool: HashingPool
    hasher: TimedHasher

    async def fail(self, username: str, password: str = WRONG) -> None:
        """Log in, which must be refused as every failed login is."""
        with pytest.raises(InvalidCredentialsError) as refused:
            await self.parts.login.log_in(username, password, CALLER)
        assert refused.value.description == InvalidCredentialsError.default_description


@contextmanager
def open_desk(
    issuer: IssuerHarness,
    cost: int = CHEAP_COST,
    queue: int = 9,
    sleep: Callable[[float], Awaitable[None]] | None = None,
    settings: IssuerSettings | None = None,
    database: Database | None = None,
) -> Iterator[Desk]:
    """Give another replica's login over the same database."""
    clock = CountedTime()
    times = HashTimes(bcrypt_work(cost))
    hasher = TimedHasher(
        issuer.settings.password_peppers,
        cost=cost,
        elapsed=clock,
        on_hashed=times.note,
    )
    hasher.time, hasher.done = clock, []
    pool = HashingPool(workers=1, queue=queue)
    base = replace(
        issuer.issuer.base,
        settings=settings or issuer.settings,
        database=database or issuer.database,
        elapsed=clock,
    )
    hashing = HashingParts(base, hasher, pool, times)
    sessions = issuer.issuer.sessions
    parts = LoginParts(base, hashing, sessions, sleep or clock.sleep)
    try:
        yield Desk(parts, clock, times, pool, hasher)
    finally:
        pool.close()


async def run_import(issuer: IssuerHarness, **hashes: str) -> None:
    """Import accounts by these names with these hashes, each of which must be taken."""
    rows = [
        UserRow(line, b"", name, (), None, text)
        for line, (name, text) in enumerate(hashes.items(), 1)
    ]
    outcomes = issuer.issuer.accounts.user_import.run(rows, actor="test", caller=CALLER)
    assert [outcome.created async for outcome in outcomes] == [len(rows)]


@pytest.fixture
async def issuer(sqlite_url: str) -> AsyncIterator[IssuerHarness]:
    settings = make_settings(
        sqlite_url,
        trusted_proxies=(GATEWAY,),
        login_free_failures=100,
        login_source_free_failures=100_000,
    )
    async with running_issuer(settings) as harness:
        await harness.create_user("alice", PASSWORD)
        disabled = await harness.create_user("disabled", PASSWORD)
        broken = await harness.create_user("broken", PASSWORD)
        async with harness.database.write() as db:
            users = update(User)
            await db.execute(users.where(User.id == disabled.id).values(disabled_at=1))
            broken_hash = users.where(User.id == broken.id).values(password_hash="!")
            await db.execute(broken_hash)
        yield harness


async def test_every_failed_login_is_answered_after_the_costliest_hashs_time(
    issuer: IssuerHarness,
) -> None:
    """R32: for any time of its own hash, before any login by the costliest."""
    await run_import(issuer, **HASHES)
    with open_desk(issuer) as desk:
        await desk.parts.costliest.refresh()
        costliest = max(seconds_of(adopt(text)[1]) for text in HASHES.values())
        assert costliest > 2 * seconds_of(PRESENT)
        took = {}
        for kind, (username, password) in KINDS.items():
            begun, hashes = desk.time(), len(desk.hasher.done)
            await desk.fail(username, password)
            took[kind] = round(desk.time() - begun, 6)
            assert len(desk.hasher.done) == hashes + 1, kind
        assert took == dict.fromkeys(KINDS, round(costliest, 6))


async def test_a_right_password_is_not_waited_for(issuer: IssuerHarness) -> None:
    await run_import(issuer, **HASHES)
    with open_desk(issuer) as desk:
        await desk.parts.costliest.refresh()
        begun = desk.time()
        await desk.parts.login.log_in("alice", PASSWORD, CALLER)
        assert desk.time() - begun == pytest.approx(seconds_of(PRESENT))
        assert desk.time.slept == []


_is_ours: ContextVar[bool] = ContextVar("is_ours", default=False)


@contextmanager
def listen() -> Iterator[list[str]]:
    """Collect the statements that the block sends; the issuer's tasks send others."""
    sent: list[str] = []

    def note(_conn, _cursor, statement, _parameters, _context, _many) -> None:
        if _is_ours.get():
            sent.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    token = _is_ours.set(True)
    try:
        yield sent
    finally:
        _is_ours.reset(token)
        event.remove(Engine, "before_cursor_execute", note)


async def test_every_failed_login_sends_the_same_statements(
    issuer: IssuerHarness,
) -> None:
    """R32: the same statements, so the database's time reveals nothing."""
    await run_import(issuer, **HASHES)
    with open_desk(issuer) as desk:
        await desk.parts.costliest.refresh()
        sent = {}
        for kind, (username, password) in KINDS.items():
            with listen() as sent[kind]:
                await desk.fail(username, password)
    assert sent["known"]
    for kind, statements in sent.items():
        assert statements == sent["known"], kind


async def test_a_throttled_login_does_not_reveal_whether_the_account_exists(
    issuer: IssuerHarness,
) -> None:
    """R32, R34: no hash, no wait, the same statements and the same error."""
    strict = issuer.settings.model_copy(update={"login_free_failures": 1})
    with open_desk(issuer, settings=strict) as desk:
        sent = {}
        for name in ("alice", "nobody"):
            await desk.fail(name)
            hashes, begun = len(desk.hasher.done), desk.time()
            with listen() as sent[name], pytest.raises(TooManyRequestsError) as refused:
                await desk.parts.login.log_in(name, PASSWORD, CALLER)
            assert refused.value.retry_after == 1
            assert (len(desk.hasher.done), desk.time()) == (hashes, begun)
    assert sent["alice"] == sent["nobody"]


class Gate:
    """A sleep that lasts until the test ends it."""

    def __init__(self) -> None:
        self.is_reached = asyncio.Event()
        self.may_pass = asyncio.Event()
        self.is_cancelled = False

    async def __call__(self, seconds: float) -> None:
        assert seconds > 0
        self.is_reached.set()
        try:
            await self.may_pass.wait()
        except asyncio.CancelledError:
            self.is_cancelled = True
            raise


async def test_the_wait_holds_no_thread_and_ends_with_its_request(
    issuer: IssuerHarness,
) -> None:
    """R32, R33: and the failure is recorded before, even if its caller hangs up."""
    await run_import(issuer, argon2id=HASHES["argon2id"])
    gate = Gate()
    with open_desk(issuer, queue=0, sleep=gate) as desk:
        await desk.parts.costliest.refresh()
        waiting = asyncio.create_task(desk.fail("nobody"))
        reached = asyncio.create_task(gate.is_reached.wait())
        await asyncio.wait((waiting, reached), return_when=asyncio.FIRST_COMPLETED)
        assert not waiting.done()
        # The one place is free: another logs in meanwhile.
        assert not desk.pool.is_full
        await desk.parts.login.log_in("alice", PASSWORD, CALLER)
        assert not waiting.done()
        assert len(await read_audit(issuer, "login.failed")) == 1
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert gate.is_cancelled


def adopt(text: str) -> tuple[str, Work]:
    """Return how a hash is stored, and its work."""
    hasher = PasswordHasher(KeyRing(p1=b"\x02" * 32), cost=CHEAP_COST)
    return hasher.adopt(text, field="password_hash")


# --- Stored hashes -------------------------------------------------------------------


async def expect_after_refresh(desk: Desk, work: Work) -> None:
    """Refresh; the costliest of this family is then `work`, and no costlier one."""
    await desk.parts.costliest.refresh()
    assert desk.times.is_expected(work)
    assert not desk.times.is_expected(work._replace(amount=work.amount + 1))


async def test_replicas_learn_of_costlier_hashes_and_forget_them_once_they_are_gone(
    database_url: str,
) -> None:
    """R32: an import informs all replicas; a daily count lowers the bound again."""
    async with running_issuer(make_settings(database_url)) as issuer:
        with open_desk(issuer) as desk:
            await expect_after_refresh(desk, PRESENT)
            await run_import(issuer, **HASHES)
            works = {name: adopt(text)[1] for name, text in HASHES.items()}
            await expect_after_refresh(desk, works["bcrypt"])
            await expect_after_refresh(desk, works["argon2id"])
            await expect_after_refresh(desk, works["scrypt"])
            async with issuer.database.write() as db:
                await db.execute(update(User).values(password_hash=""))
            issuer.clock.advance(86_399)
            await expect_after_refresh(desk, works["argon2id"])
            issuer.clock.advance(1)
            await expect_after_refresh(desk, PRESENT)
            assert not desk.times.is_expected(works["pbkdf2_sha256"])
            assert not desk.times.is_expected(works["argon2id"])


async def test_hashes_of_an_earlier_version_are_counted_at_the_first_start(
    database_url: str,
) -> None:
    """R32: our own hashes of a higher cost, and imported ones."""
    async with running_issuer(make_settings(database_url)) as issuer:
        alice = await issuer.create_user("alice", PASSWORD)
        bob = await issuer.create_user("bob", PASSWORD)
        own = PasswordHasher(issuer.settings.password_peppers, cost=6).hash(PASSWORD)
        imported, _ = adopt(HASHES["bcrypt"])
        async with issuer.database.write() as db:
            for user, text in ((alice, own), (bob, imported)):
                row = update(User).where(User.id == user.id)
                await db.execute(row.values(password_hash=text))
            # As after the upgrade: the table is empty.
            await db.execute(delete(StoredWork))
        with open_desk(issuer) as desk:
            await expect_after_refresh(desk, bcrypt_work(6))


class OvertakenDatabase:
    """The database; an import comes right after the second time it was read."""

    def __init__(self, issuer: IssuerHarness) -> None:
        self._issuer = issuer
        self.reads = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._issuer.database, name)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        async with self._issuer.database.read() as db:
            yield db
        self.reads += 1
        if self.reads == 2:
            await run_import(self._issuer, second=HASHES["argon2id"])


async def test_a_count_that_an_import_overtook_forgets_nothing(
    issuer: IssuerHarness,
) -> None:
    """R32: it was begun before the import, and finds none of its hashes."""
    overtaken = OvertakenDatabase(issuer)
    with open_desk(issuer) as desk, open_desk(issuer, database=overtaken) as other:
        await run_import(issuer, first=HASHES["argon2id"])
        await desk.parts.costliest.refresh()
        async with issuer.database.write() as db:
            await db.execute(delete(User).where(User.username == "first"))
        issuer.clock.advance(86_400)
        await other.parts.costliest.refresh()
        assert overtaken.reads >= 2
        await expect_after_refresh(desk, adopt(HASHES["argon2id"])[1])


async def test_a_costlier_hash_of_another_program_is_taken_down_when_it_is_met(
    issuer: IssuerHarness,
) -> None:
    """R32: an issuer with a higher cost, or of an older version, may run beside."""
    carol = await issuer.create_user("carol", PASSWORD)
    with open_desk(issuer) as desk, open_desk(issuer) as other:
        await desk.parts.costliest.refresh()
        costlier = PasswordHasher(issuer.settings.password_peppers, cost=7)
        async with issuer.database.write() as db:
            row = update(User).where(User.id == carol.id)
            await db.execute(row.values(password_hash=costlier.hash(PASSWORD)))
        await desk.fail("carol")
        await expect_after_refresh(other, bcrypt_work(7))


async def test_a_full_pool_measures_later(issuer: IssuerHarness) -> None:
    """R33: a function without logins is measured when there is a place."""
    await run_import(issuer, argon2id=HASHES["argon2id"])
    with open_desk(issuer, queue=0) as desk:
        with desk.pool.reserve():
            await desk.parts.costliest.refresh()
            with pytest.raises(UnavailableError):
                await desk.parts.login.log_in("nobody", WRONG, CALLER)
        assert desk.times.unmeasured()
        await desk.parts.costliest.refresh()
        assert desk.times.unmeasured() == []


async def test_every_replica_raises_the_bound_to_its_own_cost(
    issuer: IssuerHarness,
) -> None:
    """R32: its new hashes will be of that cost."""
    with open_desk(issuer, cost=6) as costly, open_desk(issuer) as cheap:
        await costly.parts.costliest.refresh()
        await expect_after_refresh(cheap, bcrypt_work(6))


# --- Measured ----------------------------------------------------------------------


async def test_an_imported_hash_of_low_cost_is_answered_no_earlier_than_an_unknown_name(
    sqlite_url: str,
) -> None:
    """R32, by the real clock: bcrypt of cost 4 answers in a hundredth of the time.

    A busy machine makes answers later, never earlier: the earliest are compared.
    """
    settings = make_settings(sqlite_url, bcrypt_cost=10, login_free_failures=100)
    clock = time.perf_counter
    async with running_issuer(settings) as issuer:
        await run_import(issuer, bcrypt=HASHES["bcrypt"])
        times = HashTimes(bcrypt_work(10))
        hasher = PasswordHasher(
            settings.password_peppers,
            cost=10,
            elapsed=clock,
            on_hashed=times.note,
        )
        pool = HashingPool(workers=1, queue=0)
        base = replace(issuer.issuer.base, elapsed=clock)
        hashing = HashingParts(base, hasher, pool, times)
        login = LoginParts(base, hashing, issuer.issuer.sessions).login
        took: dict[str, list[float]] = {"nobody": [], "bcrypt": []}
        for _ in range(4):
            for name, samples in took.items():
                begun = clock()
                with pytest.raises(InvalidCredentialsError):
                    await login.log_in(name, WRONG, CALLER)
                samples.append(clock() - begun)
        pool.close()
    assert min(took["bcrypt"]) > min(took["nobody"]) / 2, took
