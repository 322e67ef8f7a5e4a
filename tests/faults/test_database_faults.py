"""After `confirmed`, no 200: replicas die, the database stops, or is put back.

Trials and violations as in `test_confirmation_faults.py`.
"""

from __future__ import annotations

import contextlib
import random
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.fleet import Fleet, prepare
from tests.support.postgres import PostgresServer
from tests.support.processes import ProcessFactory
from tests.support.trials import Trials, running, wait_for_none

Tell = Callable[[str, str], None]

pytestmark = [pytest.mark.processes, pytest.mark.proof]


@pytest.fixture(scope="module")
def database(postgres: PostgresServer) -> str:
    """The name of the fleet's database."""
    return postgres.create_database()


@pytest.fixture(scope="module")
def fleet(
    tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer, database: str
) -> Iterator[Fleet]:
    """Two issuers on one PostgreSQL, each with a verifier that follows it.

    All tests break the same fleet: each leaves it working, or has failed.
    """
    folder = tmp_path_factory.mktemp("fleet")
    factory = ProcessFactory(folder)
    url = postgres.url(database)
    fleet = Fleet(folder, factory, url, prepare(url, folder), replicas=2)
    try:
        for number, name in enumerate("ab"):
            fleet.start_issuer(number)
            fleet.add_gate(name, follows=fleet.replicas[number].port)
        yield fleet
    finally:
        # Before the PostgreSQL server, which all of them use.
        factory.stop_all()


@pytest.mark.postgres
def test_other_replica_keeps_the_promise_of_one_that_died(
    fleet: Fleet, scale: int, tell: Tell
) -> None:
    """R18: killed at random moments, and surely between commit and answer."""
    committed = 0
    with running(fleet) as trials:
        for number in range(6 * scale):
            (name,) = trials.mint(number=1)
            trials.wait_for(200, name)
            with contextlib.ExitStack() as stack:
                if number % 2:
                    # A waiting follower delays the answer, and the kill comes first.
                    stack.enter_context(fleet.gates["b"].paused())
                    first = trials.begin(name, wait=20)
                    wait_for_none(random.uniform(0.2, 0.5), first)
                else:
                    first = trials.begin(name, wait=20)
                    wait_for_none(random.uniform(0, 0.04))
                fleet.kill_issuer(0)
                was_answered = first.result().is_confirmed
                is_committed = not trials.is_active(name, 1)
                committed += is_committed and not was_answered
                assert is_committed or (not number % 2 and not was_answered)
                second = trials.confirm(name, number=1)
                if number % 2:
                    wait_for_none(0.3, second)
            fleet.start_issuer(0)
            assert second.result().is_confirmed
        trials.wait_for(200)
        trials.ask_on()
        counts = trials.verdict(confirmed_at_least=6 * scale)
        tell("replica killed", f"{counts}; committed and not answered {committed}")


@pytest.mark.postgres
def test_stopped_postgresql_loses_no_revocation(
    fleet: Fleet, postgres: PostgresServer, scale: int, tell: Tell
) -> None:
    """R18: acknowledged tokens stay dead; 503 past the bound; everything recovers."""
    unanswered = 0
    with running(fleet) as trials:
        for number in range(3 * scale):
            names = trials.mint(8)
            trials.wait_for(200, names[-1])
            calls = [trials.begin(name, wait=0) for name in names]
            wait_for_none(random.uniform(0, 0.3))
            postgres.stop_immediately()
            unanswered += sum(not call.result().body for call in calls)
            if number == 0:
                trials.wait_for(503)
            postgres.start_again()
            recover(fleet, trials)
            for name in names:
                if name not in trials.acknowledged:
                    trials.revoke(name, wait=0)
            for name in trials.acknowledged:
                trials.wait_for(401, name)
            assert set(names) <= set(trials.acknowledged)
        # The callers are answered once no verifier of before the stop can be open.
        (name,) = trials.mint()
        assert trials.confirm(name, number=1).result().is_confirmed
        trials.ask_on()
        counts = trials.verdict(confirmed_at_least=1)
        tell("PostgreSQL stopped", f"{counts}; stopped before the answer {unanswered}")


@pytest.mark.postgres
@pytest.mark.parametrize("kind", ["files", "dump"])
def test_restored_postgresql_revives_no_token(
    fleet: Fleet,
    postgres: PostgresServer,
    database: str,
    kind: str,
    scale: int,
    tell: Tell,
) -> None:
    """R18: revocations after the backup stay in force; nothing is confirmed early."""

    def back_up() -> None:
        if kind == "files":
            postgres.back_up_files("backup")
        else:
            postgres.dump(database)

    def put_back() -> None:
        if kind == "files":
            postgres.stop_immediately()
            postgres.put_back_files("backup")
            postgres.start_again()
        else:
            postgres.restore_dump(database)

    with running(fleet) as trials:
        for _ in range(scale):
            break_and_restore(trials, back_up, put_back)
        counts = trials.verdict(confirmed_at_least=14 * scale)
        tell(f"PostgreSQL put back, {kind}", counts)


def test_restored_sqlite_file_revives_no_token(
    tmp_path: Path, factory: ProcessFactory, scale: int, tell: Tell
) -> None:
    """R18: the file is put back and its witness is not."""
    path, backup = tmp_path / "issuer.db", tmp_path / "backup.db"
    url = f"sqlite+aiosqlite:///{path}"
    fleet = Fleet(tmp_path, factory, url, prepare(url, tmp_path))
    fleet.start_issuer()
    fleet.add_gate("a")
    fleet.add_gate("b")

    def back_up() -> None:
        with (
            contextlib.closing(sqlite3.connect(path)) as living,
            contextlib.closing(sqlite3.connect(backup)) as copy,
        ):
            living.backup(copy)

    def put_back() -> None:
        fleet.kill_issuer()
        for end in ("-wal", "-shm"):
            path.with_name(path.name + end).unlink(missing_ok=True)
        backup.rename(path)
        fleet.start_issuer()

    with running(fleet) as trials:
        for _ in range(scale):
            break_and_restore(trials, back_up, put_back)
        tell("SQLite put back", trials.verdict(confirmed_at_least=14 * scale))


def break_and_restore(
    trials: Trials, back_up: Callable[[], None], put_back: Callable[[], None]
) -> None:
    """Revoke before a backup, after it, and after it was put back.

    Positions of lost entries are given out again for later revocations. One verifier
    is paused meanwhile: it is open, and the restored table has no row for it.
    """
    fleet = trials.fleet
    before, lost, again = (trials.mint(count) for count in (4, 6, 4))
    trials.wait_for(200, again[-1])
    for name in before:
        assert trials.confirm(name).result().is_confirmed
    back_up()
    for name in lost:
        assert trials.confirm(name).result().is_confirmed
    with fleet.gates["b"].paused():
        put_back()
        for number in range(len(fleet.replicas)):
            fleet.wait_until_ready(number)
        calls = [trials.confirm(name) for name in again]
        wait_for_none(4, *calls)
    assert all(call.result().is_confirmed for call in calls)
    trials.wait_for(200)
    for name in (*before, *lost, *again):
        trials.wait_for(401, name)
    trials.ask_on()


def recover(fleet: Fleet, trials: Trials) -> None:
    """Return once everything works again without help."""
    for number in range(len(fleet.replicas)):
        fleet.wait_until_ready(number)
    trials.wait_for(200)
