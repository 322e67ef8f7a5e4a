"""The one table that turns the issuer's errors into HTTP answers.

OAuth endpoints (`/oauth2/...`) answer RFC 6749, section 5.2; all others answer
`application/problem+json` (RFC 9457) of the shape

    {"type", "title", "status", "detail", "code", "correlation_id", "problems"?}

where `problems` is a list of `{"field", "rule"}`. No input is repeated: a malformed
body may have a password (requirement R35).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, NamedTuple

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from issuer import errors
from issuer.errors import FieldProblem, IssuerError
from issuer.http.correlation import current_correlation_id
from issuer.metrics import IssuerMetrics
from shared import log

OAUTH_PREFIX: Final = "/oauth2/"
_METHODS: Final = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
_REALM: Final = "gatehouse"
_FIELD_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_LOG = logging.getLogger(__name__)


class _Answer(NamedTuple):
    """The answer to a kind of error; `oauth_*` where RFC 6749 differs."""

    status: int
    oauth_status: int
    oauth_error: str


#: The most specific class of an error decides.
_ANSWERS: Final[Mapping[type[IssuerError], _Answer]] = {
    IssuerError: _Answer(500, 500, "server_error"),
    errors.InvalidRequestError: _Answer(400, 400, "invalid_request"),
    errors.PayloadTooLargeError: _Answer(413, 413, "invalid_request"),
    errors.UnsupportedMediaTypeError: _Answer(415, 400, "invalid_request"),
    errors.InvalidCredentialsError: _Answer(401, 400, "invalid_grant"),
    errors.SecondFactorRequiredError: _Answer(403, 403, "mfa_required"),
    errors.UnauthenticatedError: _Answer(401, 401, "invalid_token"),
    errors.InsufficientAuthenticationError: _Answer(401, 401, "invalid_token"),
    errors.ForbiddenError: _Answer(403, 403, "insufficient_scope"),
    errors.NotFoundError: _Answer(404, 404, "invalid_request"),
    errors.ConflictError: _Answer(409, 400, "invalid_request"),
    errors.PreconditionFailedError: _Answer(412, 400, "invalid_request"),
    errors.PreconditionRequiredError: _Answer(428, 400, "invalid_request"),
    errors.TooManyRequestsError: _Answer(429, 429, "temporarily_unavailable"),
    errors.UnavailableError: _Answer(503, 503, "temporarily_unavailable"),
    errors.InvalidGrantError: _Answer(401, 400, "invalid_grant"),
    errors.InvalidClientError: _Answer(401, 401, "invalid_client"),
    errors.UnauthorizedClientError: _Answer(403, 400, "unauthorized_client"),
    errors.UnsupportedGrantTypeError: _Answer(400, 400, "unsupported_grant_type"),
    errors.InvalidScopeError: _Answer(400, 400, "invalid_scope"),
    errors.InvalidTargetError: _Answer(400, 400, "invalid_target"),
}

#: Our texts for Pydantic's error types; the others are "is not valid here".
_RULES: Final[Mapping[str, str]] = {
    "missing": "is required",
    "extra_forbidden": "must not have members other than the documented ones",
    "string_type": "must be a string",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must match {pattern}",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "list_type": "must be a list",
    "too_short": "must have at least {min_length} items",
    "too_long": "must have at most {max_length} items",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be one of {expected}",
    "enum": "must be one of {expected}",
    "uuid_parsing": "must be a UUID",
    "uuid_type": "must be a UUID",
    "model_attributes_type": "must be a JSON object",
    "dict_type": "must be a JSON object",
}


def install(app: FastAPI) -> None:
    """Make `app` answer its errors with the table above."""

    async def answer_issuer_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, IssuerError)  # noqa: S101  as registered below
        return build_answer(request.scope["path"], error)

    async def answer_invalid_input(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101
        problems = [_describe(problem) for problem in error.errors()]
        return build_answer(
            request.scope["path"], errors.InvalidRequestError(problems=problems)
        )

    async def answer_http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101
        headers = dict(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = ", ".join(_find_methods(app.router, request.scope))
        return _build_http_answer(request.scope["path"], error.status_code, headers)

    async def pass_conflict_on(_request: Request, error: Exception) -> Response:
        # `ConflictRetry` repeats the request, or answers.
        raise error

    app.add_exception_handler(IssuerError, answer_issuer_error)
    app.add_exception_handler(errors.DatabaseConflictError, pass_conflict_on)
    app.add_exception_handler(RequestValidationError, answer_invalid_input)
    app.add_exception_handler(HTTPException, answer_http_error)


def build_answer(path: str, error: IssuerError) -> Response:
    """Return the answer to `error` for `path`; log the hidden detail."""
    answer = next(_ANSWERS[cls] for cls in type(error).__mro__ if cls in _ANSWERS)
    is_oauth = path.startswith(OAUTH_PREFIX)
    status = answer.oauth_status if is_oauth else answer.status
    is_counted = isinstance(error, errors.OverloadedError)
    if not is_counted and (error.detail or status >= HTTPStatus.INTERNAL_SERVER_ERROR):
        level = (
            logging.INFO if status < HTTPStatus.INTERNAL_SERVER_ERROR else logging.ERROR
        )
        log.event(_LOG, level, "request.refused", code=error.code, detail=error.detail)
    problems = error.problems if isinstance(error, errors.InvalidRequestError) else ()
    headers = _build_headers(error)
    if status == HTTPStatus.BAD_REQUEST:
        # A challenge belongs to a 401 or 403; some clients ignore everything else
        # beside it.
        headers.pop("WWW-Authenticate", None)
    if is_oauth:
        return _build_oauth_answer(answer, error.description, problems, headers)
    return _build_problem(
        status,
        error.code,
        error.description,
        problems,
        headers,
        members=_build_members(error),
    )


def build_unexpected_answer(path: str) -> Response:
    """Return the 500 with only the correlation id."""
    return _build_http_answer(path, HTTPStatus.INTERNAL_SERVER_ERROR, {})


class ErrorBoundary:
    """The outermost guard: an unhandled error is a 500 without detail.

    It is inside the correlation middleware, so that answer and log line have the same
    id.

    Args:
        app: the guarded application.
        metrics: count the answers of 503 and 500.
    """

    def __init__(self, app: ASGIApp, metrics: IssuerMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_started = False

        async def send_watched(message: Message) -> None:
            nonlocal has_started
            if message["type"] == "http.response.start":
                has_started = True
                if message["status"] == HTTPStatus.SERVICE_UNAVAILABLE:
                    self._metrics.database_trouble()
            await send(message)

        try:
            await self._app(scope, receive, send_watched)
        except ClientDisconnect:
            # The client left during its body: not our fault, and there is no reader for
            # an answer. Stack traces would let anyone fill the log.
            return
        except Exception:
            self._metrics.unexpected_error()
            _LOG.exception("request.failed", extra={"fields": {}})
            if has_started:
                # A begun answer cannot be withdrawn; the server cuts the connection.
                raise
            await build_unexpected_answer(scope["path"])(scope, receive, send)


def _build_http_answer(path: str, status: int, headers: Mapping[str, str]) -> Response:
    phrase = HTTPStatus(status).phrase
    code = phrase.lower().replace(" ", "_").replace("-", "_")
    if path.startswith(OAUTH_PREFIX):
        is_ours = status >= HTTPStatus.INTERNAL_SERVER_ERROR
        error = "server_error" if is_ours else "invalid_request"
        answer = _Answer(status, status, error)
        return _build_oauth_answer(answer, f"{phrase}.", (), headers)
    return _build_problem(status, code, f"{phrase}.", (), headers)


def _build_oauth_answer(
    answer: _Answer,
    description: str,
    problems: Sequence[FieldProblem],
    headers: Mapping[str, str],
) -> Response:
    if problems:
        text = "; ".join(f"{problem.field}: {problem.rule}" for problem in problems)
        # RFC 6749, section 5.2: %x20-21 / %x23-5B / %x5D-7E.
        description = re.sub(r'[^\x20-\x7e]|["\\]', "'", text)
    body = {"error": answer.oauth_error, "error_description": description}
    return Response(
        orjson.dumps(body),
        status_code=answer.oauth_status,
        headers={**headers, "Pragma": "no-cache"},
        media_type="application/json",
    )


def _build_problem(
    status: int,
    code: str,
    detail: str,
    problems: Sequence[FieldProblem],
    headers: Mapping[str, str],
    *,
    members: Mapping[str, Any] | None = None,
) -> Response:
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "correlation_id": current_correlation_id(),
    }
    if problems:
        body["problems"] = [problem._asdict() for problem in problems]
    # RFC 9457, section 3.2: extension members.
    body |= members or {}
    return Response(
        orjson.dumps(body),
        status_code=status,
        headers=dict(headers),
        media_type="application/problem+json",
    )


def _build_members(error: IssuerError) -> dict[str, Any]:
    if isinstance(error, errors.SecondFactorRequiredError):
        return {"mfa_token": error.mfa_token, "expires_in": error.expires_in}
    return {}


def _build_headers(error: IssuerError) -> dict[str, str]:
    if isinstance(error, errors.TooManyRequestsError | errors.UnavailableError):
        return {"Retry-After": str(error.retry_after)}
    if isinstance(error, errors.InvalidClientError):
        return {"WWW-Authenticate": f'Basic realm="{_REALM}"'}
    challenge = f'Bearer realm="{_REALM}"'
    if isinstance(error, errors.InvalidCredentialsError | errors.InvalidGrantError):
        return {"WWW-Authenticate": challenge}
    if isinstance(error, errors.UnauthenticatedError) and error.is_missing:
        # RFC 6750, section 3.1: no error code without a credential.
        return {"WWW-Authenticate": challenge}
    text = f'{challenge}, error="{error.code}", error_description="{error.description}"'
    if isinstance(error, errors.UnauthenticatedError | errors.ForbiddenError):
        return {"WWW-Authenticate": text}
    if isinstance(error, errors.InsufficientAuthenticationError):
        # RFC 9470, section 3.
        if error.acr is not None:
            text += f', acr_values="{error.acr}"'
        if error.max_age is not None:
            text += f', max_age="{error.max_age}"'
        return {"WWW-Authenticate": text}
    return {}


def _describe(problem: Mapping[str, Any]) -> FieldProblem:
    """Return field and rule of pydantic's error, without the input."""
    kind = str(problem["type"])
    place = [part for part in problem["loc"] if isinstance(part, str)]
    if kind == "extra_forbidden":
        place = place[:-1]  # the unknown member's name is input
    names = [part for part in place if _FIELD_NAME.fullmatch(part)]
    field = ".".join(names[1:] or names) or "body"
    context = problem.get("ctx", {})
    if kind == "value_error":
        # Raised by our validator, which does not repeat input either.
        return FieldProblem(field, str(context.get("error", "is not valid here")))
    template = _RULES.get(kind, "is not valid here")
    return FieldProblem(field, template.format_map(context))


def _find_methods(router: Router, scope: Scope) -> list[str]:
    """Return the methods of all routes of the path (RFC 9110, section 15.5.6)."""
    return [
        method
        for method in _METHODS
        if any(
            route.matches({**scope, "method": method})[0] is Match.FULL
            for route in router.routes
        )
    ]
