"""The operators' port: `/metrics`, `/healthz`, `/readyz`.

It is a separate port, so that no header or path on the public port can reach these (R6,
R39). The worker's own event loop serves it: an answer shows that the loop runs.
"""

from __future__ import annotations

import logging

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from issuer.errors import UnavailableError
from issuer.http.operators_port.operators import Operators
from shared import log
from shared.metrics.prometheus import CONTENT_TYPE
from shared.serving.server import Lifecycle
from shared.shortages import DESCRIPTORS_EXHAUSTED, NO_DESCRIPTOR

_NO_STORE = {"Cache-Control": "no-store"}
_LOG = logging.getLogger(__name__)


class Readiness:
    """Answers `/readyz`, and logs each change of the answer.

    Args:
        operators: know the shortages, and what is missing. The detail of their error is
            part of the answer: only operators reach this port.
        lifecycle: whether a stop was asked for; none: it never is.
    """

    def __init__(self, operators: Operators, lifecycle: Lifecycle | None) -> None:
        self._operators = operators
        self._shortages = operators.shortages
        self._lifecycle = lifecycle
        self._last_reason = ""

    async def answer(self, _request: Request) -> Response:
        """Return 200, or 503 with the reason; both with the warnings."""
        reason = await self._find_reason()
        self._note(reason)
        body: dict[str, object] = {"status": "unavailable" if reason else "ok"}
        if reason:
            body["reason"] = reason
        body["warnings"] = self._shortages.warnings
        status = 503 if reason else 200
        return JSONResponse(body, status_code=status, headers=_NO_STORE)

    def _note(self, reason: str) -> None:
        if reason and reason != self._last_reason:
            log.event(_LOG, logging.WARNING, "readiness.lost", reason=reason)
        elif self._last_reason and not reason:
            log.event(_LOG, logging.INFO, "readiness.back")
        self._last_reason = reason

    async def _find_reason(self) -> str:
        """Return why requests cannot be served; empty when they can."""
        try:
            if self._shortages.has_no_descriptors:
                return DESCRIPTORS_EXHAUSTED
            if self._lifecycle is not None and self._lifecycle.is_draining:
                return "draining"
            await self._operators.require_ready()
        except UnavailableError as error:
            return error.detail or error.description
        except OSError as error:
            # The last descriptor was used since the last check, which runs every
            # second.
            if error.errno not in NO_DESCRIPTOR:
                raise
            return DESCRIPTORS_EXHAUSTED
        return ""


def build_operators_app(
    operators: Operators, lifecycle: Lifecycle | None = None
) -> Starlette:
    """Return the operators' application.

    Args:
        operators: the numbers answered at `/metrics`, and what `Readiness` asks.
        lifecycle: as for `Readiness`.
    """

    async def answer_metrics(_request: Request) -> Response:
        body = await operators.scrapes.body()
        return Response(body, headers=_NO_STORE | {"Content-Type": CONTENT_TYPE})

    async def answer_health(_request: Request) -> Response:
        return JSONResponse({"status": "ok"}, headers=_NO_STORE)

    return Starlette(
        routes=[
            Route("/metrics", answer_metrics),
            Route("/healthz", answer_health),
            Route("/readyz", Readiness(operators, lifecycle).answer),
        ]
    )
