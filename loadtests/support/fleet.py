"""Issuer replicas and verifiers as real processes, each to be broken by itself.

`Fleet.add_gate` is over 40 lines: it documents its arguments and names the settings.
"""

from __future__ import annotations

import base64
import http.client
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import urlencode

from deploy.demo.installation import parse_env, plain_environment
from issuer import migrations
from issuer.commands.secret_lines import make_secret_lines
from loadtests.support.processes import Process, ProcessFactory, free_port, wait_until
from loadtests.support.raw_http import RawAnswer, send

#: The shortest staleness there is, and the shortest that `native` takes, seconds.
MAX_STALENESS = 11
NATIVE_STALENESS = 13
TOKEN, CLIENT = "/oauth2/token", "client_credentials"
_SCOPES = ("--scope", "gatehouse:introspect", "--scope", "gatehouse:revoke")


class Revoked(NamedTuple):
    """The answer to a revoking call.

    Attributes:
        body: of the answer; empty when there was none.
        sent_at: `time.monotonic()` seconds before the call.
        answered_at: the same after it.
    """

    body: Mapping[str, Any]
    sent_at: float
    answered_at: float

    @property
    def is_confirmed(self) -> bool:
        """Whether the answer promises that no verifier lets the token through."""
        return bool(self.body.get("confirmed"))


@dataclass
class Replica:
    """One issuer process after the other at the same place."""

    port: int
    admin: int
    process: Process | None = None


