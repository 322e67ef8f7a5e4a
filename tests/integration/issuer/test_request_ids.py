"""Every answer and every log line of a request has its ids, and no foreign text."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from fastapi import APIRouter

from issuer.app import build_public_app
from tests.support.issuer_harness import IssuerHarness
from tests.support.log_lines import kept_lines

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"
GATEWAYS = "5f0c7a4e6cb5d04be0fd4ae1d1a4e5c2"


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    with kept_lines() as lines:
        yield lines


async def ask(issuer: IssuerHarness, *headers: tuple[str, str]) -> httpx.Response:
    """Log in with a body that is refused, which writes a line."""
    return await issuer.client.post(
        "/auth/login",
        json={"username": "missing", "password": "not this one"},
        headers=list(headers),
    )


@pytest.mark.parametrize(
    "path", ["/health", "/auth/login", "/nowhere", "/oauth2/token"]
)
async def test_every_answer_has_the_gateways_id(
    issuer: IssuerHarness, path: str
) -> None:
    answer = await issuer.client.get(path, headers={"X-Request-ID": GATEWAYS})
    assert answer.headers.get_list("X-Request-ID") == [GATEWAYS]
    # It leads on to the audit log and is in the error.
    assert answer.headers["X-Correlation-Id"] == GATEWAYS


@pytest.mark.parametrize(
    "given",
    [
        [],
        ["x" * 129],
        ["two words"],
        ["tab\tbed"],
        ['"event":"planted"'],
        ["one-one-one", "two-two-two"],
    ],
)
async def test_an_absent_or_malformed_id_is_replaced(
    issuer: IssuerHarness, given: list[str]
) -> None:
    answer = await ask(issuer, *(("X-Request-ID", value) for value in given))
    (made,) = answer.headers.get_list("X-Request-ID")
    assert made not in given
    assert len(made) == 32
    assert answer.headers["X-Correlation-Id"] == made


async def test_a_callers_own_id_is_kept_beside_the_gateways(
    issuer: IssuerHarness,
) -> None:
    """An old client, behind a gateway that has begun to send ids."""
    own = ("X-Correlation-Id", "the-clients-own")
    answer = await ask(issuer, own, ("X-Request-ID", GATEWAYS))
    assert answer.headers["X-Correlation-Id"] == "the-clients-own"
    assert answer.headers["X-Request-ID"] == GATEWAYS
    answer = await ask(issuer, own)
    assert answer.headers["X-Request-ID"] == "the-clients-own"


async def test_an_id_that_the_audit_log_cannot_hold_is_replaced_there(
    issuer: IssuerHarness,
) -> None:
    long = "a.b-" * 30
    answer = await ask(issuer, ("X-Request-ID", long))
    assert answer.headers["X-Request-ID"] == long
    assert len(answer.headers["X-Correlation-Id"]) == 32


@pytest.fixture
async def faulty(issuer: IssuerHarness) -> AsyncIterator[httpx.AsyncClient]:
    """The issuer with a route that logs a line and fails."""
    app, router = build_public_app(issuer.issuer), APIRouter()

    @router.get("/fault")
    async def fail() -> None:
        logging.getLogger("issuer.test").warning("inside")
        raise RuntimeError("planted")

    app.include_router(router)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(
        transport=transport, base_url="https://issuer.test"
    ) as client:
        yield client


async def test_every_line_of_a_request_has_its_ids(
    faulty: httpx.AsyncClient, lines: list[dict[str, Any]]
) -> None:
    """A line in the midst of the request, and the one about its end."""
    sent = {"X-Request-ID": GATEWAYS, "Traceparent": TRACEPARENT}
    answer = await faulty.get("/fault", headers=sent)
    assert answer.status_code == 500
    assert answer.headers["X-Request-ID"] == GATEWAYS
    of_issuer = [line for line in lines if line["logger"].startswith("issuer.")]
    assert [line["event"] for line in of_issuer] == ["inside", "request.failed"]
    for line in of_issuer:
        assert line["request_id"] == GATEWAYS
        assert line["trace_id"] == TRACE
    logging.getLogger("issuer.test").warning("outside")
    assert not {"request_id", "trace_id"} & lines[-1].keys()


@pytest.mark.parametrize(
    "traceparent", ["", TRACEPARENT + " planted", "00-" + "0" * 32 + TRACEPARENT[35:]]
)
async def test_an_unsafe_traceparent_is_in_no_line(
    faulty: httpx.AsyncClient, lines: list[dict[str, Any]], traceparent: str
) -> None:
    await faulty.get("/fault", headers={"Traceparent": traceparent})
    (line,) = [line for line in lines if line["event"] == "request.failed"]
    assert "trace_id" not in line
    assert len(line["request_id"]) == 32
