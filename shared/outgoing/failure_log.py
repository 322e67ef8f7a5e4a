"""Failures of one server in the log, at a bounded rate per kind.

While a server is away, every worker fails many times a minute. A line for each failure
would fill a disk and add no information.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from shared.log import event

#: Seconds in which the same failure is logged once.
EVERY: Final = 60.0
#: Lines in that time at most, of all kinds together.
MAX_LINES: Final = 10


class FailureLog:
    """Logs the failures of one server and its recovery.

    Args:
        logger: takes the lines.
        name: the event of a failure; that of the recovery is `NAME_no_more`.
        monotonic: gives seconds.
        fields: of every line.
    """

    def __init__(
        self,
        logger: logging.Logger,
        name: str,
        monotonic: Callable[[], float],
        **fields: Any,
    ) -> None:
        self._logger = logger
        self._name = name
        self._monotonic = monotonic
        self._fields = fields
        self._logged: dict[tuple[Any, ...], float] = {}
        self._is_logged = False
        self._unlogged = 0

    def failed(self, key: tuple[Any, ...], **fields: Any) -> None:
        """Log a failure unless the same failure was logged within `EVERY`.

        Args:
            key: equal for the same failure.
            fields: of the line; `unlogged` is added, the failures since the last one.
        """
        now = self._monotonic()
        self._logged = {k: at for k, at in self._logged.items() if now - at < EVERY}
        if key in self._logged or len(self._logged) >= MAX_LINES:
            self._unlogged += 1
            return
        self._logged[key] = now
        fields |= {"unlogged": self._unlogged}
        event(self._logger, logging.WARNING, self._name, **self._fields, **fields)
        self._is_logged, self._unlogged = True, 0

    def worked(self) -> None:
        """Log the recovery once, if a failure was logged."""
        if self._is_logged:
            event(self._logger, logging.INFO, f"{self._name}_no_more", **self._fields)
            self._is_logged = False
