"""A span for each refusal that has a log line, below the gateway's span.

It has the fields of the line. The gate knows no duration of a check, which takes
microseconds, so the span has the time of the decision alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from verifier.check.forward_auth import HeaderList

if TYPE_CHECKING:
    from shared.tracing.exporting import Spans

#: Called with the name of the line, its fields and the headers of the check request.
TraceRefusal = Callable[[str, dict[str, object], HeaderList], None]


def trace_refusals(spans: Spans) -> TraceRefusal:
    """Return the function that `RefusalLog` calls after a line."""

    def trace(name: str, fields: dict[str, object], headers: HeaderList) -> None:
        # They are words and numbers of ours, bounded by the log.
        attributes = {
            f"gatehouse.{field}": value if isinstance(value, int) else str(value)
            for field, value in fields.items()
            if field != "trace_id"
        }
        spans.note(name, headers, attributes)

    return trace
