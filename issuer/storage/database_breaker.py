"""A circuit breaker for the database: while it is away, requests are refused at once.

Without it, every request would wait for a connection until its timeout. With it, only
one request per second tries whether the database is back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from circuitbreaker import STATE_CLOSED, STATE_OPEN, CircuitBreaker

from issuer.errors import DatabaseAwayError

#: Failures in a row that open it, and seconds until the next trial.
_THRESHOLD: Final = 5
_RECOVERY_SECONDS: Final = 1


class DatabaseBreaker:
    """Counts failures in a row; when open, it admits one trial per second."""

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
        """Guard a block that uses the database.

        Only two outcomes count: the database failed, or the block completed. Other
        errors say nothing about the database.

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
