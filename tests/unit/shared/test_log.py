"""Log lines are JSON objects, and no line or field is lost."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from shared import log


class Lines(logging.Handler):
    """Keeps the formatter's output for each record."""

    def __init__(self, formatter: log.JsonFormatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


def logger_into(handler: logging.Handler) -> logging.Logger:
    logger = logging.Logger("verifier.test")
    logger.addHandler(handler)
    return logger


def line_of(**fields: Any) -> dict[str, Any]:
    handler = Lines(log.JsonFormatter("verifier"))
    log.event(logger_into(handler), logging.WARNING, "sync.failed", **fields)
    (line,) = handler.lines
    assert "\n" not in line
    read: dict[str, Any] = orjson.loads(line)
    return read


def test_a_line_has_time_logger_and_event() -> None:
    record = logging.LogRecord("gate", logging.ERROR, "f", 1, "a %s", ("word",), None)
    record.created, record.msecs = 1_795_000_000.25, 250.0
    assert orjson.loads(log.JsonFormatter("issuer").format(record)) == {
        "time": "2026-11-18T11:06:40.250Z",
        "level": "error",
        "program": "issuer",
        "logger": "gate",
        "event": "a word",
    }


def test_every_field_is_there() -> None:
    line = line_of(source="feed", failures=3, names=["a"], nothing=None)
    assert line["event"] == "sync.failed"
    assert line["level"] == "warning"
    assert line["source"] == "feed"
    assert line["failures"] == 3
    assert line["names"] == ["a"]
    assert line["nothing"] is None


def test_values_outside_json_are_written_as_text() -> None:
    assert line_of(path=Path("/a"))["path"] == "/a"


@pytest.mark.parametrize(
    ("value", "text"),
    [("a\ud800b", "a\\ud800b"), (1 << 70, str(1 << 70)), ({1: "one"}, "{1: 'one'}")],
    ids=["lone surrogate", "huge number", "numbers as names"],
)
def test_a_value_json_cannot_carry_does_not_cost_the_line(
    value: object, text: str
) -> None:
    line = line_of(odd=value, other="kept")
    assert line["odd"] == text
    assert line["other"] == "kept"
    assert line["event"] == "sync.failed"


def test_a_line_break_in_a_value_does_not_begin_a_second_line() -> None:
    assert line_of(error="one\ntwo")["error"] == "one\ntwo"


def test_an_exception_is_one_field() -> None:
    handler = Lines(log.JsonFormatter("verifier"))
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        logger_into(handler).exception("sync.crashed")
    line = orjson.loads(handler.lines[0])
    assert "RuntimeError: broken" in line["exception"]


def test_context_is_on_every_line() -> None:
    handler = Lines(log.JsonFormatter("issuer", lambda: {"correlation_id": "c-1"}))
    logger_into(handler).info("a")
    assert orjson.loads(handler.lines[0])["correlation_id"] == "c-1"


@pytest.fixture
def restored_logging() -> Iterator[None]:
    names = ("uvicorn", "uvicorn.error", "uvicorn.access", "gunicorn.error", "httpx")
    loggers = [logging.getLogger(), *map(logging.getLogger, names)]
    before = [
        (logger, logger.handlers, logger.level, logger.propagate, logger.disabled)
        for logger in loggers
    ]
    yield
    for logger, handlers, level, propagate, disabled in before:
        logger.handlers, logger.propagate = handlers, propagate
        logger.disabled = disabled
        logger.setLevel(level)


@pytest.mark.usefixtures("restored_logging")
def test_configured_every_logger_writes_one_form_on_standard_error(
    capfd: pytest.CaptureFixture[str],
) -> None:
    logging.getLogger("uvicorn.error").handlers = [logging.StreamHandler(sys.stdout)]
    log.configure("verifier", "warning")
    logging.getLogger("uvicorn.error").warning("from the server")
    logging.getLogger("verifier.gate").info("below the level")
    logging.getLogger("uvicorn.access").error("GET /verify/nginx?secret")
    logging.getLogger("httpx").info("GET https://issuer.test")
    logging.getLogger().handlers[0].flush()
    captured = capfd.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert orjson.loads(line)["event"] == "from the server"
