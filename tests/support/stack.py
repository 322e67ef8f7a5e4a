"""The whole stack on loopback: issuer, verifier, application, gateways, all real.

Set up by the code that `make up` runs, so that both stand or fall together.
"""

from __future__ import annotations

import atexit
import base64
import functools
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from deploy.demo.addresses import Addresses
from deploy.demo.installation import APP_COMMAND, ROOT, Installation, install
from deploy.gateway_programs import registry
from issuer.http.preferences import MAX_PREFERRED_WAIT
from tests.support.gateway_kinds.kind import GatewayKind
from tests.support.gateway_kinds.table import KINDS
from tests.support.native_writer import lets_pass, start_writer
from tests.support.processes import (
    Process,
    ProcessFactory,
    free_port,
    is_listening,
    wait_until,
)
from tests.support.raw_http import RawAnswer, bearer, post_json, send
from verifier.native.needs import LEAST_STALENESS


@dataclass(frozen=True, slots=True)
class Login:
    """The tokens of one login, and the identity headers they stand for."""

    access_token: str
    refresh_token: str

    @property
    def identity(self) -> dict[str, str]:
        """The identity headers an allow of this token carries, read from its claims."""
        segment = self.access_token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(segment + "=="))
        return {
            "x-auth-subject": claims["sub"],
            "x-auth-user": claims.get("username", ""),
            "x-auth-client": claims["client_id"],
            "x-auth-scope": claims["scope"],
            "x-auth-roles": " ".join(claims["roles"]),
            "x-auth-session": claims["sid"],
            "x-auth-decision": "allow",
        }


@dataclass(frozen=True, slots=True)
class GatewayUnderTest:
    """A running gateway.

    Attributes:
        name: as in the registry.
        addresses: those in its config.
        process: the running program.
    """

    name: str
    addresses: Addresses
    process: Process

    @property
    def port(self) -> int:
        """Where clients arrive."""
        return self.addresses.gateway

    @property
    def kind(self) -> GatewayKind:
        """What distinguishes it from the others."""
        return KINDS[self.name]

    def seen_identity(self, identity: Mapping[str, str]) -> dict[str, str]:
        """Return the headers as the application gets them."""
        drops_empty = self.kind.drops_empty_headers
        seen = self.kind.differences.identity(identity)
        return {n: value for n, value in seen.items() if value or not drops_empty}


@functools.cache
def _make_accounts() -> Path:
    """Return an installation that was never started: secrets, accounts, a database.

    Each stack starts with a copy, as these take three starts of the issuer. Keys to
    sign with, and addresses, are each stack's own.
    """
    folder = Path(tempfile.mkdtemp(prefix="gatehouse-accounts-"))
    atexit.register(shutil.rmtree, folder)
    install(folder / "var", Addresses(*(free_port() for _ in range(6))))
    return folder / "var"


