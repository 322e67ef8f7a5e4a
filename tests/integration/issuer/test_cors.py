"""Pages of listed origins may call what people's applications need, others may not."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from issuer.http.cors import METHODS, PATHS, REQUEST_HEADERS
from tests.support.issuer_harness import (
    IssuerHarness,
    create_app,
    make_settings,
    running_issuer,
)
from tests.support.issuer_story import PASSWORD, log_in

APP, OTHER = "https://app.example.com", "https://other.example.com"
LISTED = (APP, "http://localhost:3000")
#: Origins that look like a listed one.
STRANGERS = [
    OTHER,
    "null",
    "*",
    "",
    "http://app.example.com",
    "https://app.example.com:8443",
    "https://app.example.com:443",
    "https://APP.example.com",
    "https://app.example.com/",
    "https://app.example.com.evil.example",
    "https://evil-app.example.com",
    "https://app.example.co",
    "https://issuer.test",
    "http://localhost:3001",
]


@pytest.fixture
async def issuer(sqlite_url: str) -> AsyncIterator[IssuerHarness]:
    settings = make_settings(
        sqlite_url, cors_origins=LISTED, login_free_failures=2, hash_queue=0
    )
    async with running_issuer(settings) as harness:
        await harness.create_user("alice", PASSWORD)
        yield harness


def cors_headers(answer: httpx.Response) -> set[str]:
    return {name for name in answer.headers if name.startswith("access-control-")}


def is_readable(answer: httpx.Response, origin: str = APP) -> bool:
    """Tell whether a browser shows this answer to a page of the origin."""
    exposed = answer.headers.get("Access-Control-Expose-Headers", "").split(", ")
    wanted = {"WWW-Authenticate", "Retry-After", "ETag", "Location", "X-Correlation-Id"}
    return (
        answer.headers.get_list("Access-Control-Allow-Origin") == [origin]
        and "Access-Control-Allow-Credentials" not in answer.headers
        and "Origin" in answer.headers["Vary"]
        and wanted <= set(exposed)
    )


async def preflight(
    issuer: IssuerHarness,
    path: str,
    *,
    origin: str = APP,
    method: str = "POST",
    headers: str | None = "content-type",
) -> httpx.Response:
    asked = {"Origin": origin, "Access-Control-Request-Method": method}
    if headers is not None:
        asked["Access-Control-Request-Headers"] = headers
    return await issuer.client.options(path, headers=asked)


async def may_send(issuer: IssuerHarness, path: str, **asked: str) -> bool:
    """Tell whether a browser would send the request after this preflight."""
    answer = await preflight(issuer, path, **asked)
    allowed = answer.headers.get("Access-Control-Allow-Origin")
    return answer.is_success and allowed == asked.get("origin", APP)


async def test_a_page_of_a_listed_origin_logs_in_works_and_logs_out(
    issuer: IssuerHarness,
) -> None:
    origin = {"Origin": APP}
    assert await may_send(issuer, "/auth/login")
    body = {"username": "alice", "password": PASSWORD}
    answer = await issuer.client.post("/auth/login", json=body, headers=origin)
    assert answer.status_code == 200
    assert is_readable(answer)
    tokens = answer.json()
    bearer = origin | {"Authorization": f"Bearer {tokens['access_token']}"}
    assert await may_send(issuer, "/users/me", method="GET", headers="authorization")
    answer = await issuer.client.get("/users/me", headers=bearer)
    assert is_readable(answer)
    etag = answer.headers["ETag"]
    asked = "authorization,content-type,if-match,prefer,x-correlation-id"
    assert await may_send(issuer, "/users/me", method="PATCH", headers=asked)
    answer = await issuer.client.patch(
        "/users/me",
        json={"username": "alice.smith", "password": PASSWORD},
        headers=bearer | {"If-Match": etag},
    )
    assert is_readable(answer)
    answer = await issuer.client.post(
        "/auth/refresh",
        json={"refresh_token": tokens["refresh_token"]},
        headers=origin,
    )
    assert answer.status_code == 200
    assert is_readable(answer)
    assert await may_send(issuer, "/auth/logout", headers="authorization, prefer")
    # A new name ended the first access token.
    bearer = origin | {"Authorization": f"Bearer {answer.json()['access_token']}"}
    answer = await issuer.client.post("/auth/logout", headers=bearer)
    assert answer.is_success
    assert is_readable(answer)


@pytest.mark.parametrize(
    "path", ["/.well-known/jwks.json", "/.well-known/oauth-authorization-server"]
)
async def test_cacheable_answers_vary_by_origin(
    issuer: IssuerHarness, path: str
) -> None:
    """Otherwise a copy made for another caller is given to the page, without the
    header.
    """
    for origin in ({}, {"Origin": OTHER}, {"Origin": APP}):
        answer = await issuer.client.get(path, headers=origin)
        assert "Origin" in answer.headers["Vary"]
    assert is_readable(answer)
    etag = answer.headers.get("ETag")
    if etag:
        answer = await issuer.client.get(
            path, headers={"Origin": APP, "If-None-Match": etag}
        )
        assert answer.status_code == 304
        assert is_readable(answer)


async def test_errors_can_be_read_by_the_page(issuer: IssuerHarness) -> None:
    """400, 401, 404, 405, 413, 415, 429 and 503: from every layer that answers."""
    client, origin = issuer.client, {"Origin": APP}
    wrong = {"username": "alice", "password": "wrong horse battery"}
    answers = [
        await client.post("/auth/login", json=wrong, headers=origin) for _ in range(3)
    ]
    answers += [
        await client.get("/users/me", headers=origin),
        await client.get("/auth/nowhere", headers=origin),
        await client.put("/auth/login", headers=origin),
        await client.post("/auth/login", content=b"x" * 20_000, headers=origin),
        await client.post("/auth/login", content=b"x", headers=origin),
        await client.post("/oauth2/token", data={"grant_type": "x"}, headers=origin),
    ]
    with issuer.issuer.hashing.pool.reserve():
        answers.append(await client.post("/auth/login", json=wrong, headers=origin))
    statuses = [answer.status_code for answer in answers]
    assert statuses == [401, 401, 429, 401, 404, 405, 413, 415, 400, 503]
    assert [answer for answer in answers if not is_readable(answer)] == []


async def test_another_origin_gets_no_cors_header(issuer: IssuerHarness) -> None:
    """Exact comparison: scheme, host and port (R37)."""
    body = {"username": "alice", "password": PASSWORD}
    for origin in STRANGERS:
        given = {"Origin": origin}
        answers = [
            await preflight(issuer, "/auth/login", origin=origin),
            await issuer.client.post("/auth/login", json=body, headers=given),
            await issuer.client.get("/users/me", headers=given),
        ]
        assert [answer.status_code for answer in answers] == [405, 200, 401]
        assert [cors_headers(answer) for answer in answers] == [set()] * 3, origin


async def test_two_origins_in_one_request_are_none(issuer: IssuerHarness) -> None:
    headers = [("Origin", APP), ("Origin", OTHER)]
    answer = await issuer.client.get("/.well-known/jwks.json", headers=headers)
    assert cors_headers(answer) == set()


@pytest.mark.parametrize(
    ("asked", "is_allowed"),
    [
        ({"method": "PUT"}, False),
        ({"method": "TRACE"}, False),
        ({"method": "post"}, False),
        ({"headers": "x-anything"}, False),
        ({"headers": "authorization, cookie"}, False),
        ({"headers": "gatehouse-follower"}, False),
        ({"headers": "AUTHORIZATION"}, True),
        ({"headers": None}, True),
    ],
)
async def test_a_preflight_allows_our_methods_and_headers_alone(
    issuer: IssuerHarness, asked: dict[str, str], is_allowed: bool
) -> None:
    assert await may_send(issuer, "/auth/login", **asked) is is_allowed


async def test_a_preflight_is_never_answered_with_credentials(
    issuer: IssuerHarness,
) -> None:
    answer = await preflight(issuer, "/auth/login")
    assert answer.headers["Access-Control-Max-Age"] == "600"
    assert "Access-Control-Allow-Credentials" not in answer.headers
    assert "*" not in answer.headers["Access-Control-Allow-Headers"]
    assert "Origin" in answer.headers["Vary"]
    assert answer.headers["X-Correlation-Id"]


def routes() -> list[tuple[str, str]]:
    document = create_app(make_settings("sqlite+aiosqlite:///unused")).openapi()
    return [(path, m) for path, methods in document["paths"].items() for m in methods]


OPEN = {(path, method) for path, method in routes() if path.startswith(PATHS)}


async def test_feed_administration_and_introspection_have_no_cors(
    issuer: IssuerHarness,
) -> None:
    """Routes that are not for people's applications; also new ones, until listed."""
    closed = sorted(set(routes()) - OPEN)
    assert {("/revocations", "get"), ("/users", "post"), ("/keys", "get")} < set(closed)
    for path, method in closed:
        asked = await preflight(issuer, path, method=method.upper())
        answer = await issuer.client.request(method, path, headers={"Origin": APP})
        assert asked.status_code == 405
        assert answer.status_code >= 400
        assert cors_headers(asked) | cors_headers(answer) == set(), path


