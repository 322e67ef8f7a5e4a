"""JSON logs, one object a line on standard error, the same in both programs.

An event is a constant word with fields. No token, password or raw header belongs in a
field (requirement R35); nothing on the allow path logs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Final

import orjson

from shared.log_writer import LineWriter

#: The descriptor itself: `sys.stderr` may be replaced by an object without one.
_STANDARD_ERROR: Final = 2


class JsonFormatter(logging.Formatter):
    """Formats a record as `{"time","level","program","logger","event",...fields}`.

    `time` is UTC in RFC 3339 with milliseconds. `context` may add fields to every
    line, such as a correlation id.
    """

    def __init__(
        self, program: str, context: Callable[[], dict[str, str]] | None = None
    ) -> None:
        super().__init__()
        self._program = program
        self._context = context

    def format_event(self, logger: str, level: int, name: str, **fields: Any) -> str:
        """Return the line of an event that is logged past all handlers."""
        record = logging.LogRecord(logger, level, __file__, 0, name, None, None)
        record.fields = fields
        return self.format(record)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its newline."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "program": self._program,
            "logger": record.name,
            "event": record.getMessage(),
        }
        if self._context is not None:
            line.update(self._context())
        line.update(getattr(record, "fields", {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(line, default=str).decode()
        except TypeError:
            # A lone surrogate or a huge number must not lose the line.
            return orjson.dumps({n: _as_text(v) for n, v in line.items()}).decode()


def _as_text(value: object) -> str:
    return str(value).encode("utf-8", "backslashreplace").decode()


def configure(
    program: str,
    level: str = "info",
    context: Callable[[], dict[str, str]] | None = None,
) -> None:
    """Send every logger's lines through one JSON handler on standard error.

    The threads that log never wait for standard error: lines that it does not take are
    dropped and counted (`shared.log_writer`).
    """
    formatter = JsonFormatter(program, context)

    def describe_dropped(count: int) -> str:
        return formatter.format_event(
            "shared.log", logging.WARNING, "log.lines_dropped", dropped=count
        )

    handler = LineWriter(_STANDARD_ERROR, describe_dropped)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # Servers bring their own handlers; all lines must have one form.
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = True
    # They would log URLs and addresses on every request.
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("httpx").setLevel(logging.WARNING)


def event(logger: logging.Logger, level: int, name: str, **fields: Any) -> None:
    """Log the event called `name` with `fields`."""
    logger.log(level, name, extra={"fields": fields})


def dropped_lines() -> int:
    """Return how many lines of this process were dropped since it started."""
    handlers = logging.getLogger().handlers
    return sum(h.dropped for h in handlers if isinstance(h, LineWriter))
