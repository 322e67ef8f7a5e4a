"""The OpenAPI document names the credential of each route."""

from __future__ import annotations

from tests.support.issuer_harness import create_app, make_settings

DOCUMENT = create_app(make_settings("sqlite+aiosqlite:///unused")).openapi()
#: Routes that take no credential, or have it in their body.
OPEN = {
    "/.well-known/jwks.json",
    "/.well-known/oauth-authorization-server",
    "/auth/login",
    "/auth/login/second-factor",
    "/auth/password-reset",
    "/auth/refresh",
}


def credentials() -> dict[str, set[str]]:
    """Return the names of the schemes each path takes."""
    return {
        path: {
            name
            for operation in operations.values()
            for choice in operation.get("security", ())
            for name in choice
        }
        for path, operations in DOCUMENT["paths"].items()
    }


def test_every_scheme_that_a_route_names_is_described() -> None:
    described = DOCUMENT["components"]["securitySchemes"]
    assert set().union(*credentials().values()) == described.keys()
    assert described["accessToken"]["scheme"] == "bearer"


def test_security_of_each_route() -> None:
    found = credentials()
    assert {path for path, names in found.items() if not names} == OPEN
    assert found["/users"] == {"accessToken"}
    assert found["/oauth2/token"] == {"client"}
    assert found["/revocations/snapshot"] == {"feedToken"}
    assert found["/revocations"] == {"feedToken"}
