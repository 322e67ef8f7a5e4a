"""authlib and oauthlib, as anybody would use them, against a running issuer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from authlib.integrations.requests_client import OAuth2Session as AuthlibSession
from authlib.integrations.requests_client import OAuthError as AuthlibError
from joserfc import jwt
from joserfc.jwk import KeySet
from oauthlib.oauth2 import BackendApplicationClient, LegacyApplicationClient
from oauthlib.oauth2.rfc6749 import errors as oauthlib_errors
from requests_oauthlib import OAuth2Session

from tests.foreign.conftest import RunningIssuer

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def metadata(running: RunningIssuer) -> dict[str, Any]:
    """The metadata that a client reads by RFC 8414, and checks by its section 3.3."""
    answer = httpx.get(f"{running.url}/.well-known/oauth-authorization-server")
    found = dict(answer.json())
    assert found["issuer"] == running.url
    return found


@pytest.fixture(params=["client_secret_basic", "client_secret_post"])
def authlib_client(
    request: pytest.FixtureRequest, running: RunningIssuer, metadata: dict[str, Any]
) -> Iterator[AuthlibSession]:
    """Each way in which a client may show itself."""
    method = str(request.param)
    assert method in metadata["token_endpoint_auth_methods_supported"]
    with AuthlibSession(
        running.client_id,
        running.client_secret,
        token_endpoint_auth_method=method,
        revocation_endpoint_auth_method=method,
    ) as client:
        yield client


@pytest.fixture
def first_party() -> Iterator[AuthlibSession]:
    """A client without a secret."""
    with AuthlibSession(
        "gatehouse",
        token_endpoint_auth_method="none",
        revocation_endpoint_auth_method="none",
    ) as client:
        yield client


@pytest.fixture(autouse=True, scope="module")
def _loopback_is_secure_enough() -> Iterator[None]:
    """oauthlib has no other switch for loopback without https."""
    os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"
    yield
    del os.environ["OAUTHLIB_INSECURE_TRANSPORT"]


def read_claims(
    running: RunningIssuer, metadata: dict[str, Any], token: str
) -> dict[str, Any]:
    """Verify a token with joserfc, with the keys that the metadata lead to."""
    keys = KeySet.import_key_set(httpx.get(metadata["jwks_uri"]).json())
    decoded = jwt.decode(token, keys, algorithms=["RS256"])
    assert decoded.header["typ"] == "at+jwt"
    jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": running.url},
        aud={"essential": True, "value": running.audience},
        exp={"essential": True},
    ).validate(decoded.claims)
    return dict(decoded.claims)


def test_authlib_gets_introspects_and_revokes_a_clients_token(
    running: RunningIssuer, metadata: dict[str, Any], authlib_client: AuthlibSession
) -> None:
    """RFC 6749 section 4.4, RFC 7662, RFC 7009."""
    token = authlib_client.fetch_token(
        metadata["token_endpoint"], grant_type="client_credentials"
    )
    assert token["token_type"] == "Bearer"
    claims = read_claims(running, metadata, token["access_token"])
    assert claims["sub"] == claims["client_id"] == running.client_id

    def introspect() -> dict[str, Any]:
        answer = authlib_client.introspect_token(
            metadata["introspection_endpoint"], token=token["access_token"]
        )
        return dict(answer.json())

    shown = introspect()
    assert (shown["active"], shown["scope"]) == (True, token["scope"])
    revoked = authlib_client.revoke_token(
        metadata["revocation_endpoint"],
        token=token["access_token"],
        token_type_hint="access_token",
    )
    assert revoked.status_code == 200
    assert introspect() == {"active": False}


def test_authlib_goes_on_with_a_session_and_ends_it(
    running: RunningIssuer, metadata: dict[str, Any], first_party: AuthlibSession
) -> None:
    """RFC 6749, section 6, for a public client."""
    first = running.log_in()
    later = first_party.refresh_token(
        metadata["token_endpoint"], refresh_token=first["refresh_token"]
    )
    assert later["refresh_token"] != first["refresh_token"]
    assert read_claims(running, metadata, later["access_token"])["username"] == "admin"
    revoked = first_party.revoke_token(
        metadata["revocation_endpoint"], token=later["refresh_token"]
    )
    assert revoked.status_code == 200
    with pytest.raises(AuthlibError) as refusal:
        first_party.refresh_token(
            metadata["token_endpoint"], refresh_token=later["refresh_token"]
        )
    assert refusal.value.error == "invalid_grant"


def test_authlib_exchanges_a_personal_key(
    running: RunningIssuer, metadata: dict[str, Any], first_party: AuthlibSession
) -> None:
    """RFC 8693."""
    token = first_party.fetch_token(
        metadata["token_endpoint"],
        grant_type="urn:ietf:params:oauth:grant-type:token-exchange",
        subject_token=running.make_key(),
        subject_token_type="urn:gatehouse:token-type:personal-key",
    )
    claims = read_claims(running, metadata, token["access_token"])
    assert claims["username"] == "admin"
    assert claims["client_id"] == "gatehouse-key"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"scope": "orders:delete"}, "invalid_scope"),
        ({"resource": "https://other.example"}, "invalid_target"),
        ({"grant_type": "implicit"}, "unsupported_grant_type"),
    ],
)
def test_authlib_reads_our_refusals(
    metadata: dict[str, Any],
    authlib_client: AuthlibSession,
    changes: dict[str, str],
    error: str,
) -> None:
    wish = {"grant_type": "client_credentials"} | changes
    with pytest.raises(AuthlibError) as refusal:
        authlib_client.fetch_token(metadata["token_endpoint"], **wish)
    assert refusal.value.error == error
    assert refusal.value.description


@pytest.mark.parametrize("in_the_form", [False, True], ids=["basic", "post"])
def test_oauthlib_gets_a_clients_token(
    running: RunningIssuer, metadata: dict[str, Any], in_the_form: bool
) -> None:
    with OAuth2Session(client=BackendApplicationClient(running.client_id)) as session:
        token = session.fetch_token(
            metadata["token_endpoint"],
            client_secret=running.client_secret,
            include_client_id=in_the_form,
        )
        assert read_claims(running, metadata, token["access_token"])
        # It carries the token by itself (RFC 6750).
        assert session.get(f"{running.url}/users/me").status_code == 403


def test_oauthlib_logs_a_user_in_and_goes_on(
    running: RunningIssuer, metadata: dict[str, Any]
) -> None:
    """RFC 6749 sections 4.3 and 6."""
    client = LegacyApplicationClient("gatehouse")
    with OAuth2Session(client=client) as session:
        token = session.fetch_token(
            metadata["token_endpoint"],
            username=running.username,
            password=running.password,
            include_client_id=True,
        )
        me = session.get(f"{running.url}/users/me").json()
        assert me["username"] == running.username
        later = session.refresh_token(metadata["token_endpoint"], client_id="gatehouse")
        assert later["refresh_token"] != token["refresh_token"]
        with pytest.raises(oauthlib_errors.InvalidGrantError):
            session.fetch_token(
                metadata["token_endpoint"],
                username=running.username,
                password="not the password",
                include_client_id=True,
            )


def test_oauthlib_reads_our_refusals(
    running: RunningIssuer, metadata: dict[str, Any]
) -> None:
    with OAuth2Session(client=BackendApplicationClient(running.client_id)) as session:
        with pytest.raises(oauthlib_errors.InvalidClientError):
            session.fetch_token(metadata["token_endpoint"], client_secret="ghs_wrong")
        with pytest.raises(oauthlib_errors.InvalidScopeError):
            session.fetch_token(
                metadata["token_endpoint"],
                client_secret=running.client_secret,
                scope=["orders:delete"],
            )
