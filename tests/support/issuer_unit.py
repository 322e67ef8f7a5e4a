"""The issuer's unit with a database, asked over HTTP on a port or a unix socket."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.issuer_harness import FEED_TOKEN
from tests.support.postgres import PostgresServer
from tests.support.processes import Process, ProcessFactory, free_port
from tests.support.raw_http import RawAnswer, bearer, send
from tests.support.unit_file import UNITS
from tests.support.unit_service import UnitService

UNIT = UNITS / "gatehouse-issuer.service"
PASSWORD = "correct horse battery"
USERNAME = "alice"
_KEY = "A" * 43
_POSTGRES = "/run/postgresql"


class IssuerUnit:
    """One issuer run by its unit.

    Args:
        machine: a folder for the unit's directories; made.
        factory: starts its processes.
        postgres: the server its database is made on; SQLite without one.
        on_unix_sockets: listen in the runtime directory, not on ports.
        unit: the unit file.
        settings: further settings, by name.
    """

    def __init__(
        self,
        machine: Path,
        factory: ProcessFactory,
        *,
        postgres: PostgresServer | None = None,
        on_unix_sockets: bool = False,
        unit: Path = UNIT,
        **settings: str,
    ) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self.public: int | Path = int(self.url.rpartition(":")[2])
        self.admin: int | Path = free_port()
        binds = (f"127.0.0.1:{self.public}", f"127.0.0.1:{self.admin}")
        if on_unix_sockets:
            names = ("public.sock", "admin.sock")
            binds = tuple(f"unix:/run/gatehouse-issuer/{name}" for name in names)
            self.public, self.admin = (
                machine / "run/gatehouse-issuer" / n for n in names
            )
        database = "sqlite+aiosqlite:////var/lib/gatehouse-issuer/issuer.db"
        shown: dict[Path, str] = {}
        if postgres is not None:
            name = postgres.create_database()
            database = f"postgresql+asyncpg://postgres@/{name}?host={_POSTGRES}"
            shown[postgres.directory] = _POSTGRES
        rings = ("KEY_ENCRYPTION_KEYS", "PASSWORD_PEPPERS", "REFRESH_KEYS")
        made = {
            "ISSUER_URL": self.url,
            "ISSUER_AUDIENCE": "api",
            "ISSUER_DATABASE_URL": database,
            "ISSUER_FEED_TOKEN": FEED_TOKEN,
            "ISSUER_BCRYPT_COST": "10",
            **{f"ISSUER_{ring}": f"k1:{_KEY}" for ring in rings},
            "ISSUER_BIND": binds[0],
            "ISSUER_ADMIN_BIND": binds[1],
            **settings,
        }
        self.service = UnitService(unit, machine, factory, made, shown)

    @property
    def python(self) -> str:
        """The interpreter of the installation, as the unit names it."""
        return self.service.unit.command("ExecStart")[0]

    def start(self) -> Process:
        """Migrate and serve, as the unit does."""
        return self.service.start(
            lambda: send(self.admin, "GET", "/readyz").status == 200
        )

    def create_admin(self) -> None:
        """Make the account that `log_in` uses."""
        done = self.service.run("create-admin", USERNAME, given=f"{PASSWORD}\n")
        assert done.returncode == 0, (done, self.service.denials())

    def log_in(self) -> dict[str, Any]:
        """Log in and return the answer, which must be tokens."""
        return self._tokens("/auth/login", {"username": USERNAME, "password": PASSWORD})

    def refresh(self, refresh_token: str) -> dict[str, Any]:
        """Exchange a refresh token for its successor."""
        return self._tokens("/auth/refresh", {"refresh_token": refresh_token})

    def log_out(self, access_token: str) -> None:
        """End the token's session."""
        answer = send(self.public, "POST", "/auth/logout", [bearer(access_token)])
        assert answer.status == 200, answer

    def _tokens(self, target: str, content: object) -> dict[str, Any]:
        answer = self._post(target, content)
        assert answer.status == 200, answer
        found: dict[str, Any] = answer.json()
        return found

    def _post(self, target: str, content: object) -> RawAnswer:
        body = json.dumps(content).encode()
        headers = [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
        ]
        return send(self.public, "POST", target, headers, body, timeout=30)