def test_every_open_route_is_one_a_browser_application_calls() -> None:
    """A new one below an open path is looked at before it is added here."""
    assert {path for path, _ in OPEN} == {
        "/.well-known/jwks.json",
        "/.well-known/oauth-authorization-server",
        "/auth/login",
        "/auth/login/second-factor",
        "/auth/logout",
        "/auth/logout-all",
        "/auth/password",
        "/auth/password-reset",
        "/auth/refresh",
        "/auth/second-factor",
        "/auth/second-factor/confirmation",
        "/auth/second-factor/enrolment",
        "/auth/second-factor/recovery-codes",
        "/auth/second-factor/removal",
        "/auth/sessions",
        "/auth/sessions/{sid}",
        "/oauth2/revoke",
        "/oauth2/token",
        "/users/me",
        "/users/me/keys",
        "/users/me/keys/{key_id}",
    }
    assert {method.upper() for _, method in OPEN} <= set(METHODS)
    assert "Cookie" not in REQUEST_HEADERS


async def test_a_path_is_open_by_whole_segments(issuer: IssuerHarness) -> None:
    for path in ("/users/mex", "/users/", "/authority", "/docs"):
        answer = await issuer.client.get(path, headers={"Origin": APP})
        assert cors_headers(answer) == set(), path


async def test_the_operators_port_has_no_cors(issuer: IssuerHarness) -> None:
    for path in ("/metrics", "/healthz", "/readyz"):
        answer = await issuer.operators.get(path, headers={"Origin": APP})
        assert cors_headers(answer) == set()


async def test_there_is_no_cors_without_the_setting(sqlite_url: str) -> None:
    async with running_issuer(make_settings(sqlite_url)) as issuer:
        await issuer.create_user("alice", PASSWORD)
        await log_in(issuer)
        for answer in (
            await preflight(issuer, "/auth/login"),
            await issuer.client.get("/.well-known/jwks.json", headers={"Origin": APP}),
        ):
            assert cors_headers(answer) == set()
            assert "Vary" not in answer.headers
