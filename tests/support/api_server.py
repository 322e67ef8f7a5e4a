"""A real issuer over HTTP, with an administrator, for tests that call every route."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import httpx

from tests.support.issuer_harness import FEED_TOKEN
from tests.support.processes import PATIENCE, ProcessFactory, free_port

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "correct horse battery"
_USERNAME = "root"
_ISSUER = (sys.executable, "-m", "issuer")


class ApiServer:
    """A running issuer.

    Attributes:
        url: where it listens.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._made = 0

    @classmethod
    def start(cls, folder: Path, factory: ProcessFactory, **settings: str) -> ApiServer:
        """Start one on a database of its own; `ISSUER_URL` may be a gateway's."""
        bind, admin_bind = free_port(), free_port()
        kept = {n: v for n, v in os.environ.items() if not n.startswith("ISSUER_")}
        env = kept | {
            "PYTHONPATH": str(ROOT),
            "ISSUER_URL": f"http://127.0.0.1:{bind}",
            "ISSUER_AUDIENCE": "api",
            "ISSUER_BCRYPT_COST": "10",
            "ISSUER_BIND": f"127.0.0.1:{bind}",
            "ISSUER_ADMIN_BIND": f"127.0.0.1:{admin_bind}",
            "ISSUER_DATABASE_URL": f"sqlite+aiosqlite:///{folder}/issuer.db",
            "ISSUER_FEED_TOKEN": FEED_TOKEN,
            "ISSUER_KEY_ENCRYPTION_KEYS": "k1:" + "AQEB" * 10 + "AQE",
            "ISSUER_PASSWORD_PEPPERS": "p1:" + "AgIC" * 10 + "AgI",
            "ISSUER_REFRESH_KEYS": "r1:" + "AwMD" * 10 + "AwM",
            **settings,
        }
        subprocess.run([*_ISSUER, "migrate"], env=env, cwd=folder, check=True)
        subprocess.run(
            [*_ISSUER, "create-admin", _USERNAME],
            env=env,
            cwd=folder,
            input=PASSWORD.encode(),
            check=True,
        )
        ready = f"http://127.0.0.1:{admin_bind}/readyz"
        factory.start(
            "issuer",
            _ISSUER,
            env=env,
            cwd=folder,
            ready=lambda: _is_ready(ready),
            deadline=60,
        )
        return cls(f"http://127.0.0.1:{bind}")

    def make_administrator(self) -> str:
        """Return the access token of an administrator of its own."""
        self._made += 1
        username = f"{_USERNAME}{self._made}"
        body = {"username": username, "password": PASSWORD, "roles": ["admin"]}
        bearer = {"Authorization": f"Bearer {self._log_in(_USERNAME)}"}
        made = httpx.post(
            f"{self.url}/users", json=body, headers=bearer, timeout=PATIENCE
        )
        assert made.status_code == 201, made.text
        return self._log_in(username)

    def _log_in(self, username: str) -> str:
        body = {"username": username, "password": PASSWORD}
        answer = httpx.post(f"{self.url}/auth/login", json=body, timeout=PATIENCE)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False
