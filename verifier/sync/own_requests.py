"""An id for each request to the issuer, and a span where traces are asked for.

The id is in the head of the request and in our log lines about it, so the issuer's
lines about the request have the same one. A background task sends one request after the
other, and its lines are about the last one; a check has no such id.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from shared.tracing.ids import REQUEST_ID, make_id

if TYPE_CHECKING:
    from shared.tracing.exporting import OpenSpan, Spans

_NO_FIELDS: dict[str, str] = {}
_fields: ContextVar[dict[str, str]] = ContextVar("own_request", default=_NO_FIELDS)


class OwnRequest(NamedTuple):
    """A request to the issuer that is under way.

    Attributes:
        headers: by which other programs recognise it.
        span: None unless traces are asked for.
    """

    headers: dict[str, str]
    span: OpenSpan | None = None

    def answered(self, status: int) -> None:
        """Note the status of the answer."""
        if self.span is not None:
            self.span.answered(status)


@contextmanager
def sending(method: str, url: str, spans: Spans | None) -> Iterator[OwnRequest]:
    """Give a request its ids; they stay in this task's log lines until the next one.

    Args:
        method: of the request.
        url: from configuration only, so its path is one of few.
        spans: None unless traces are asked for.
    """
    request_id = make_id()
    headers = {REQUEST_ID: request_id}
    fields = {"request_id": request_id}
    if spans is None:
        _fields.set(fields)
        yield OwnRequest(headers)
        return
    target = urlsplit(url)
    attributes = {
        "http.request.method": method,
        "server.address": target.hostname or "",
        "url.template": target.path,
    }
    with spans.client(f"{method} {target.path}", attributes) as (span, carried):
        _fields.set({**fields, "trace_id": span.trace_id})
        yield OwnRequest({**headers, **carried}, span)


def log_context() -> dict[str, str]:
    """Return the fields for every log line of this task (`shared.log`)."""
    return _fields.get()
