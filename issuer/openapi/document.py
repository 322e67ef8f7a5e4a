"""The OpenAPI document, with our errors instead of FastAPI's."""

from __future__ import annotations

from functools import cached_property
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Lifespan

from issuer.http.documents import Document, cut
from issuer.http.error_responses import OAUTH_PREFIX
from issuer.openapi.security import SCHEMES
from shared.distribution import VERSION

_PROBLEM: Final[dict[str, Any]] = {
    "type": "object",
    "description": "RFC 9457 problem document.",
    "required": ["type", "title", "status", "detail", "code", "correlation_id"],
    "properties": {
        "type": {"type": "string", "const": "about:blank"},
        "title": {"type": "string", "example": "Bad Request"},
        "status": {"type": "integer", "example": 400},
        "detail": {"type": "string", "example": "The request is malformed."},
        "code": {"type": "string", "example": "invalid_request"},
        "correlation_id": {"type": "string"},
        "problems": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "rule"],
                "properties": {
                    "field": {"type": "string", "example": "username"},
                    "rule": {"type": "string", "example": "is required"},
                },
            },
        },
    },
}
_OAUTH_ERROR: Final[dict[str, Any]] = {
    "type": "object",
    "description": "RFC 6749, section 5.2 error.",
    "required": ["error"],
    "properties": {
        "error": {"type": "string", "example": "invalid_request"},
        "error_description": {"type": "string"},
    },
}
#: Paths without a credential.
_FOR_ANYBODY: Final = ("/.well-known/", "/status-lists")
#: Paths whose changes may conflict with the present state.
_WITH_STATE: Final = ("/users", "/roles", "/clients", "/auth/")
#: Paths with rate limits.
_THROTTLED: Final = ("/auth/", OAUTH_PREFIX)


class DocumentedApp(FastAPI):
    """A FastAPI application whose document has the errors that it really answers.

    Args:
        issuer_url: the server that the document names.
        lifespan: runs while the application runs.
    """

    def __init__(
        self,
        issuer_url: str,
        lifespan: Lifespan[FastAPI],
    ) -> None:
        super().__init__(
            title="Gatehouse issuer",
            version=VERSION,
            docs_url=None,
            redoc_url=None,
            servers=[{"url": issuer_url}],
            root_path_in_servers=False,
            # A redirect would carry the request's Host (R37).
            redirect_slashes=False,
            # FastAPI's own traces have paths, queries and errors (R35); ours do not.
            telemetry={"tracing": False, "metrics": False, "logs": False},
            lifespan=lifespan,
        )

    def openapi(self) -> dict[str, Any]:
        """Return the document, built once."""
        if self.openapi_schema is None:
            self.openapi_schema = _tell_our_errors(super().openapi())
        return self.openapi_schema

    def setup(self) -> None:
        """Add the document's route; FastAPI's would serialise it for each answer."""

        async def show(_request: Request) -> Response:
            return self._document.answer()

        self.add_route("/openapi.json", show, include_in_schema=False)

    @cached_property
    def _document(self) -> Document:
        written = bytes(JSONResponse(self.openapi()).body)
        return Document(cut(written), {"Content-Type": "application/json"})


def _tell_our_errors(document: dict[str, Any]) -> dict[str, Any]:
    components = document.setdefault("components", {})
    components.setdefault("securitySchemes", {}).update(SCHEMES)
    schemas = components.setdefault("schemas", {})
    # FastAPI's 422 is never answered: it would repeat the input (R35).
    schemas.pop("HTTPValidationError", None)
    schemas.pop("ValidationError", None)
    schemas["Problem"] = _PROBLEM
    schemas["OAuthError"] = _OAUTH_ERROR
    for path, operations in document["paths"].items():
        is_oauth = path.startswith(OAUTH_PREFIX)
        name = "OAuthError" if is_oauth else "Problem"
        media_type = "application/json" if is_oauth else "application/problem+json"
        content = {media_type: {"schema": {"$ref": f"#/components/schemas/{name}"}}}
        for method, operation in operations.items():
            answers = operation["responses"]
            answers.pop("422", None)
            documented = {int(status) for status in answers if status >= "400"}
            for status in sorted(documented | _find_errors(path, method, operation)):
                answer = answers.setdefault(str(status), {})
                answer.setdefault("description", HTTPStatus(status).phrase)
                answer.setdefault("content", content)
    return document


def _find_errors(path: str, method: str, operation: dict[str, Any]) -> set[int]:
    """Return the errors common to operations of this kind; routes add their own.

    A test calls every operation and compares its answers with the document.
    """
    found = {400, 503}
    if not path.startswith(_FOR_ANYBODY):
        found |= {401, 403}
    if "requestBody" in operation:
        found |= {413, 415}
    if "{" in path:
        found.add(404)
    if method != "get" and path.startswith(_WITH_STATE):
        found.add(409)
    if path.startswith(_THROTTLED):
        found.add(429)
    for parameter in operation.get("parameters", ()):
        if parameter["name"] == "If-Match":
            found |= {412, 428} if parameter.get("required") else {412}
    return found
