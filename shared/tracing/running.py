"""The spans of one process, for as long as it serves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shared.tracing.exporting import Spans


@contextmanager
def running_spans(program: str, *, is_wanted: bool) -> Iterator[Spans | None]:
    """Yield the spans of this process; at the end, send the last ones.

    Enter it after a fork: the exporter has a thread, which would not live on.

    Args:
        program: `issuer` or `verifier`.
        is_wanted: else None is yielded, and nothing is imported.
    """
    if not is_wanted:
        yield None
        return
    # An extra, which is not installed everywhere.
    from shared.tracing.exporting import start_spans

    spans = start_spans(program)
    try:
        yield spans
    finally:
        spans.close()
