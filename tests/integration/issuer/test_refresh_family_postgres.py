"""Any history of refreshes on PostgreSQL, where most are one statement (R28, R29).

The machine and its model are those of `property/test_refresh_family.py`.
"""

from __future__ import annotations

from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings

from tests.property import test_refresh_family as on_sqlite
from tests.support.postgres import PostgresServer
from tests.support.proofs import examples

pytestmark = [pytest.mark.postgres, pytest.mark.proof]


class PostgresMachine(on_sqlite.RefreshFamilyMachine):
    """The same machine on a copy of one migrated database for each example."""

    server: ClassVar[PostgresServer]
    template: ClassVar[str]

    def make_database(self) -> str:
        """Return the URL of a database of this example's own."""
        self.database = self.server.create_database(self.template)
        return self.server.url(self.database)

    def remove_database(self) -> None:
        """Drop it."""
        self.server.drop_database(self.database)


@pytest.fixture(scope="module", autouse=True)
def prepare(postgres: PostgresServer) -> None:
    """Make the database that the machine copies."""
    PostgresMachine.server = postgres
    PostgresMachine.template = postgres.create_database()
    on_sqlite.prepare(postgres.url(PostgresMachine.template))


PostgresMachine.TestCase.settings = settings(
    max_examples=examples(15),
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestRefreshFamilyOnPostgres = PostgresMachine.TestCase
