"""A real issuer process, which clients that others wrote speak to over loopback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from deploy.demo.addresses import Addresses
from deploy.demo.installation import AUDIENCE, Installation, install
from tests.support.processes import ProcessFactory, free_port
from tests.support.raw_http import post_json, send


@dataclass(frozen=True, slots=True)
class RunningIssuer:
    """A running issuer, and credentials for it.

    Attributes:
        url: the issuer's, as in tokens.
        audience: of its tokens.
        client_id: a client that may ask for a token, introspect and revoke.
        client_secret: its secret.
        username: an administrator.
        password: of the same.
    """

    url: str
    audience: str
    client_id: str
    client_secret: str
    username: str
    password: str

    def log_in(self) -> dict[str, str]:
        """Return the tokens of a new session of the administrator's."""
        body = {"username": self.username, "password": self.password}
        return dict(post_json(self._port, "/auth/login", body).json())

    def make_key(self) -> str:
        """Return a new personal key of the administrator's."""
        bearer = ("Authorization", f"Bearer {self.log_in()['access_token']}")
        body = {
            "name": "x",
            "scopes": ["gatehouse:admin"],
            "expires_in": 3_600,
            "password": self.password,
        }
        answer = post_json(self._port, "/users/me/keys", body, [bearer])
        return str(answer.json()["key"])

    @property
    def _port(self) -> int:
        return int(self.url.rpartition(":")[2])


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningIssuer]:
    """An issuer set up by its own commands, which takes passwords at
    `/oauth2/token`.
    """
    folder = tmp_path_factory.mktemp("foreign")
    ports = [free_port() for _ in range(6)]
    installed = install(folder / "var", Addresses(*ports))
    factory = ProcessFactory(folder)
    try:
        yield _start(installed, factory)
    finally:
        factory.stop_all()


def _start(installed: Installation, factory: ProcessFactory) -> RunningIssuer:
    addresses = installed.addresses
    factory.start(
        "issuer",
        (sys.executable, "-m", "issuer"),
        env={
            **installed.issuer_env,
            "ISSUER_PASSWORD_GRANT": "true",
            "ISSUER_PERSONAL_KEY_ADMIN": "true",
        },
        cwd=installed.var,
        ready=lambda: send(addresses.issuer_admin, "GET", "/readyz").status == 200,
    )
    return RunningIssuer(
        url=Addresses.url(addresses.issuer),
        audience=AUDIENCE,
        client_id=installed.client_id,
        client_secret=installed.client_secret,
        username=installed.admin_username,
        password=installed.admin_password,
    )
