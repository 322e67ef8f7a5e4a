"""Every address in an answer is below ISSUER_URL, for any request
(R37).
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx
import pytest

from issuer.exports.status_list import LISTS_PATH
from tests.support.issuer_harness import (
    FEED_TOKEN,
    IssuerHarness,
    make_settings,
    running_issuer,
)
from tests.support.issuer_story import PASSWORD, read_segment
from tests.support.login_story import log_in_admin

PREFIX = "/id"
URL = f"https://host.example{PREFIX}"
#: Headers by which a caller may try to get its own host into our answers.
HOSTILE = {
    "Host": "evil.example",
    "Forwarded": "for=192.0.2.1;host=evil.example;proto=evil",
    "X-Forwarded-For": "192.0.2.1",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Port": "6666",
    "X-Forwarded-Prefix": "/evil",
    "X-Forwarded-Proto": "evil",
    "X-Forwarded-Server": "evil.example",
    "X-Host": "evil.example",
    "X-Original-Host": "evil.example",
    "X-Original-URL": "/evil",
    "X-Rewrite-URL": "/evil",
    "X-Script-Name": "/evil",
}
ABSOLUTE = re.compile(r"https?://[^\s\"'<>\\,;)]+")


@pytest.fixture
async def issuer(sqlite_url: str) -> AsyncIterator[IssuerHarness]:
    """An issuer with a gateway that removes the prefix, as it must."""
    settings = make_settings(
        sqlite_url,
        url=URL,
        status_list=True,
        cors_origins=("https://app.example",),
        trusted_proxies=("192.0.2.7",),
    )
    async with running_issuer(settings) as harness:
        # httpx would put the prefix before every path.
        harness.client.base_url = httpx.URL("https://host.example")
        yield harness


@pytest.fixture
async def bearer(issuer: IssuerHarness) -> dict[str, str]:
    return (await log_in_admin(issuer)).bearer


async def make_one_of_each(
    issuer: IssuerHarness, headers: dict[str, str]
) -> list[httpx.Response]:
    """Return the answer to each request that makes something."""

    async def post(path: str, body: dict[str, Any]) -> httpx.Response:
        answer = await issuer.client.post(path, json=body, headers=headers)
        assert answer.status_code == 201, (path, answer.text)
        return answer

    role = {"name": "clerk:1", "scopes": ["orders:read"]}
    made = [
        await post("/roles", role),
        await post("/users", {"username": "alice", "password": PASSWORD}),
        await post("/clients", {"name": "Batch", "scopes": ["orders:read"]}),
        await post(
            "/users/me/keys",
            {
                "name": "laptop",
                "scopes": [],
                "expires_in": 86_400,
                "password": PASSWORD,
            },
        ),
    ]
    client_id = made[2].json()["id"]
    return [*made, await post(f"/clients/{client_id}/secrets", {})]


async def test_a_location_behind_a_prefix_names_the_new_resource(
    issuer: IssuerHarness, bearer: dict[str, str]
) -> None:
    made = await make_one_of_each(issuer, bearer)
    locations = [answer.headers["Location"] for answer in made]
    assert [location[: len(URL) + 1] for location in locations] == [f"{URL}/"] * 5
    for answer, location in zip(made[:3], locations, strict=False):
        # What a client makes of it, and what the gateway makes of that.
        target = urljoin(f"{URL}/anything", location).removeprefix(URL)
        shown = await issuer.client.get(target, headers=bearer)
        assert shown.status_code == 200
        name = "name" if "name" in answer.json() else "id"
        assert shown.json()[name] == answer.json()[name]


async def test_every_201_names_the_new_resource(issuer: IssuerHarness) -> None:
    """A new route that makes something is added to `make_one_of_each`, unless it cannot
    be read again, as a reset token.
    """
    document = (await issuer.client.get("/openapi.json")).json()
    makes = {
        path
        for path, operations in document["paths"].items()
        for operation in operations.values()
        if "201" in operation["responses"]
    }
    assert makes == {
        "/roles",
        "/users",
        "/clients",
        "/users/me/keys",
        "/clients/{client_id}/secrets",
        "/users/{user_id}/password-reset",
    }


async def test_the_documents_name_addresses_below_the_prefix(
    issuer: IssuerHarness,
) -> None:
    document = (await issuer.client.get("/openapi.json")).json()
    assert document["servers"] == [{"url": URL}]
    well_known = "/.well-known/oauth-authorization-server"
    # RFC 8414, section 3.1: the issuer's own path stands behind the well-known one. The
    # gateway does not take that away.
    for path in (well_known, well_known + PREFIX):
        answer = await issuer.client.get(path)
        assert answer.status_code == 200
        metadata = answer.json()
        assert metadata["issuer"] == URL
        for address in ABSOLUTE.findall(answer.text):
            assert address == URL or address.startswith(f"{URL}/")
        for name in ("jwks_uri", "status_list_aggregation_endpoint"):
            target = metadata[name].removeprefix(URL)
            assert (await issuer.client.get(target)).status_code == 200


async def test_a_status_list_is_at_the_address_in_the_token(
    issuer: IssuerHarness, bearer: dict[str, str]
) -> None:
    token = bearer["Authorization"].removeprefix("Bearer ")
    uri = read_segment(token, 1)["status"]["status_list"]["uri"]
    assert uri.startswith(f"{URL}{LISTS_PATH}/")
    answer = await issuer.client.get(uri.removeprefix(URL))
    assert answer.status_code == 200
    assert read_segment(answer.text, 1)["sub"] == uri


async def test_r37_no_answer_names_a_host_of_the_request(
    issuer: IssuerHarness, bearer: dict[str, str]
) -> None:
    """Every route, with and without a credential, and what exists besides them."""
    document = (await issuer.client.get("/openapi.json")).json()
    routes = [
        (method, re.sub(r"\{\w+\}", "x", path))
        for path, operations in document["paths"].items()
        for method in operations
    ]
    routes += [
        ("GET", "/docs"),
        ("GET", "/docs/"),
        ("GET", "/docs/start.js"),
        ("GET", "/docs/swagger-ui.css"),
        ("GET", "/docs/missing"),
        ("GET", "/docs//evil.test/.."),
        ("GET", "/openapi.json"),
        ("GET", "/nowhere"),
        ("GET", "/users/"),
        ("GET", "//evil.test/"),
        ("OPTIONS", "/auth/login"),
    ]
    answers = await make_one_of_each(issuer, HOSTILE | bearer)
    # Reading routes come first: others end the credential.
    for method, path in sorted(
        routes, key=lambda route: route[0] not in {"get", "GET"}
    ):
        for credential in ({}, bearer, {"Authorization": f"Bearer {FEED_TOKEN}"}):
            headers = HOSTILE | credential
            answers.append(await issuer.client.request(method, path, headers=headers))
    assert {answer.status_code // 100 for answer in answers} == {2, 4}
    for answer in answers:
        output = [*answer.headers.values(), answer.text]
        assert "evil" not in " ".join(output), answer.request.url
        location = answer.headers.get("Location", URL)
        assert location.startswith(URL)
        assert urlsplit(location).netloc == "host.example"