class Stack:
    """Issuer, verifier and demo application, running; gateways on demand."""

    def __init__(self, installation: Installation, factory: ProcessFactory) -> None:
        self.installation = installation
        self.addresses: Addresses = installation.addresses
        self._factory = factory
        self._gateways: dict[str, GatewayUnderTest] = {}
        self._stream_app: int | None = None
        self.start_issuer()
        self._verifier = self._start_program("verifier", installation.verifier_env)
        app = (*APP_COMMAND, "--port", str(self.addresses.app))
        port = self.addresses.app
        factory.start("app", app, cwd=ROOT, ready=lambda: is_listening(port))

    @classmethod
    def start(cls, folder: Path, factory: ProcessFactory, **settings: str) -> Stack:
        """Install into `folder` and start all but the gateways, on free ports.

        Args:
            folder: for all files.
            factory: starts the programs.
            settings: of either program, by name, as in the environment; those of
                OpenTelemetry go to both.
        """
        ports = [free_port() for _ in range(6)]
        addresses = replace(Addresses(*ports), grpc_verifier=free_port())
        if not (folder / "var").exists():
            shutil.copytree(_make_accounts(), folder / "var")
        installed = install(folder / "var", addresses, serves_grpc=True)
        issuers = _settings_of("ISSUER_", settings)
        verifiers = _settings_of("VERIFIER_", settings)
        assert issuers | verifiers == settings
        changed = replace(
            installed,
            issuer_env={**installed.issuer_env, **issuers},
            verifier_env={**installed.verifier_env, **verifiers},
        )
        return cls(changed, factory)

    def start_issuer(self) -> None:
        """Start the issuer, for the first time or again on the same database."""
        env = self.installation.issuer_env
        self._issuer = self._start_program("issuer", env)

    def kill_issuer(self) -> None:
        """Kill the issuer without warning (SIGKILL)."""
        self._issuer.kill()

    def start_gateway(
        self,
        name: str,
        label: str = "",
        *,
        edit: Callable[[Path], None] | None = None,
        has_news: bool = True,
        has_tls: bool = False,
        **ports: int,
    ) -> GatewayUnderTest:
        """Return the gateway of this name; the first call starts it.

        Args:
            name: as in the registry.
            label: distinguishes gateways of one name that do not run alike.
            edit: changes the config in this folder before the start.
            has_news: a gateway that checks tokens by itself is sent what is revoked.
            has_tls: its listener takes TLS, after the edit.
            ports: those of other parts in place of the stack's own, by field of
                `Addresses`.
        """
        key = f"{name} {label}".strip()
        if key not in self._gateways:
            ports.setdefault("gateway", free_port())
            ports.setdefault("inner_gateway", free_port())
            addresses = replace(self.addresses, **ports)
            start = partial(self._start_gateway, name, key.replace(" ", "-"), edit)
            if registry.PROGRAMS[name].native:
                running = self._start_native(
                    name, addresses, start, has_news=has_news, has_tls=has_tls
                )
            else:
                running = start(addresses)
            self._gateways[key] = running
        return self._gateways[key]

    def _start_gateway(
        self,
        name: str,
        key: str,
        edit: Callable[[Path], None] | None,
        addresses: Addresses,
    ) -> GatewayUnderTest:
        folder = self.installation.var / "gateway" / key
        prepared = registry.prepare(name, folder, addresses)
        if edit is not None:
            edit(folder)
        process = self._factory.start(
            key,
            prepared.command,
            ready=lambda: _is_ready(KINDS[name], addresses),
        )
        return GatewayUnderTest(name, addresses, process)

    def _start_native(
        self,
        name: str,
        addresses: Addresses,
        start: Callable[[Addresses], GatewayUnderTest],
        *,
        has_news: bool,
        has_tls: bool,
    ) -> GatewayUnderTest:
        """Start a gateway that checks tokens by itself, and what writes into it."""
        native, env = registry.PROGRAMS[name].native, self.installation.verifier_env
        # Confirmations wait for one that is gone for as long as it could have been
        # followed: the least that `native` takes, in seconds.
        settings = {} if has_news else {"VERIFIER_MAX_STALENESS": str(LEAST_STALENESS)}
        writer = start_writer(native, env, self._factory, **settings)
        if not has_news:
            writer.process.kill()
        running = start(replace(addresses, native_folder=writer.folder))
        if has_news:
            token = self.client_credentials().access_token
            passes = partial(lets_pass, running.port, token, has_tls=has_tls)
            wait_until(passes, what=f"{name} lets a token pass")
        return running

    def start_stream_app(self) -> int:
        """Return the port of an application with long streams; started at first."""
        if self._stream_app is None:
            port = free_port()
            command = (
                *(sys.executable, "-m", "uvicorn", "--factory"),
                *("tests.support.stream_app:StreamApp", "--host", "127.0.0.1"),
                *("--port", str(port), "--ws", "wsproto", "--lifespan", "off"),
                # A gateway that closes its idle connections first is not to be seen
                # failing here because of this one's time-out.
                *("--no-access-log", "--timeout-keep-alive", "60"),
            )
            self._factory.start(
                "stream-app", command, cwd=ROOT, ready=lambda: is_listening(port)
            )
            self._stream_app = port
        return self._stream_app

    def log_in(self) -> Login:
        """Log the administrator in."""
        account = {
            "username": self.installation.admin_username,
            "password": self.installation.admin_password,
        }
        return _tokens(post_json(self.addresses.issuer, "/auth/login", account))

    def log_out(self, login: Login) -> None:
        """End a session; return once the issuer confirms that every verifier refuses
        it.
        """
        issuer, prefer = self.addresses.issuer, ("Prefer", f"wait={MAX_PREFERRED_WAIT}")
        headers = [bearer(login.access_token), prefer]
        answers = [post_json(issuer, "/auth/logout", {}, headers)]
        body = {"refresh_token": login.refresh_token}

        def is_confirmed() -> bool:
            assert answers[-1].status == 200, answers[-1]
            if answers[-1].json()["confirmed"]:
                return True
            # By its refresh token a session may be ended again, for the same promise.
            answers.append(post_json(issuer, "/auth/logout", body, [prefer]))
            return False

        wait_until(is_confirmed, what="the logout is confirmed")

    def confirm_all_ended(self) -> None:
        """Return once every verifier has applied all that was revoked up to now."""
        # A promise about a later entry is one about all before it.
        self.log_out(self.log_in())

    def refresh(self, refresh_token: str) -> RawAnswer:
        """Show a refresh token and return the answer of any status."""
        body = {"refresh_token": refresh_token}
        return post_json(self.addresses.issuer, "/auth/refresh", body)

    def refreshed(self, login: Login) -> Login:
        """Show a refresh token that must be good."""
        return _tokens(self.refresh(login.refresh_token))

    def client_credentials(self) -> Login:
        """Return the demo client's own token."""
        pair = f"{self.installation.client_id}:{self.installation.client_secret}"
        body = b"grant_type=client_credentials"
        headers = [
            ("Authorization", "Basic " + base64.b64encode(pair.encode()).decode()),
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("Content-Length", str(len(body))),
        ]
        answer = send(self.addresses.issuer, "POST", "/oauth2/token", headers, body)
        return _tokens(answer)

    @contextmanager
    def verifier_replaced(
        self, ready: str = "/readyz", **settings: str
    ) -> Iterator[None]:
        """Within, the verifier is killed, or runs with other settings when some are
        given.

        Args:
            ready: the operators' path to wait for: `/healthz` for one that never is
                ready.
            settings: by name, as in the environment.
        """
        self._verifier.kill()
        try:
            if settings:
                other = {**self.installation.verifier_env, **settings}
                self._verifier = self._start_program("verifier", other, ready)
            yield
        finally:
            if self._verifier.exit_code is None:
                self._verifier.kill()
            self._verifier = self._start_program(
                "verifier", self.installation.verifier_env
            )

    @property
    def verifier(self) -> Process:
        """The running verifier; with several workers, their supervisor."""
        return self._verifier

    def issuer_log(self) -> str:
        """What the issuer wrote to standard error."""
        return self._issuer.log()

    def adopt_verifier(self, process: Process) -> None:
        """Take a verifier that was started in place of the stack's own."""
        self._verifier = process

    @contextmanager
    def verifier_frozen(self) -> Iterator[None]:
        """Within, the verifier holds its port and connections but does nothing."""
        pids = self._verifier.family()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def _start_program(
        self, name: str, env: Mapping[str, str], ready: str = "/readyz"
    ) -> Process:
        """Start issuer or verifier and wait for `ready` on its operators' port."""
        admin = {
            "issuer": self.addresses.issuer_admin,
            "verifier": self.addresses.verifier_admin,
        }[name]
        return self._factory.start(
            name,
            (sys.executable, "-m", name),
            env=env,
            cwd=self.installation.var,
            ready=lambda: send(admin, "GET", ready).status == 200,
        )


def _settings_of(prefix: str, settings: Mapping[str, str]) -> dict[str, str]:
    return {n: text for n, text in settings.items() if n.startswith((prefix, "OTEL_"))}


def _is_ready(kind: GatewayKind, addresses: Addresses) -> bool:
    if not is_listening(addresses.gateway):
        return False
    path = kind.ready_path
    # Not by the gateway's own port, which may speak TLS.
    return not path or send(addresses.inner_gateway, "GET", path).status != 404


def _tokens(answer: RawAnswer) -> Login:
    assert answer.status == 200, answer
    body = answer.json()
    return Login(body["access_token"], body.get("refresh_token", ""))
