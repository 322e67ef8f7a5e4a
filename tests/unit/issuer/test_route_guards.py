"""Every route has its guard, declared here; every part a route asks for is provided."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from issuer.app import build_public_app
from issuer.clients.grants import Grants
from issuer.composition import Issuer, compose
from issuer.feed.confirmation import Confirmation
from issuer.feed.routes import Following
from issuer.http.authorization.authentication import (
    Administrator,
    Authenticated,
    Authentication,
)
from issuer.http.dependencies import find_asked, provide
from issuer.http.strict_json import PlainRoute, StrictRoute
from issuer.sessions.logout import Logout
from tests.support.issuer_harness import make_settings

SETTINGS = make_settings("sqlite+aiosqlite:///unused.db", status_list=True)
ISSUER = compose(SETTINGS)
APP = build_public_app(ISSUER)
ROUTES = {
    f"{method} {route.path}": route
    for route in APP.router.routes
    if isinstance(route, APIRoute)
    for method in route.methods or ()
}

#: Any access token of this issuer. What else it must be is the route's own rule.
TOKEN = """
DELETE /auth/sessions
DELETE /auth/sessions/{sid}
DELETE /users/me/keys/{key_id}
GET /auth/second-factor
GET /auth/sessions
GET /users/me
GET /users/me/keys
GET /users/{user_id}
PATCH /users/me
POST /auth/logout-all
POST /auth/password
POST /auth/second-factor/confirmation
POST /auth/second-factor/enrolment
POST /auth/second-factor/recovery-codes
POST /auth/second-factor/removal
POST /users/me/keys
"""
#: An access token with `gatehouse:admin`.
ADMINISTRATOR = """
DELETE /clients/{client_id}
DELETE /clients/{client_id}/secrets/{number}
DELETE /clients/{client_id}/tokens
DELETE /roles/{name}
DELETE /users/{user_id}
DELETE /users/{user_id}/keys/{key_id}
DELETE /users/{user_id}/second-factor
DELETE /users/{user_id}/sessions
DELETE /users/{user_id}/sessions/{sid}
GET /audit
GET /clients
GET /clients/{client_id}
GET /keys
GET /roles
GET /roles/{name}
GET /users
GET /users/{user_id}/keys
GET /users/{user_id}/sessions
PATCH /clients/{client_id}
PATCH /users/{user_id}
POST /clients
POST /clients/{client_id}/disable
POST /clients/{client_id}/enable
POST /clients/{client_id}/secrets
POST /keys/{kid}/revoke
POST /revocations/bulk
POST /roles
POST /users
POST /users/{user_id}/disable
POST /users/{user_id}/enable
POST /users/{user_id}/password-reset
PUT /roles/{name}
"""
#: The credential is in the body, or there is one of another kind: the handler asks.
#: `test_route_access.py` sends requests without any to these.
BY_HANDLER = """
GET /revocations
GET /revocations/snapshot
POST /auth/login
POST /auth/login/second-factor
POST /auth/logout
POST /auth/password-reset
POST /auth/refresh
POST /oauth2/introspect
POST /oauth2/revoke
POST /oauth2/token
POST /revocations/goodbye
"""
#: Signed or public documents.
PUBLIC = """
GET /.well-known/jwks.json
GET /.well-known/oauth-authorization-server
GET /status-lists
GET /status-lists/{number}
HEAD /.well-known/jwks.json
HEAD /.well-known/oauth-authorization-server
"""


def listed(text: str) -> set[str]:
    return set(text.strip().splitlines())


def calls_of(dependant: Dependant) -> Iterator[object]:
    for each in dependant.dependencies:
        yield each.call
        yield from calls_of(each)


def guarded_by(guard: Any) -> set[str]:
    (depends,) = guard.__metadata__
    return {
        name
        for name, route in ROUTES.items()
        if depends.dependency in calls_of(route.dependant)
    }


def test_every_route_is_in_exactly_one_list() -> None:
    """A new route must be put into one: there is no default."""
    lists = [*map(listed, (TOKEN, ADMINISTRATOR, BY_HANDLER, PUBLIC))]
    assert sorted(name for names in lists for name in names) == sorted(ROUTES)


def test_a_route_has_the_guard_of_its_list() -> None:
    assert guarded_by(Authenticated) == listed(TOKEN)
    assert guarded_by(Administrator) == listed(ADMINISTRATOR)


def test_no_route_without_fastapi_has_a_guard_that_would_not_run() -> None:
    """A `PlainRoute` ignores its dependencies."""
    for name, route in ROUTES.items():
        if isinstance(route, PlainRoute):
            assert not list(calls_of(route.dependant)), name


def test_every_body_is_read_strictly() -> None:
    """R5, R35: FastAPI's own reader must not be the one that reads it."""
    for name, route in ROUTES.items():
        if route.body_field is not None:
            assert isinstance(route, StrictRoute), name


# --- parts ---------------------------------------------------------------------------


def test_every_part_that_a_route_asks_for_is_found() -> None:
    asked = set[type]().union(*map(find_asked, ROUTES.values()))
    assert {Authentication, Confirmation, Following, Grants, Logout} <= asked
    # Each part that is provided is asked for: there is no dead one.
    assert asked == set(APP.state.parts)


PARTS = sorted(APP.state.parts, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("missing", PARTS, ids=lambda kind: kind.__name__)
def test_an_application_without_a_part_is_not_built(missing: type) -> None:
    with pytest.raises(ValueError, match=f"the part {missing.__name__}: no package"):
        build_public_app(without(ISSUER, missing))


def without(issuer: Issuer, missing: type) -> Issuer:
    """Return the issuer without one of the parts that its packages provide."""
    lacking = copy.copy(issuer)
    lacking.packages = copy.copy(issuer.packages)
    lacking.packages.provides = [
        part for part in issuer.packages.provides if type(part) is not missing
    ]
    return lacking


def test_two_parts_of_one_class_are_refused() -> None:
    one, other = object(), object()
    with pytest.raises(ValueError, match="two parts of the class object"):
        provide(FastAPI(), [one, other])
    provide(FastAPI(), [one, one])
