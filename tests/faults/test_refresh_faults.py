"""The issuer or its database dies in the middle of refresh load.

A client that retries within the grace is not logged out, no refresh token has two
successors, and every answer is still valid afterwards (R28, R29, R42). Each trial is
one kill; `make proof SCALE=25` makes 200 of the issuer and 50 of PostgreSQL.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.support.fleet import Fleet, prepare
from tests.support.postgres import PostgresServer
from tests.support.processes import ProcessFactory, wait_until
from tests.support.refreshing import RefreshingClient
from tests.support.trials import wait_for_none

Tell = Callable[[str, str], None]
CLIENTS = 6
#: Its default is 10 s; a start on a busy machine must fit in.
GRACE = "60"
PASSWORD = "a password of the fault tests"

pytestmark = [
    pytest.mark.processes,
    pytest.mark.postgres,
    pytest.mark.proof,
]


@pytest.fixture(scope="module")
def fleet(
    tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer
) -> Iterator[Fleet]:
    """One issuer on PostgreSQL, with an administrator."""
    folder = tmp_path_factory.mktemp("fleet")
    factory = ProcessFactory(folder)
    url = postgres.url(postgres.create_database())
    fleet = Fleet(folder, factory, url, prepare(url, folder))
    fleet.issuer_env["ISSUER_REFRESH_GRACE"] = GRACE
    fleet.issuer_env["ISSUER_REFRESH_LIMIT"] = "0"
    fleet.command("create-admin", "someone", given=f"{PASSWORD}\n")
    try:
        fleet.start_issuer()
        yield fleet
    finally:
        factory.stop_all()


@pytest.fixture
def clients(fleet: Fleet, postgres: PostgresServer) -> Iterator[list[RefreshingClient]]:
    """Clients that refresh until the test is over."""
    port = fleet.replicas[0].port
    with ExitStack() as stack:
        yield [
            stack.enter_context(RefreshingClient(port, "someone", PASSWORD))
            for _ in range(CLIENTS)
        ]


def test_killed_issuer_logs_no_user_out(
    fleet: Fleet, clients: list[RefreshingClient], scale: int, tell: Tell
) -> None:
    trials = 8 * scale
    for _ in range(trials):
        go_on(clients)
        wait_for_none(random.uniform(0, 0.1))
        fleet.kill_issuer()
        fleet.start_issuer()
    go_on(clients)
    tell("issuer killed under refreshes", verdict(clients, trials))


def test_stopped_postgresql_logs_no_user_out(
    fleet: Fleet,
    postgres: PostgresServer,
    clients: list[RefreshingClient],
    scale: int,
    tell: Tell,
) -> None:
    """The issuer recovers by itself."""
    trials = 2 * scale
    for _ in range(trials):
        go_on(clients)
        wait_for_none(random.uniform(0, 0.1))
        postgres.stop_immediately()
        postgres.start_again()
    go_on(clients)
    assert fleet.replicas[0].process is not None
    assert fleet.replicas[0].process.exit_code is None
    tell("PostgreSQL stopped under refreshes", verdict(clients, trials))


def go_on(clients: list[RefreshingClient]) -> None:
    """Return once every client has been given successors again, or was refused."""
    before = [client.done for client in clients]

    def has_each() -> bool:
        return all(
            client.refused is not None or client.done >= done + 3
            for client, done in zip(clients, before, strict=True)
        )

    wait_until(has_each, what="every client is refreshed")


def verdict(clients: list[RefreshingClient], trials: int) -> str:
    """Return the counts in words.

    Raises:
        AssertionError: for a forced logout, or a token with two successors.
    """
    statuses: Counter[int] = sum((c.statuses for c in clients), Counter())
    refused = [client.refused for client in clients if client.refused is not None]
    forked = [many for client in clients for many in client.forked()]
    shown = (
        f"trials {trials}, answers {dict(sorted(statuses.items()))} (0: none), "
        f"violations {len(refused) + len(forked)}: forced logouts {len(refused)}, "
        f"two successors {len(forked)}"
    )
    assert refused == [], shown
    assert forked == [], shown
    assert set(statuses) <= {0, 200, 503}, shown
    return shown
