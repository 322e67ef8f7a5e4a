"""A span for each statement that a traced request sends to the database.

It has the statement's first word, and neither its text nor its values. Statements of
background tasks have none: they belong to no request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext

from issuer.storage.db import Database

if TYPE_CHECKING:
    from shared.tracing.exporting import Spans

#: The first words of our statements. Any other is `other`.
_WORDS: Final = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "WITH"})


def trace_statements(database: Database, spans: Spans) -> None:
    """Trace the statements of this database's engine."""
    system = "sqlite" if database.is_sqlite else "postgresql"

    def begin(
        _connection: Any,
        _cursor: Any,
        statement: str,
        _parameters: Any,
        context: Any,
        _many: bool,
    ) -> None:
        word = statement.lstrip()[:6].split(maxsplit=1)[0].upper()
        word = word if word in _WORDS else "other"
        attributes = {"db.system.name": system, "db.operation.name": word}
        # A context is made for one statement.
        context.gatehouse_span = spans.begin(word, attributes)

    def end(
        _connection: Any,
        _cursor: Any,
        _statement: str,
        _parameters: Any,
        context: Any,
        _many: bool,
    ) -> None:
        span = context.gatehouse_span
        if span is not None:
            span.end()

    def fail(failure: ExceptionContext) -> None:
        # A connection that fails has no context; one that fails to begin, no span.
        span = getattr(failure.execution_context, "gatehouse_span", None)
        if span is not None:
            span.failed(type(failure.original_exception).__name__)
            span.end()

    engine = database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", begin)
    event.listen(engine, "after_cursor_execute", end)
    event.listen(engine, "handle_error", fail)
