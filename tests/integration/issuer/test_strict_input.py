"""Bad input of every kind gets a 4xx that does not repeat it (R35)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, field_validator

from issuer.app import build_public_app
from issuer.errors import (
    ForbiddenError,
    InvalidClientError,
    TooManyRequestsError,
    UnauthenticatedError,
    UnavailableError,
)
from issuer.http.strict_json import StrictRoute, read_form
from tests.support.departing_client import post_and_go
from tests.support.issuer_harness import IssuerHarness, make_settings, running_issuer
from tests.support.login_story import log_in_admin

SECRET = "hunter2hunter2hunter2"
JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=2, max_length=64)]
    password: Annotated[str, Field(max_length=128)] = ""
    size: Annotated[int, Field(strict=True, ge=1, le=9)] = 1

    @field_validator("name")
    @classmethod
    def _check_name(cls, value: str) -> str:
        if value == "root":
            raise ValueError("is reserved")
        return value


def build_probe_router() -> APIRouter:
    """Routes of our own, so that every error meets every kind of endpoint."""
    router = APIRouter(route_class=StrictRoute)

    @router.post("/probe/{part}")
    async def take(part: int, entry: Entry) -> dict[str, object]:
        return {"part": part, "name": entry.name}

    @router.get("/probe/{part}")
    async def show(part: int) -> None:
        raise RuntimeError(SECRET)

    @router.delete("/probe/{part}")
    async def fail(part: int) -> None:
        raise [
            UnavailableError(retry_after=3, detail=SECRET),
            UnauthenticatedError(is_missing=True),
            UnauthenticatedError(),
            ForbiddenError(),
            TooManyRequestsError(7),
        ][part]

    @router.post("/oauth2/probe")
    async def take_form(request: Request) -> dict[str, str]:
        return await read_form(request)

    @router.get("/half")
    async def answer_half() -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"{"
            raise RuntimeError(SECRET)

        return StreamingResponse(pieces())

    @router.get("/oauth2/probe")
    async def fail_oauth() -> None:
        raise InvalidClientError

    return router


@pytest.fixture
async def issuer(sqlite_url: str) -> AsyncIterator[IssuerHarness]:
    """Input is judged before any database query: one kind of database is enough."""
    async with running_issuer(make_settings(sqlite_url)) as harness:
        yield harness


@pytest.fixture
async def probe(issuer: IssuerHarness) -> AsyncIterator[httpx.AsyncClient]:
    app = build_public_app(issuer.issuer)
    app.include_router(build_probe_router())
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(
        transport=transport, base_url="https://issuer.test"
    ) as client:
        yield client


def is_problem(answer: httpx.Response, status: int) -> bool:
    return (
        answer.status_code == status
        and answer.headers["Content-Type"] == "application/problem+json"
        and answer.headers["Cache-Control"] == "no-store"
        and answer.json()["status"] == status
        and answer.json()["correlation_id"] == answer.headers["X-Correlation-Id"]
        and "hunter2" not in answer.text
    )


def is_oauth_error(answer: httpx.Response, status: int, error: str) -> bool:
    return (
        answer.status_code == status
        and answer.headers["Content-Type"] == "application/json"
        and answer.headers["Cache-Control"] == "no-store"
        and answer.headers["Pragma"] == "no-cache"
        and answer.json()["error"] == error
        and "hunter2" not in answer.text
    )


BODIES = {
    "empty": b"",
    "not JSON": b'{"name": hunter2}',
    "NaN": b'{"name": "hunter2", "size": NaN}',
    "Infinity": b'{"name": "hunter2", "size": -Infinity}',
    "1e999": b'{"name": "hunter2", "size": 1e999}',
    "lone surrogate": rb'{"name": "hunter2\ud800"}',
    "NUL": rb'{"name": "hunter2\u0000"}',
    "NUL in a name": rb'{"name": "hunter2", "a\u0000": 1}',
    "NUL deep inside": rb'{"name": [[{"x": ["hunter2\u0000"]}]]}',
    "not UTF-8": b'{"name": "hunter2\xff"}',
    "UTF-16": '{"name": "hunter2"}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"name": "hunter2"}',
    "two values": b'{"name": "hunter2"} {}',
    "nested past all measure": b'{"name": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
    "a list": b'["hunter2"]',
    "a string": b'"hunter2"',
    "null": b"null",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
async def test_a_body_that_is_no_strict_json_object_is_refused(
    probe: httpx.AsyncClient, body: bytes
) -> None:
    answer = await probe.post("/probe/1", content=body, headers=JSON)
    assert is_problem(answer, 400)


@pytest.mark.parametrize(
    ("body", "problems"),
    [
        ({}, [("name", "is required")]),
        ({"name": "h"}, [("name", "must have at least 2 characters")]),
        ({"name": "x" * 65}, [("name", "must have at most 64 characters")]),
        ({"name": 7}, [("name", "must be a string")]),
        ({"name": "root"}, [("name", "is reserved")]),
        ({"name": "ok", "size": True}, [("size", "must be a whole number")]),
        ({"name": "ok", "size": "3"}, [("size", "must be a whole number")]),
        ({"name": "ok", "size": 1.5}, [("size", "must be a whole number")]),
        ({"name": "ok", "size": 10}, [("size", "must be at most 9")]),
        (
            {"name": "ok", SECRET: 1},
            [("body", "must not have members other than the documented ones")],
        ),
        (
            {"password": SECRET * 9, "size": 0},
            [
                ("name", "is required"),
                ("password", "must have at most 128 characters"),
                ("size", "must be at least 1"),
            ],
        ),
    ],
)
async def test_a_broken_rule_is_named_and_the_value_is_not(
    probe: httpx.AsyncClient,
    body: dict[str, object],
    problems: list[tuple[str, str]],
) -> None:
    answer = await probe.post("/probe/1", json=body)
    assert is_problem(answer, 400)
    found = [(shown["field"], shown["rule"]) for shown in answer.json()["problems"]]
    assert found == problems


async def test_a_bad_path_parameter_is_named(probe: httpx.AsyncClient) -> None:
    answer = await probe.post(f"/probe/{SECRET}", json={"name": "ok"})
    assert is_problem(answer, 400)
    assert answer.json()["problems"] == [
        {"field": "part", "rule": "must be a whole number"}
    ]


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json; charset=utf-16",
        "application/json, application/json",
        "\xff\xff",
        ";",
    ],
)
async def test_another_media_type_is_refused(
    probe: httpx.AsyncClient, content_type: str | None
) -> None:
    headers = {"Content-Type": content_type.encode("latin-1")} if content_type else {}
    body = b'{"name": "hunter2"}'
    answer = await probe.post("/probe/1", content=body, headers=headers)
    assert is_problem(answer, 415)


async def test_utf_8_may_be_named(probe: httpx.AsyncClient) -> None:
    headers = {"Content-Type": 'Application/JSON; Charset="UTF-8"'}
    answer = await probe.post("/probe/1", content=b'{"name":"ok"}', headers=headers)
    assert answer.json() == {"part": 1, "name": "ok"}


async def test_a_body_announced_over_the_limit_is_refused_unread(
    issuer: IssuerHarness, probe: httpx.AsyncClient
) -> None:
    sent = 0

    async def announced() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(20_000_000 // 8_192):
            sent += 8_192
            yield b"x" * 8_192

    headers = JSON | {"Content-Length": "20000000"}
    answer = await probe.post("/probe/1", content=announced(), headers=headers)
    assert is_problem(answer, 413)
    assert answer.headers["Connection"] == "close"
    assert sent == 0


async def test_a_chunked_body_over_the_limit_is_not_read_to_its_end(
    issuer: IssuerHarness, probe: httpx.AsyncClient
) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b'{"name":"'
        while sent < 20_000_000:
            sent += 8_192
            yield b"x" * 8_192

    answer = await probe.post("/probe/1", content=endless(), headers=JSON)
    assert is_problem(answer, 413)
    assert sent <= issuer.settings.max_body_bytes + 8_192


async def test_a_body_at_the_limit_is_read(
    issuer: IssuerHarness, probe: httpx.AsyncClient
) -> None:
    body = b'{"name":"ok"}'.ljust(issuer.settings.max_body_bytes)
    assert (await probe.post("/probe/1", content=body, headers=JSON)).is_success
    answer = await probe.post("/probe/1", content=body + b" ", headers=JSON)
    assert answer.status_code == 413


# --- forms -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        b"token=hunter2&token=hunter2",
        b"token=hunter2&token=",
        b"token=hunter2%ff",
        b"token=hunter2%",
        b"token=hunter2%0g",
        b"token=hunter2%00",
        b"token=hunter2\xc3\xa9",
    ],
)
async def test_an_ambiguous_form_is_refused(
    probe: httpx.AsyncClient, body: bytes
) -> None:
    """RFC 6749, section 3.2: parameters are given once."""
    answer = await probe.post("/oauth2/probe", content=body, headers=FORM)
    assert is_oauth_error(answer, 400, "invalid_request")


async def test_a_form_parameter_without_a_value_counts_as_left_out(
    probe: httpx.AsyncClient,
) -> None:
    body = b"token=a+b%C3%A9&scope="
    answer = await probe.post("/oauth2/probe", content=body, headers=FORM)
    assert answer.json() == {"token": "a bé"}


@pytest.mark.parametrize("media_type", ["application/json", "multipart/form-data"])
async def test_only_a_form_is_read_as_a_form(
    probe: httpx.AsyncClient, media_type: str
) -> None:
    answer = await probe.post(
        "/oauth2/probe", content=b"token=x", headers={"Content-Type": media_type}
    )
    assert is_oauth_error(answer, 400, "invalid_request")


async def test_an_oauth_body_over_the_limit_is_an_oauth_error(
    probe: httpx.AsyncClient,
) -> None:
    body = b"token=" + b"x" * 20_000
    answer = await probe.post("/oauth2/probe", content=body, headers=FORM)
    assert is_oauth_error(answer, 413, "invalid_request")


# --- answers to other trouble -------------------------------------------------------


async def test_an_unknown_path_is_a_problem(probe: httpx.AsyncClient) -> None:
    assert is_problem(await probe.get(f"/nowhere/{SECRET}"), 404)
    assert is_oauth_error(await probe.get("/oauth2/none"), 404, "invalid_request")


async def test_a_path_with_a_slash_too_many_is_unknown(
    probe: httpx.AsyncClient,
) -> None:
    """R37: a redirect would name the request's Host."""
    answer = await probe.get("/.well-known/jwks.json/", headers={"Host": "evil"})
    assert is_problem(answer, 404)


