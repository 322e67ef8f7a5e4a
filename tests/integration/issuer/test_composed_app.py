"""The composed application: the whole path of a login, and what surrounds all
routes.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing

import httpx
import pytest
from fastapi.routing import APIRoute
from sqlalchemy import make_url

from issuer.app import build_public_app
from issuer.http.operators_port.health import build_operators_app
from shared.feed import EntryKind, parse_page
from shared.serving.server import Lifecycle
from tests.support.issuer_harness import (
    FEED_TOKEN,
    IssuerHarness,
    make_settings,
    running_issuer,
)
from tests.support.processes import eventually

PASSWORD = "a long enough pass phrase"
FEED = {"Authorization": f"Bearer {FEED_TOKEN}"}


async def test_a_logout_is_in_the_feed(issuer: IssuerHarness) -> None:
    """The main promise: after a logout the gate refuses the token."""
    await issuer.create_user("alice", PASSWORD)
    body = {"username": "alice", "password": PASSWORD}
    login = await issuer.client.post("/auth/login", json=body)
    assert login.status_code == 200, login.text
    token = login.json()["access_token"]
    bearer = {"Authorization": f"Bearer {token}"}
    assert (await issuer.client.get("/users/me", headers=bearer)).status_code == 200

    logout = await issuer.client.post("/auth/logout", headers=bearer)
    assert logout.is_success, logout.text
    snapshot = await issuer.client.get("/revocations/snapshot", headers=FEED)
    (entry,) = parse_page(snapshot.content).entries
    assert entry.kind is EntryKind.SID
    assert entry.prune_at >= issuer.clock.now + issuer.settings.access_ttl
    assert (await issuer.client.get("/users/me", headers=bearer)).status_code == 401

    metrics = issuer.issuer.base.metrics.render().decode()
    assert 'gatehouse_issuer_logins_total{outcome="succeeded"} 1.0' in metrics
    assert 'gatehouse_issuer_revocations_total{kind="sid"} 1.0' in metrics
    assert "gatehouse_issuer_feed_head 1.0" in metrics


async def test_each_documented_route_is_built_once(issuer: IssuerHarness) -> None:
    """Included as routers, each would be built again and looked for router by
    router.
    """
    app = build_public_app(issuer.issuer)
    own = {route.path for route in app.router.routes if isinstance(route, APIRoute)}
    assert own == app.openapi()["paths"].keys()


async def test_a_worker_that_was_asked_to_stop_is_not_ready(
    issuer: IssuerHarness,
) -> None:
    """R60: readiness goes first, so that no new requests are sent here."""
    await issuer.issuer.keys.store.ensure_active()
    lifecycle = Lifecycle()
    app = build_operators_app(issuer.issuer.operators, lifecycle)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://operators.test"
    ) as client:
        assert (await client.get("/readyz")).status_code == 200
        lifecycle.is_draining = True
        answer = await client.get("/readyz")
    assert (answer.status_code, answer.json()["reason"]) == (503, "draining")


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz"])
async def test_operators_paths_are_not_on_the_public_port(
    issuer: IssuerHarness, path: str
) -> None:
    """R6, R39."""
    assert (await issuer.client.get(path)).status_code == 404


async def test_only_the_feed_token_reads_the_feed_and_it_reads_nothing_else(
    issuer: IssuerHarness,
) -> None:
    """R23."""
    await issuer.create_user("alice", PASSWORD)
    body = {"username": "alice", "password": PASSWORD}
    login = await issuer.client.post("/auth/login", json=body)
    bearer = {"Authorization": f"Bearer {login.json()['access_token']}"}
    answer = await issuer.client.get("/revocations/snapshot", headers=bearer)
    assert answer.status_code == 401
    assert (await issuer.client.get("/users/me", headers=FEED)).status_code == 401


async def test_every_answer_but_the_public_documents_stays_out_of_caches(
    issuer: IssuerHarness,
) -> None:
    for path in ("/nowhere", "/users/me", "/revocations", "/openapi.json"):
        answer = await issuer.client.get(path)
        assert answer.headers["Cache-Control"] == "no-store", path
    answer = await issuer.operators.get("/metrics")
    assert answer.headers["Cache-Control"] == "no-store"


async def test_every_route_is_documented_once(issuer: IssuerHarness) -> None:
    document = (await issuer.client.get("/openapi.json")).json()
    assert {
        "/auth/login",
        "/auth/logout",
        "/auth/refresh",
        "/users/me",
        "/oauth2/token",
        "/oauth2/revoke",
        "/oauth2/introspect",
        "/.well-known/jwks.json",
        "/.well-known/oauth-authorization-server",
        "/revocations",
        "/revocations/snapshot",
    } <= document["paths"].keys()
    operations = [
        operation
        for operations in document["paths"].values()
        for operation in operations.values()
    ]
    assert all(operation.get("summary") for operation in operations)


async def test_a_body_of_any_kind_never_makes_a_login_fail_with_500(
    issuer: IssuerHarness,
) -> None:
    """R35, at the endpoint where a password is in the body."""
    bodies = [
        b'{"username": "alice", "password": "hunter2hunter2", "size": NaN}',
        rb'{"username": "alice", "password": "hunter2\ud800"}',
        rb'{"username": "alice", "password": "hunter2\u0000"}',
        b'{"username": "alice", "password": ["hunter2"]}',
        b'{"username": "alice", "password": "hunter2", "admin": true}',
        b'{"password": "hunter2"}',
        b"hunter2" * 3_000_000,
    ]
    for body in bodies:
        headers = {"Content-Type": "application/json"}
        answer = await issuer.client.post("/auth/login", content=body, headers=headers)
        assert 400 <= answer.status_code < 500
        assert "hunter2" not in answer.text


async def test_a_background_task_that_fails_is_logged_and_ends_nothing_else(
    sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What a statement of ours does wrong is no trouble of the database."""
    with closing(sqlite3.connect(make_url(sqlite_url).database)) as db:
        for table in ("feed_entries", "login_throttles"):
            db.execute(
                f"CREATE TRIGGER {table}_stay BEFORE DELETE ON {table} "
                "BEGIN SELECT RAISE(ABORT, 'stays'); END"
            )
        db.execute("INSERT INTO feed_entries VALUES (1, 'jti', 'x', 0, 0)")
        db.execute("INSERT INTO login_throttles VALUES (x'00', 1, 0, 0, 0)")
        db.commit()
    async with running_issuer(make_settings(sqlite_url)) as issuer:

        async def both_are_logged() -> bool:
            messages = [record.message for record in caplog.records]
            return messages.count("background.failed") >= 2

        await eventually(both_are_logged)
        assert (await issuer.client.get("/openapi.json")).status_code == 200
        assert (await issuer.operators.get("/healthz")).status_code == 200
