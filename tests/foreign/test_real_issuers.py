"""Tokens of real OpenID providers at a real gateway, by the recipes of docs/issuers."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from deploy.demo.addresses import Addresses
from deploy.demo.installation import AUDIENCE
from tests.support.installed_gateways import require
from tests.support.processes import ProcessFactory, free_port, wait_until
from tests.support.raw_http import RawAnswer, bearer, send
from tests.support.real_issuers import lemonldap
from tests.support.real_issuers.gated import KEYS_MAX_AGE, ROLE, Gated, entry
from tests.support.real_issuers.keycloak import Keycloak
from tests.support.real_issuers.lemonldap import LemonLdap
from tests.support.real_issuers.oidc_provider import (
    EDDSA_API,
    ES256_API,
    USERNAME,
    OidcProvider,
)
from tests.support.real_issuers.token_endpoint import CLIENT_ID, SCOPE

pytestmark = pytest.mark.processes
P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class Providers:
    """The providers, and a gate that accepts the tokens of all of them.

    In place of a provider that is not on this machine stands the reason.
    """

    gated: Gated
    keycloak: Keycloak | BaseException
    oidc_provider: OidcProvider | BaseException
    lemonldap: LemonLdap | BaseException


@pytest.fixture(scope="module")
def providers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Providers]:
    require("nginx")
    folder = tmp_path_factory.mktemp("real-issuers")
    factory = ProcessFactory(folder)
    try:
        yield start_all(folder, factory)
    finally:
        factory.stop_all()


def start_all(folder: Path, factory: ProcessFactory) -> Providers:
    # The slowest first: the others start while it does.
    keycloak = start(Keycloak, folder, factory)
    node = start(OidcProvider, folder, factory)
    portal = start(LemonLdap, folder, factory)
    entries = []
    if isinstance(node, OidcProvider):
        entries.append(entry("oidc-provider", node.issuer))
    if isinstance(portal, LemonLdap):
        entries.append(entry("lemonldap", portal.issuer))
    if isinstance(keycloak, Keycloak):
        entries.append(entry("keycloak", keycloak.issuer))
        keycloak.wait_until_ready()
    gated = Gated(folder, factory, dict(entries))
    return Providers(gated, keycloak, node, portal)


def start(
    kind: Callable[[Path, ProcessFactory], P], folder: Path, factory: ProcessFactory
) -> P | BaseException:
    try:
        return kind(folder, factory)
    except pytest.skip.Exception as why:
        return why


def found(provider: P | BaseException) -> P:
    """Return the provider, or skip the test."""
    if isinstance(provider, BaseException):
        raise provider
    return provider


def claims_of(token: str) -> dict[str, Any]:
    segment = token.split(".")[1]
    read: dict[str, Any] = json.loads(base64.urlsafe_b64decode(segment + "=="))
    return read


def header_of(token: str) -> dict[str, str]:
    segment = token.split(".")[0]
    read: dict[str, str] = json.loads(base64.urlsafe_b64decode(segment + "=="))
    return read


def allowed(issuer: str, **identity: str) -> dict[str, str]:
    """Return the identity headers of an allow, as the application gets them."""
    headers = {f"x-auth-{name}": value for name, value in identity.items()}
    return {"x-auth-issuer": issuer, "x-auth-decision": "allow", **headers}


@pytest.mark.parametrize(
    ("api", "alg"), [(ES256_API, "ES256"), (EDDSA_API, "EdDSA")], ids=["es256", "eddsa"]
)
def test_oidc_provider(providers: Providers, api: str, alg: str) -> None:
    provider, gated = found(providers.oidc_provider), providers.gated
    token = provider.user_token(api)
    assert header_of(token)["alg"] == alg
    assert gated.identity(token) == allowed(
        provider.issuer,
        subject=USERNAME,
        user=USERNAME,
        client=CLIENT_ID,
        scope=SCOPE,
        roles=ROLE,
        session=claims_of(token)["sid"],
    )
    robot = provider.client_token(api)
    assert gated.identity(robot, "/") == allowed(
        provider.issuer,
        subject=CLIENT_ID,
        client=CLIENT_ID,
        scope=SCOPE,
        roles="robot",
    )
    assert gated.reason(robot) == "role_missing"


def test_lemonldap(providers: Providers) -> None:
    provider, gated = found(providers.lemonldap), providers.gated
    token = provider.user_token()
    assert gated.identity(token) == allowed(
        provider.issuer,
        subject=lemonldap.USERNAME,
        user=lemonldap.USERNAME,
        client=CLIENT_ID,
        scope=f"openid {SCOPE}",
        roles=" ".join(claims_of(token)["roles"]),
    )
    assert ROLE in claims_of(token)["roles"]
    # Its keys have no `alg`.
    facts = gated.facts("lemonldap", token)
    assert (facts["subject"], facts["session"]) == (lemonldap.USERNAME, "")
    robot = provider.client_token()
    assert gated.identity(robot, "/") == allowed(
        provider.issuer, subject=CLIENT_ID, client=CLIENT_ID, scope=SCOPE
    )
    assert gated.reason(robot) == "role_missing"


def test_another_gatehouse(providers: Providers, tmp_path: Path) -> None:
    """A second verifier, whose own issuer is not there, accepts what ours signs."""
    stack = providers.gated.stack
    issuer = Addresses.url(stack.addresses.issuer)
    name, text = entry("gatehouse", issuer, AUDIENCE)
    issuers, policies = tmp_path / "issuers.toml", tmp_path / "policies.toml"
    issuers.write_text(text)
    policies.write_text(f'[policies.default]\nissuers = ["{name}"]\n')
    port, login = free_port(), stack.log_in()

    def check() -> RawAnswer:
        return send(port, "GET", "/verify/nginx", [bearer(login.access_token)])

    factory = ProcessFactory(tmp_path)
    try:
        factory.start(
            "other-verifier",
            (sys.executable, "-m", "verifier"),
            env={
                **stack.installation.verifier_env,
                "VERIFIER_ISSUER_URL": f"http://127.0.0.1:{free_port()}",
                "VERIFIER_JWKS_URL": "",
                "VERIFIER_FEED_URL": "",
                "VERIFIER_BIND": f"127.0.0.1:{port}",
                "VERIFIER_ADMIN_BIND": f"127.0.0.1:{free_port()}",
                "VERIFIER_GRPC_BIND": "",
                "VERIFIER_STATE_DIR": "",
                "VERIFIER_START_WAIT": "0",
                "VERIFIER_ISSUERS_FILE": str(issuers),
                "VERIFIER_POLICY_FILE": str(policies),
            },
            cwd=tmp_path,
            ready=lambda: check().status == 200,
        )
        answer = check()
    finally:
        factory.stop_all()
    for header, value in login.identity.items():
        assert (answer.header(header) or "") == value


def test_keycloak_from_the_first_token_to_an_outage(providers: Providers) -> None:
    """The steps are one test, because the last one ends Keycloak."""
    keycloak, gated = found(providers.keycloak), providers.gated
    check_identity(gated, keycloak)
    change_keys(gated, keycloak)
    end(gated, keycloak)


def check_identity(gated: Gated, keycloak: Keycloak) -> None:
    token = keycloak.user_token()
    claims = claims_of(token)
    assert gated.identity(token) == allowed(
        keycloak.issuer,
        subject=claims["sub"],
        user="jane",
        client=CLIENT_ID,
        scope=claims["scope"],
        roles=ROLE,
        session=claims["sid"],
    )
    facts = gated.facts("keycloak", token)
    assert (facts["roles"], facts["session"]) == ([ROLE], claims["sid"])
    robot = keycloak.client_token()
    assert gated.identity(robot, "/") == allowed(
        keycloak.issuer,
        subject=claims_of(robot)["sub"],
        user=f"service-account-{CLIENT_ID}",
        client=CLIENT_ID,
        scope=claims_of(robot)["scope"],
        roles=" ".join(claims_of(robot)["realm_access"]["roles"]),
    )
    assert gated.reason(robot) == "role_missing"
    # Without the scope no audience is added.
    assert gated.reason(keycloak.client_token("openid")) == "audience_mismatch"


def change_keys(gated: Gated, keycloak: Keycloak) -> None:
    """Publish a key, and sign with it once the verifier has it: nothing is refused."""
    before = keycloak.user_token()
    key = keycloak.publish_key()
    # A token of a key that is unknown has the keys fetched before their time.
    assert gated.status(of_another_key(before)) == 401

    def is_known() -> bool:
        assert gated.status(keycloak.user_token()) == 200
        return key.kid in gated.kids("keycloak")

    wait_until(is_known, what="the verifier has the published key", interval=0.2)
    keycloak.sign_with(key)
    after = keycloak.user_token()
    assert header_of(after)["kid"] == key.kid
    assert gated.status(after) == 200
    assert gated.status(before) == 200


def of_another_key(token: str) -> str:
    """Return the token with a `kid` that no key has."""
    header = json.dumps(header_of(token) | {"kid": "unknown"}).encode()
    segment = base64.urlsafe_b64encode(header).rstrip(b"=").decode()
    return ".".join([segment, *token.split(".")[1:]])


def end(gated: Gated, keycloak: Keycloak) -> None:
    """Kill Keycloak: its tokens pass until its keys are too old, and ours always do."""
    token, ours = keycloak.user_token(), gated.own_login().access_token
    keycloak.process.kill()
    left = gated.usable_for("keycloak")
    assert 0 < left <= KEYS_MAX_AGE

    def are_too_old() -> bool:
        assert gated.status(ours, "/") == 200
        # In this order: a token must not be refused while there are keys.
        status, left = gated.status(token), gated.usable_for("keycloak")
        assert status == 200 or left == 0
        return status != 200

    wait_until(are_too_old, what="its keys are too old", interval=0.5)
    assert gated.status(token) == 503
    assert gated.reason(token) == "no_keys"
    assert gated.status(ours, "/") == 200
