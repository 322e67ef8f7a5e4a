"""A running Keycloak with a realm, a client and a user, set up by its admin API.

docs/issuers/keycloak.md describes the same steps for a person.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, Final, NamedTuple

import httpx

from tests.support.processes import Process, ProcessFactory, free_port
from tests.support.real_issuers.keycloak_home import (
    ADMIN_PASSWORD,
    ADMIN_USERNAME,
    NotPreparedError,
    find_prepared,
    java_command,
    make_home,
    start_arguments,
)
from tests.support.real_issuers.token_endpoint import (
    AUDIENCE,
    CLIENT_ID,
    CLIENT_SECRET,
    PATIENCE,
    SCOPE,
    fetch_token,
)
from tests.support.requiring import give_up

REALM: Final = "main"
USERNAME: Final = "jane"
ROLE: Final = "clerk"
_PASSWORD: Final = "jane-password"
_REALM: Final[dict[str, Any]] = {
    "realm": REALM,
    "enabled": True,
    "roles": {"realm": [{"name": ROLE}]},
    "users": [
        {
            "username": USERNAME,
            "enabled": True,
            "email": "jane@example.test",
            "firstName": "Jane",
            "lastName": "Doe",
            "credentials": [{"type": "password", "value": _PASSWORD}],
            "realmRoles": [ROLE],
        }
    ],
}
#: Seconds; ends only what hangs.
_START_LIMIT: Final = 300.0
_KEY_PROVIDER: Final = "org.keycloak.keys.KeyProvider"
#: A client that asks for this scope gets a token for this audience.
_SCOPE: Final[dict[str, Any]] = {
    "name": SCOPE,
    "protocol": "openid-connect",
    "attributes": {"include.in.token.scope": "true"},
    "protocolMappers": [
        {
            "name": "audience",
            "protocol": "openid-connect",
            "protocolMapper": "oidc-audience-mapper",
            "config": {
                "included.custom.audience": AUDIENCE,
                "access.token.claim": "true",
            },
        }
    ],
}
_CLIENT: Final[dict[str, Any]] = {
    "clientId": CLIENT_ID,
    "secret": CLIENT_SECRET,
    "publicClient": False,
    "standardFlowEnabled": False,
    "serviceAccountsEnabled": True,
    "directAccessGrantsEnabled": True,
}


class PublishedKey(NamedTuple):
    """A signing key of the realm.

    Attributes:
        component: the id of its provider, in the admin API.
        kid: in the JWKS.
    """

    component: str
    kid: str


class Keycloak:
    """A running Keycloak. It is started at once, and used after `wait_until_ready`.

    Args:
        folder: for its files.
        factory: stops it when the tests are over.

    Attributes:
        issuer: the `iss` of its tokens.
        process: the program itself.
    """

    def __init__(self, folder: Path, factory: ProcessFactory) -> None:
        """Start it. Without Java the test is skipped; in CI it fails."""
        try:
            prepared = find_prepared()
        except NotPreparedError as error:
            give_up(str(error))
        home, port = folder / "keycloak", free_port()
        make_home(prepared, home)
        self._url = f"http://127.0.0.1:{port}"
        self.issuer = f"{self._url}/realms/{REALM}"
        self._priorities = itertools.count(200)
        command = java_command(home, *start_arguments(port))
        self.process: Process = factory.start("keycloak", command, cwd=home)

    def wait_until_ready(self) -> None:
        """Wait until it answers, and make the realm.

        Raises:
            NotInTimeError: with the end of its log.
        """
        master = f"{self._url}/realms/master"
        self.process.wait_until(
            lambda: _is_found(master), deadline=_START_LIMIT, what="Keycloak answers"
        )
        self._make_realm()

    def client_token(self, scope: str = SCOPE) -> str:
        """Return an access token of the client's own (its service account)."""
        return self._fetch(grant_type="client_credentials", scope=scope)

    def user_token(self, scope: str = f"openid {SCOPE}") -> str:
        """Return an access token of the user, whose password the client has (direct
        access grant).
        """
        return self._fetch(
            grant_type="password", username=USERNAME, password=_PASSWORD, scope=scope
        )

    def publish_key(self) -> PublishedKey:
        """Put a new signing key into the JWKS, with which nothing is signed yet."""
        priority = str(next(self._priorities))
        name = f"rsa-{priority}"
        provider = {
            "name": name,
            "providerId": "rsa-generated",
            "providerType": _KEY_PROVIDER,
            "config": {
                "priority": [priority],
                "active": ["false"],
                "enabled": ["true"],
                "algorithm": ["RS256"],
            },
        }
        self._ask("POST", f"/{REALM}/components", provider)
        found = self._ask("GET", f"/{REALM}/components?name={name}")
        keys = self._ask("GET", f"/{REALM}/keys")["keys"]
        component = found[0]["id"]
        (kid,) = [key["kid"] for key in keys if key["providerId"] == component]
        return PublishedKey(component, kid)

    def sign_with(self, key: PublishedKey) -> None:
        """Sign every token with a published key from now on."""
        path = f"/{REALM}/components/{key.component}"
        provider = self._ask("GET", path)
        provider["config"]["active"] = ["true"]
        self._ask("PUT", path, provider)

    def _make_realm(self) -> None:
        self._ask("POST", "", _REALM)
        self._ask("POST", f"/{REALM}/client-scopes", _SCOPE)
        self._ask("POST", f"/{REALM}/clients", _CLIENT)
        scopes = self._ask("GET", f"/{REALM}/client-scopes")
        scope = next(one["id"] for one in scopes if one["name"] == SCOPE)
        clients = self._ask("GET", f"/{REALM}/clients?clientId={CLIENT_ID}")
        client = clients[0]["id"]
        self._ask("PUT", f"/{REALM}/clients/{client}/optional-client-scopes/{scope}")

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        """Return what the admin API answers; None for an empty answer."""
        answer = httpx.request(
            method,
            f"{self._url}/admin/realms{path}",
            json=body,
            headers={"Authorization": f"Bearer {self._admin_token()}"},
            timeout=PATIENCE,
            trust_env=False,
        )
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def _admin_token(self) -> str:
        """Return a token for one request: they live for a minute."""
        answer = httpx.post(
            f"{self._url}/realms/master/protocol/openid-connect/token",
            data={
                "grant_type": "password",
                "client_id": "admin-cli",
                "username": ADMIN_USERNAME,
                "password": ADMIN_PASSWORD,
            },
            timeout=PATIENCE,
            trust_env=False,
        )
        return str(answer.raise_for_status().json()["access_token"])

    def _fetch(self, **form: str) -> str:
        url = f"{self.issuer}/protocol/openid-connect/token"
        return fetch_token(url, **form)


def _is_found(url: str) -> bool:
    try:
        return httpx.get(url, timeout=10.0, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False
