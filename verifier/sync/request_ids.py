"""An id for each request to the issuer: in its head, and in our log lines about it.

The issuer's lines about the request have the same id. A background task sends one
request after the other, so its lines are about the last one; a check has no such id.
"""

from __future__ import annotations

from contextvars import ContextVar

from shared.tracing.ids import make_id

_current: ContextVar[str] = ContextVar("issuer_request_id", default="")


def begin_request() -> str:
    """Return an id for the next request of this task, and use it in its log lines."""
    request_id = make_id()
    _current.set(request_id)
    return request_id


def log_context() -> dict[str, str]:
    """Return the fields for every log line of this task (`shared.log`)."""
    request_id = _current.get()
    return {"request_id": request_id} if request_id else {}
