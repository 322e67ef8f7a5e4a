"""A PostgreSQL server for one test session, or a skipped test where there is none.

Each test gets its own database, copied from a template that the migrations made.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from loadtests.support.postgres import PostgresMissingError, PostgresServer

__all__ = ["PostgresServer", "start_postgres"]


def start_postgres(**options: Any) -> PostgresServer:
    """Return a running server, with the arguments of `PostgresServer`.

    Without PostgreSQL on this machine the test is skipped. In CI it fails, because a
    test that did not run must not look green.
    """
    try:
        return PostgresServer(**options)
    except PostgresMissingError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{error}; in CI it must be there")
        pytest.skip(str(error))