@dataclass
class Gate:
    """One verifier process after the other at the same place.

    Attributes:
        address: where it is asked: a loopback port or a unix socket.
        admin: the same for operators.
        env: its settings.
        prefix: stands before its command.
        words: of the verifier's command.
        process: the one that runs.
    """

    name: str
    address: int | Path
    admin: int | Path
    env: Mapping[str, str]
    prefix: Sequence[str] = ()
    words: Sequence[str] = ()
    process: Process | None = None

    def signal(self, number: int) -> None:
        """Send a signal to the program itself, not to the command before it."""
        assert self.process is not None
        self.process.send_signal(number)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within, the verifier keeps its connections and does nothing (SIGSTOP)."""
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)


class Secrets(NamedTuple):
    """The parts that belong to a database.

    Attributes:
        env: the issuer's secrets.
        client: a client's id and secret, with a colon between.
    """

    env: Mapping[str, str]
    client: str


def prepare(database_url: str, folder: Path) -> Secrets:
    """Build the database with the migrations, and make a client."""
    secrets = make_issuer_secrets()
    migrations.upgrade(database_url)
    run = subprocess.run(
        (sys.executable, "-m", "issuer", "create-client", "fleet", *_SCOPES),
        env=_issuer_env(secrets, "http://127.0.0.1:1", database_url),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    made = parse_env(run.stdout)
    return Secrets(secrets, f"{made['CLIENT_ID']}:{made['CLIENT_SECRET']}")


def make_issuer_secrets() -> dict[str, str]:
    """Return new secrets of an issuer as its environment takes them."""
    made = parse_env("\n".join(make_secret_lines()))
    return {name: text for name, text in made.items() if name.startswith("ISSUER_")}


def _issuer_env(
    secrets: Mapping[str, str], url: str, database_url: str
) -> dict[str, str]:
    return (
        plain_environment()
        | dict(secrets)
        | {
            "ISSUER_URL": url,
            "ISSUER_AUDIENCE": "fleet",
            "ISSUER_DATABASE_URL": database_url,
            "ISSUER_MAX_FOLLOWER_STALENESS": str(NATIVE_STALENESS),
            "ISSUER_ACCESS_TTL": "3600",
            "ISSUER_BCRYPT_COST": "10",
        }
    )


class Fleet:
    """The parts; nothing runs before it is started.

    Args:
        folder: for logs and state.
        factory: starts the programs.
        database_url: of a database that was prepared.
        secrets: the result of `prepare` for it.
        replicas: places for issuers.
    """

    def __init__(
        self,
        folder: Path,
        factory: ProcessFactory,
        database_url: str,
        secrets: Secrets,
        *,
        replicas: int = 1,
    ) -> None:
        self.folder = folder
        self.factory = factory
        self.replicas = [Replica(free_port(), free_port()) for _ in range(replicas)]
        self.gates: dict[str, Gate] = {}
        self.url = f"http://127.0.0.1:{self.replicas[0].port}"
        self.issuer_env = _issuer_env(secrets.env, self.url, database_url)
        pair = base64.b64encode(secrets.client.encode()).decode()
        self._basic = f"Basic {pair}"

    def command(self, *words: str, given: str = "") -> str:
        """Run a command of the issuer and return its output."""
        run = subprocess.run(
            (sys.executable, "-m", "issuer", *words),
            env=self.issuer_env,
            cwd=self.folder,
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        return run.stdout

    def start_issuer(self, number: int = 0, *, prefix: Sequence[str] = ()) -> Process:
        """Start the issuer at that place, and return once it is ready.

        Args:
            number: of its place.
            prefix: stands before its command.
        """
        replica = self.replicas[number]
        env = self.issuer_env | {
            "ISSUER_BIND": f"127.0.0.1:{replica.port}",
            "ISSUER_ADMIN_BIND": f"127.0.0.1:{replica.admin}",
        }
        replica.process = self.factory.start(
            f"issuer-{number}",
            (*prefix, sys.executable, "-m", "issuer"),
            env=env,
            cwd=self.folder,
            ready=lambda: send(replica.admin, "GET", "/readyz").status == 200,
        )
        return replica.process

    def wait_until_ready(self, number: int = 0) -> None:
        """Return once that issuer, which runs, has its database."""
        wait_until(
            lambda: (
                send(self.replicas[number].admin, "GET", "/readyz").status == 200
                and self._post(number, TOKEN, grant_type=CLIENT).status == 200
            ),
            what="the issuer has its database",
        )

    def kill_issuer(self, number: int = 0) -> None:
        """Kill the issuer at that place (SIGKILL)."""
        process = self.replicas[number].process
        assert process is not None
        process.kill()

    def add_gate(
        self,
        name: str,
        *,
        follows: int = 0,
        keeps_copy: bool = False,
        workers: int = 1,
        prefix: Sequence[str] = (),
        words: Sequence[str] = (),
        settings: Mapping[str, str] = MappingProxyType({}),
    ) -> Gate:
        """Start a verifier and return it once it is ready.

        Args:
            name: its name in `gates` and of its log.
            follows: the loopback port of the issuer it asks; 0: the first's.
            keeps_copy: give it a directory for its disk copy.
            workers: how many processes answer.
            prefix: stands before its command; such a one listens on unix sockets.
            words: of its command; none: it serves.
            settings: further ones, by name.
        """
        source = f"http://127.0.0.1:{follows or self.replicas[0].port}"
        address: int | Path = free_port()
        admin: int | Path = free_port()
        binds = [f"127.0.0.1:{address}", f"127.0.0.1:{admin}"]
        if prefix:
            address, admin = (self.folder / f"{name}{end}" for end in (".s", ".a"))
            binds = [f"unix:{address}", f"unix:{admin}"]
        env = plain_environment() | {
            "VERIFIER_ISSUER_URL": self.url,
            "VERIFIER_AUDIENCE": "fleet",
            "VERIFIER_JWKS_URL": f"{source}/.well-known/jwks.json",
            "VERIFIER_FEED_URL": f"{source}/revocations",
            "VERIFIER_FEED_TOKEN": self.issuer_env["ISSUER_FEED_TOKEN"],
            "VERIFIER_BIND": binds[0],
            "VERIFIER_ADMIN_BIND": binds[1],
            "VERIFIER_MAX_STALENESS": str(MAX_STALENESS),
            "VERIFIER_WORKERS": str(workers),
            **settings,
        }
        if keeps_copy:
            env["VERIFIER_STATE_DIR"] = str(self.folder / f"{name}-state")
        gate = self.gates[name] = Gate(name, address, admin, env, prefix, words)
        self.start_gate(gate)
        return gate

    def start_gate(self, gate: Gate, *, ready: str = "/readyz") -> None:
        """Start the verifier at this place; return when `ready` answers 200."""
        gate.process = self.factory.start(
            gate.name,
            (*gate.prefix, sys.executable, "-m", "verifier", *gate.words),
            env=gate.env,
            cwd=self.folder,
            ready=lambda: send(gate.admin, "GET", ready).status == 200,
        )

    def mint(self, number: int = 0) -> str:
        """Return a new access token of the client."""
        answer = self._post(number, TOKEN, grant_type=CLIENT)
        assert answer.status == 200, answer
        token: str = answer.json()["access_token"]
        return token

    def is_active(self, token: str, number: int = 0) -> bool:
        """Return whether that issuer holds a token for alive."""
        answer = self._post(number, "/oauth2/introspect", token=token)
        assert answer.status == 200, answer
        is_active: bool = answer.json()["active"]
        return is_active

    def revoke(self, token: str, *, wait: int, number: int = 0) -> Revoked:
        """Revoke a token at an issuer; no answer, or a 503, is an empty one."""
        sent_at = time.monotonic()
        body: Mapping[str, Any] = {}
        with suppress(OSError, http.client.HTTPException):
            prefer = ("Prefer", f"wait={wait}")
            answer = self._post(number, "/oauth2/revoke", prefer, token=token)
            assert answer.status in {200, 503}, answer
            body = answer.json() if answer.status == 200 else {}
        return Revoked(body, sent_at, time.monotonic())

    def _post(
        self, number: int, target: str, *headers: tuple[str, str], **form: str
    ) -> RawAnswer:
        body = urlencode(form).encode()
        lines = [
            ("Authorization", self._basic),
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("Content-Length", str(len(body))),
            *headers,
        ]
        port = self.replicas[number].port
        return send(port, "POST", target, lines, body)
