"""The access log: one line per request, without anything that a client can hide in."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from issuer.app import build_public_app
from issuer.composition import compose
from issuer.http.observation.access_log import AccessLog
from tests.support.issuer_harness import make_settings
from tests.support.log_lines import kept_lines

Lines = list[dict[str, Any]]
SECRET = "hunter2-hunter2-hunter2"


@pytest.fixture
def lines() -> Iterator[Lines]:
    with kept_lines() as lines:
        yield lines


def answered(lines: Lines) -> Lines:
    return [line for line in lines if line["event"] == "request.answered"]


@pytest.fixture
async def client(sqlite_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an issuer with an access log, through a proxy of ours."""
    settings = make_settings(
        sqlite_url, access_log=True, trusted_proxies=("192.0.2.7",)
    )
    issuer = compose(settings)
    transport = httpx.ASGITransport(
        app=build_public_app(issuer), client=("192.0.2.7", 50_000)
    )
    async with httpx.AsyncClient(
        transport=transport, base_url="https://issuer.test"
    ) as client:
        yield client
    await issuer.close()


async def test_each_request_has_one_line(
    client: httpx.AsyncClient, lines: Lines
) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {
        "X-Forwarded-For": "203.0.113.9",
        "X-Request-ID": "r-1",
        "Traceparent": f"00-{trace}-b7ad6b7169203331-01",
    }
    answer = await client.get("/.well-known/jwks.json", headers=headers)
    assert answer.status_code == 200
    (line,) = answered(lines)
    assert line.pop("duration_ms") > 0
    for name in ("time", "program", "logger", "correlation_id"):
        line.pop(name)
    assert line == {
        "level": "info",
        "event": "request.answered",
        "method": "GET",
        "route": "/.well-known/jwks.json",
        "status": 200,
        "bytes": len(answer.content),
        "client": "203.0.113.9",
        "request_id": "r-1",
        "trace_id": trace,
    }


async def test_a_line_repeats_nothing_of_path_query_headers_and_body(
    client: httpx.AsyncClient, lines: Lines
) -> None:
    """R35: a token in a query, a name in a path, a password in a body."""
    for method, path in (
        ("GET", f"/users/{SECRET}?access_token={SECRET}"),
        ("POST", f"/auth/login?password={SECRET}"),
        ("POST", f"/nowhere/{SECRET}"),
        (SECRET, "/health"),
    ):
        await client.request(
            method,
            path,
            json={"username": SECRET, "password": SECRET},
            headers={"Authorization": f"Bearer {SECRET}", "User-Agent": SECRET},
        )
    found = answered(lines)
    assert SECRET not in str(found)
    assert [line["route"] for line in found] == [
        "/users/{user_id}",
        "/auth/login",
        "unmatched",
        "unmatched",
    ]
    assert found[-1]["method"] == "other"


@pytest.mark.parametrize("forwarded", ["", "unknown", 'x", "event": "planted'])
async def test_an_unusable_client_address_is_the_proxys(
    client: httpx.AsyncClient, lines: Lines, forwarded: str
) -> None:
    headers = {"X-Forwarded-For": forwarded}
    await client.get("/.well-known/jwks.json", headers=headers)
    (line,) = answered(lines)
    assert line["client"] == "192.0.2.7"
    assert "planted" not in str(line)


async def test_it_is_written_at_any_log_level(
    client: httpx.AsyncClient, lines: Lines
) -> None:
    """Decision 0012: a setting is in force or refused."""
    logging.getLogger().setLevel(logging.ERROR)
    await client.get("/.well-known/jwks.json")
    assert len(answered(lines)) == 1


async def test_a_client_that_leaves_has_a_line(lines: Lines) -> None:
    async def leave(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise ConnectionError

    async def nothing() -> Message:
        return {"type": "http.disconnect"}

    async def drop(_message: Message) -> None:
        """Send nothing."""

    watched = AccessLog(leave, lambda _scope: "192.0.2.1", iter([1.0, 1.5]).__next__)
    with pytest.raises(ConnectionError):
        await watched({"type": "http", "method": "GET"}, nothing, drop)
    (line,) = answered(lines)
    assert (line["status"], line["bytes"], line["duration_ms"]) == (0, 0, 500.0)


async def test_it_is_off_by_default(sqlite_url: str, lines: Lines) -> None:
    issuer = compose(make_settings(sqlite_url))
    transport = httpx.ASGITransport(app=build_public_app(issuer))
    async with httpx.AsyncClient(
        transport=transport, base_url="https://issuer.test"
    ) as client:
        assert (await client.get("/.well-known/jwks.json")).status_code == 200
    await issuer.close()
    assert answered(lines) == []