async def test_a_wrong_method_is_answered_with_all_allowed_ones(
    probe: httpx.AsyncClient,
) -> None:
    """RFC 9110, section 15.5.6: also those of sibling routes."""
    answer = await probe.put("/probe/1")
    assert is_problem(answer, 405)
    assert answer.headers["Allow"] == "DELETE, GET, POST"


async def test_a_client_that_goes_within_its_body_is_no_error(
    issuer: IssuerHarness,
    probe: httpx.AsyncClient,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """R44: without a login, each would be a traceback in the log and a counted
    fault.
    """
    assert await post_and_go(probe, "/probe/1") == []
    assert caplog.records == []
    metrics = issuer.issuer.base.metrics.render().decode()
    assert "gatehouse_issuer_unexpected_errors_total 0.0" in metrics


async def test_an_internal_error_shows_only_the_correlation_id(
    issuer: IssuerHarness,
    probe: httpx.AsyncClient,
    caplog: pytest.LogCaptureFixture,
) -> None:
    answer = await probe.get("/probe/1")
    assert is_problem(answer, 500)
    assert [record.message for record in caplog.records] == ["request.failed"]
    metrics = issuer.issuer.base.metrics.render().decode()
    assert "gatehouse_issuer_unexpected_errors_total 1.0" in metrics
    assert 'route="/probe/{part}",status="500"} 1.0' in metrics


async def test_an_answer_that_fails_half_way_is_cut_off(
    issuer: IssuerHarness, probe: httpx.AsyncClient
) -> None:
    """Ended in an orderly way, half a snapshot could pass for a whole one."""
    with pytest.raises(RuntimeError):
        await probe.get("/half")
    metrics = issuer.issuer.base.metrics.render().decode()
    assert "gatehouse_issuer_unexpected_errors_total 1.0" in metrics


async def test_trouble_of_a_dependency_is_503_with_retry_after(
    issuer: IssuerHarness, probe: httpx.AsyncClient
) -> None:
    """R38."""
    answer = await probe.delete("/probe/0")
    assert is_problem(answer, 503)
    assert answer.headers["Retry-After"] == "3"
    metrics = issuer.issuer.base.metrics.render().decode()
    assert "gatehouse_issuer_database_trouble_total 1.0" in metrics


@pytest.mark.parametrize(
    ("part", "status", "challenge"),
    [
        (1, 401, 'Bearer realm="gatehouse"'),
        (2, 401, 'Bearer realm="gatehouse", error="invalid_token", error_descr'),
        (3, 403, 'Bearer realm="gatehouse", error="insufficient_scope", error_'),
    ],
)
async def test_challenges_follow_rfc_6750(
    probe: httpx.AsyncClient, part: int, status: int, challenge: str
) -> None:
    answer = await probe.delete(f"/probe/{part}")
    assert is_problem(answer, status)
    assert answer.headers["WWW-Authenticate"][: len(challenge)] == challenge


async def test_too_many_attempts_answer_retry_after(
    probe: httpx.AsyncClient,
) -> None:
    answer = await probe.delete("/probe/4")
    assert is_problem(answer, 429)
    assert answer.headers["Retry-After"] == "7"


async def test_an_unknown_client_is_challenged(probe: httpx.AsyncClient) -> None:
    """RFC 6749, section 5.2."""
    answer = await probe.get("/oauth2/probe")
    assert is_oauth_error(answer, 401, "invalid_client")
    assert answer.headers["WWW-Authenticate"] == 'Basic realm="gatehouse"'


# --- correlation, OpenAPI -----------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "is_kept"),
    [
        (["req-12345678"], True),
        (["short"], False),
        (["x" * 65], False),
        (["with space in it"], False),
        (["one-one-one", "two-two-two"], False),
        ([], False),
    ],
)
async def test_only_a_plain_correlation_id_is_taken_over(
    probe: httpx.AsyncClient, given: list[str], is_kept: bool
) -> None:
    headers = [("X-Correlation-Id", value) for value in given]
    answer = await probe.get("/nowhere", headers=headers)
    found = answer.headers["X-Correlation-Id"]
    assert (found in given) == is_kept
    assert len(found) >= 8


