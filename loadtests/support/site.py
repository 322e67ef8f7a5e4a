"""The whole of Gatehouse on loopback, as `make up` has it, but larger.

Issuer, on SQLite or on a PostgreSQL of its own, and verifier, each with two workers
where that is possible, a demo application, and nginx with the shipped config.
"""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from deploy.demo.addresses import Addresses, choose_socket
from deploy.demo.installation import (
    APP_COMMAND,
    ROOT,
    Installation,
    install,
    plain_environment,
)
from deploy.gateway_programs import registry
from loadtests.support.postgres import PostgresServer
from loadtests.support.processes import (
    Process,
    ProcessFactory,
    free_port,
    is_listening,
)
from loadtests.support.raw_http import send

WORKERS = 2


@dataclass(frozen=True)
class Site:
    """All programs, running.

    Attributes:
        installation: addresses, accounts and settings.
        processes: by name: issuer, verifier, app, gateway.
        postgres: the database's server; None with SQLite.
        database: its name there.
        factory: started them, and starts more that shall end with them.
    """

    installation: Installation
    processes: Mapping[str, Process]
    postgres: PostgresServer | None
    database: str
    factory: ProcessFactory

    @property
    def addresses(self) -> Addresses:
        """Where the programs listen."""
        return self.installation.addresses

    @property
    def folder(self) -> Path:
        """Where all files are: `demo.env`, the database, logs, disk copies."""
        return self.installation.var


@contextmanager
def running(
    settings: Mapping[str, str],
    *,
    on_postgres: bool,
    prepare: Callable[[Installation], None] | None = None,
) -> Iterator[Site]:
    """Run a site for the length of the block; nothing of it is left behind.

    Args:
        settings: of either program, by name, as in the environment.
        on_postgres: the issuer's database; with SQLite the issuer has one worker.
        prepare: called when all is set up, before the first program is started.

    Raises:
        PostgresMissingError: when PostgreSQL is wanted and not installed.
        GatewayError: when nginx is not installed.
    """
    with ExitStack() as stack:
        # A stop by signal must not leave the programs behind.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix="gatehouse-"))
        folder = Path(name)
        postgres = database = None
        if on_postgres:
            postgres = PostgresServer()
            stack.callback(postgres.stop)
            database = postgres.create_database()
        factory = ProcessFactory(folder)
        stack.callback(factory.stop_all)
        url = postgres.url(database) if postgres and database else ""
        installation = _install(folder, url, settings)
        if prepare is not None:
            prepare(installation)
        processes = _start(installation, factory)
        yield Site(installation, processes, postgres, database or "", factory)


def _install(
    folder: Path, database_url: str, settings: Mapping[str, str]
) -> Installation:
    addresses = Addresses(
        gateway=free_port(),
        app=free_port(),
        issuer=free_port(),
        issuer_admin=free_port(),
        verifier_admin=free_port(),
        verifier_socket=choose_socket(folder),
    )
    installation = install(folder, addresses, database_url=database_url)
    installation.write_demo_env()
    # What workers share is in files of their own here, where they can be counted.
    (folder / "tmp").mkdir()
    place = {"TMPDIR": str(folder / "tmp")}
    issuer = {"ISSUER_WORKERS": str(WORKERS)} if database_url else {}
    verifier = {"VERIFIER_WORKERS": str(WORKERS)}
    return replace(
        installation,
        issuer_env={
            **installation.issuer_env,
            **place,
            **issuer,
            **_of("ISSUER_", settings),
        },
        verifier_env={
            **installation.verifier_env,
            **place,
            **verifier,
            **_of("VERIFIER_", settings),
        },
    )


def _of(prefix: str, settings: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in settings.items() if name.startswith(prefix)}


def _start(installation: Installation, factory: ProcessFactory) -> dict[str, Process]:
    addresses = installation.addresses
    processes = {}
    for name, env, port in (
        ("issuer", installation.issuer_env, addresses.issuer_admin),
        ("verifier", installation.verifier_env, addresses.verifier_admin),
    ):
        processes[name] = factory.start(
            name,
            (sys.executable, "-m", name),
            env=env,
            cwd=installation.var,
            ready=partial(_is_ready, port),
        )
    processes["app"] = factory.start(
        "app",
        (*APP_COMMAND, "--port", str(addresses.app)),
        env=plain_environment(),
        cwd=ROOT,
        ready=lambda: is_listening(addresses.app),
    )
    prepared = registry.prepare("nginx", installation.var / "gateway", addresses)
    processes["gateway"] = factory.start(
        "gateway",
        prepared.command,
        env=plain_environment(),
        ready=lambda: send(addresses.gateway, "GET", "/").status == 401,
    )
    return processes


def _is_ready(port: int) -> bool:
    return send(port, "GET", "/readyz").status == 200
