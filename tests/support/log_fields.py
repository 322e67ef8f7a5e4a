"""Shows the fields of log events in the reports of failed tests."""

from __future__ import annotations

import logging
from typing import Any

import pytest


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return the fields of a log event."""
    fields: dict[str, Any] = vars(record)["fields"]
    return fields


class WithFields(logging.Formatter):
    """Formats as another formatter does, and adds the fields of an event.

    Args:
        usual: formats everything else.
    """

    def __init__(self, usual: logging.Formatter) -> None:
        super().__init__()
        self._usual = usual

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's text, with its fields behind it."""
        text = self._usual.format(record)
        fields = getattr(record, "fields", None)
        return f"{text} {fields}" if fields else text


def show_fields(config: pytest.Config) -> None:
    """Show fields in the sections "Captured log" of pytest's report.

    `caplog.text` stays as pytest makes it.
    """
    logging_plugin = config.pluginmanager.get_plugin("logging-plugin")
    if logging_plugin is not None:
        handler = logging_plugin.report_handler
        handler.setFormatter(WithFields(logging_plugin.formatter))