async def test_the_document_has_our_errors_and_not_fastapis(
    probe: httpx.AsyncClient,
) -> None:
    document = (await probe.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.")
    for operations in document["paths"].values():
        for operation in operations.values():
            assert "422" not in operation["responses"]
            # Each status that can come is named, none is left to a default.
            assert "default" not in operation["responses"]
            assert "500" not in operation["responses"]
            assert "400" in operation["responses"] or "503" in operation["responses"]
    assert "HTTPValidationError" not in document["components"]["schemas"]


async def find_json_routes(issuer: IssuerHarness) -> set[tuple[str, str]]:
    """Return the routes that take JSON, by the API document."""
    document = (await issuer.client.get("/openapi.json")).json()
    return {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if "application/json" in operation.get("requestBody", {}).get("content", {})
    }


async def test_a_duplicate_member_is_refused_at_every_route(
    issuer: IssuerHarness,
) -> None:
    """Decision 0003: two readers take two values of it."""
    admin = await log_in_admin(issuer)
    routes = await find_json_routes(issuer)
    assert routes >= {("POST", "/auth/login"), ("POST", "/users"), ("POST", "/roles")}
    body = b'{"username": "alice", "scopes": [], "username": "root"}'
    for method, path in sorted(routes):
        target = path.format(
            client_id="gc_x", name="x", user_id="3f0a6e0e-6a2b-4b57-9a0a-5f4f1d7a2c11"
        )
        headers = JSON | (admin.bearer if path != "/auth/logout" else {})
        answer = await issuer.client.request(
            method, target, content=body, headers=headers
        )
        assert is_problem(answer, 400), (method, path, answer.text)
        problem = {"field": "username", "rule": "must not stand twice"}
        assert answer.json()["problems"] == [problem], (method, path)
