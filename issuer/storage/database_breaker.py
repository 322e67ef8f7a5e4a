"""A circuit breaker before the database: while it is away, nobody waits to be told so.

Without it every request would queue for a connection and wait out its time; with it they
are refused at once, and one at a time finds out whether the database is back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from circuitbreaker import STATE_CLOSED, STATE_OPEN, CircuitBreaker

from issuer.errors import DatabaseAwayError

#: Failures in a row that open it, and seconds until one may try again.
_THRESHOLD: Final = 5
_RECOVERY_SECONDS: Final = 1


class DatabaseBreaker:
    """Counts failures in a row; open, it lets one through per second."""

    def __init__(self) -> None:
        self._breaker = CircuitBreaker(
            failure_threshold=_THRESHOLD,
            recovery_timeout=_RECOVERY_SECONDS,
            expected_exception=DatabaseAwayError,
            name="database",
        )
        self._is_trying = False
        self._cause = ""

    @property
    def is_open(self) -> bool:
        """Whether the database counts as away."""
        return bool(self._breaker.state != STATE_CLOSED)

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Use the database within.

        Only what tells something about the database counts: it failed, or the block came
        to its end.

        Raises:
            DatabaseAwayError: at once, while the breaker is open; its detail is that of
                the failure before.
        """
        state = self._breaker.state
        if state == STATE_OPEN or (state != STATE_CLOSED and self._is_trying):
            left = math.ceil(self._breaker.open_remaining)
            raise DatabaseAwayError(max(left, _RECOVERY_SECONDS), detail=self._cause)
        is_trial = state != STATE_CLOSED
        self._is_trying = self._is_trying or is_trial
        try:
            yield
        except DatabaseAwayError as error:
            self._cause = error.detail
            with self._breaker:
                raise
        else:
            self._breaker.reset()
        finally:
            if is_trial:
                self._is_trying = False
