"""Every route refuses a request without its credential, and with a lesser one."""

from __future__ import annotations

import re

import httpx
import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from issuer.app import build_public_app
from issuer.audit.reading import AuditFilter
from issuer.http.authorization.authentication import Administrator
from tests.support.issuer_harness import FEED_TOKEN, IssuerHarness

PASSWORD = "a long enough pass phrase"
PUBLIC = ("/.well-known/", "/status-lists")
#: What routes answer whose credential is in the body: it is not there.
BY_HANDLER = {
    "POST /auth/login": 400,
    "POST /auth/login/second-factor": 400,
    "POST /auth/password-reset": 400,
    "POST /auth/refresh": 400,
    "POST /oauth2/token": 400,
}
#: A body here is the credential.
WITHOUT_BODY = ("/auth/logout", "/revocations/goodbye")
_KINDS = {
    "client_id": "gc_" + "0" * 32,
    "number": "1",
    "name": "clerk",
    "kid": "k" * 43,
}


def routes_of(
    issuer: IssuerHarness, *, for_administrators: bool = False
) -> list[tuple[str, str]]:
    """Return method and path of every route that is not public."""
    app = build_public_app(issuer.issuer)
    (guard,) = Administrator.__metadata__  # type: ignore[attr-defined]
    return [
        (method, route.path)
        for route in app.router.routes
        if isinstance(route, APIRoute) and not route.path.startswith(PUBLIC)
        if not for_administrators or depends_on(route.dependant, guard.dependency)
        for method in sorted(route.methods or ())
    ]


def depends_on(dependant: Dependant, guard: object) -> bool:
    return any(
        each.call is guard or depends_on(each, guard) for each in dependant.dependencies
    )


def fill(path: str) -> str:
    """Return the path with a well-formed value for each parameter."""
    unknown = "00000000-0000-4000-8000-000000000000"
    return re.sub(r"\{(\w+)\}", lambda found: _KINDS.get(found[1], unknown), path)


async def log_in(issuer: IssuerHarness, username: str, *roles: str) -> str:
    await issuer.create_user(username, PASSWORD, roles)
    body = {"username": username, "password": PASSWORD}
    answer = await issuer.client.post("/auth/login", json=body)
    assert answer.status_code == 200, answer.text
    token: str = answer.json()["access_token"]
    return token


async def count_events(issuer: IssuerHarness) -> int:
    page = await issuer.issuer.audit.reader.read_page(AuditFilter(), 100, None)
    return len(page.rows)


async def ask(
    issuer: IssuerHarness, method: str, path: str, token: str | None
) -> httpx.Response:
    """Send the request with an empty body of the right kind."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    is_form = path.startswith("/oauth2/")
    if method in ("POST", "PUT", "PATCH") and path not in WITHOUT_BODY:
        kind = "x-www-form-urlencoded" if is_form else "json"
        headers["Content-Type"] = f"application/{kind}"
    body = b"" if is_form or "Content-Type" not in headers else b"{}"
    return await issuer.client.request(
        method, fill(path), headers=headers, content=body
    )


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_no_route_does_anything_without_a_credential(
    issuer: IssuerHarness,
) -> None:
    found = {}
    for method, path in routes_of(issuer):
        answer = await ask(issuer, method, path, None)
        found[f"{method} {path}"] = answer.status_code
        assert answer.headers["Cache-Control"] == "no-store", path
        if answer.status_code == 401:
            assert "WWW-Authenticate" in answer.headers, path
    assert found == dict.fromkeys(found, 401) | BY_HANDLER


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_user_without_the_scope_opens_no_route_of_administrators(
    issuer: IssuerHarness,
) -> None:
    token = await log_in(issuer, "alice")
    events = await count_events(issuer)
    refused = (403, "insufficient_scope")
    asked = routes_of(issuer, for_administrators=True)
    asked.append(("GET", "/users/{user_id}"))
    assert len(asked) > 30
    for method, path in asked:
        answer = await ask(issuer, method, path, token)
        assert (answer.status_code, answer.json()["code"]) == refused, path
    # The token still counts, nothing was recorded and nothing was revoked.
    assert (await ask(issuer, "GET", "/users/me", token)).status_code == 200
    assert await count_events(issuer) == events
    assert (await issuer.issuer.feed.feed.head()).seq == 0


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_the_feed_credential_opens_no_other_route(issuer: IssuerHarness) -> None:
    """R23."""
    for method, path in routes_of(issuer):
        if path.startswith("/revocations") and path != "/revocations/bulk":
            continue
        expected = BY_HANDLER.get(f"{method} {path}", 401)
        answer = await ask(issuer, method, path, FEED_TOKEN)
        assert answer.status_code == expected, path
