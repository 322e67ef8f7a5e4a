"""Runs the issuer: one process with uvicorn, several under gunicorn.

The application is imported at the last moment: a command that does not serve, and
gunicorn's master, do without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Generator
from typing import Any, Final, cast

import uvicorn

from issuer import migrations
from issuer.clock import seconds, system_clock
from issuer.correlation import log_context
from issuer.database_url import is_sqlite
from issuer.db import Database, check_sqlite_version
from issuer.key_checks import (
    require_known_keys,
    require_right_keys,
    warn_of_removed_keys,
)
from issuer.keys.store import KeyStore
from issuer.settings import IssuerSettings
from shared import collector, log
from shared.listening import listening
from shared.serving.limits import Limits
from shared.serving.port import Port

#: How uvicorn is set up, alone and under gunicorn, beside its `http`: `build_port`.
SERVER_OPTIONS: Final[dict[str, Any]] = {
    "loop": "uvloop",
    "ws": "none",
    "lifespan": "on",
    "log_config": None,
    "access_log": False,
    # `callers.py` reads forwarded headers, by the one list of trusted peers (R1).
    "proxy_headers": False,
    "server_header": False,
    "timeout_graceful_shutdown": 10,
}
#: A full collection walked the program's own 160,000 objects and took 77 to 90 ms, which
#: was the tail of every wait (loadtests/REVOCATION.md). Calls leave few cycles, some 9,000
#: objects in 60,000 calls; these are all collected in the end, in 1 to 8 ms at a time.
_COLLECTOR_PACE: Final = collector.Pace(young=10_000, middle=10, old=10)
_logger = logging.getLogger(__name__)


def run(settings: IssuerSettings) -> None:
    """Serve until SIGTERM or SIGINT, then return.

    A SQLite database is brought up to date here; a PostgreSQL database that lacks
    migrations is refused, for they are to be run once and not by every replica.

    Raises:
        SchemaBehindError: when the PostgreSQL database lacks migrations.
        WrongKeyError: when a key of the settings is not the one it was.
        UnavailableError: when the database is away, or the signing key cannot be used.
        DBAPIError: when the database was reached and refused.
        SettingsError: naming the setting, when it cannot listen.
    """
    log.configure("issuer", settings.log_level, log_context)
    asyncio.run(_prepare(settings))
    if settings.workers > 1:
        from issuer.workers import run_workers

        run_workers(settings)
    else:
        _run_alone(settings)


def build_port(settings: IssuerSettings) -> Port:
    """Return what makes the connections of one worker's public port."""
    largest = max(settings.max_body_bytes, settings.bulk_max_body_bytes)
    limits = Limits(
        connections=settings.max_connections,
        body_bytes=largest,
        # Two administrators at once, and the small bodies of all others.
        bodies_in_all=2 * largest + 4_194_304,
    )
    return Port("public", limits)


@contextlib.contextmanager
def listening_for(
    settings: IssuerSettings,
) -> Generator[tuple[socket.socket, socket.socket], None, None]:
    """Open the public and the operators' listening socket.

    Raises:
        SettingsError: naming the setting, when one cannot be opened.
    """
    with (
        listening("ISSUER_BIND", settings.bind) as public,
        listening("ISSUER_ADMIN_BIND", settings.admin_bind) as operators,
    ):
        yield public, operators


def announce(settings: IssuerSettings) -> None:
    """Log the one line that tells where the issuer listens."""
    log.event(
        _logger,
        logging.INFO,
        "issuer.listening",
        bind=settings.bind,
        admin_bind=settings.admin_bind,
        url=settings.url,
        workers=settings.workers,
    )


class PublicServer(uvicorn.Server):
    """uvicorn's server, with an end that waits for nobody.

    Args:
        config: uvicorn's.
        release_waiters: lets held feed requests go; without it each would hold the
            process for up to a minute.
        on_started: called once it accepts connections.
        parent_pid: stop when this is no longer the parent: nobody would stop us.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        release_waiters: Callable[[], None],
        on_started: Callable[[], None] | None = None,
        parent_pid: int | None = None,
    ) -> None:
        super().__init__(config)
        self._release_waiters = release_waiters
        self._on_started = on_started
        self._parent_pid = parent_pid

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as uvicorn does, then tell."""
        collector.set_pace(_COLLECTOR_PACE)
        await super().startup(sockets)
        collector.exempt_what_is_there()
        if self._on_started is not None:
            self._on_started()

    async def on_tick(self, counter: int) -> bool:
        """Look every 0.1 s whether to stop."""
        if self._parent_pid is not None and os.getppid() != self._parent_pid:
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting, let the held requests go, finish the others."""
        self._release_waiters()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Stop on SIGINT and SIGTERM; unlike uvicorn's, a stop is not a failure."""
        handlers = {
            number: signal.signal(number, self.handle_exit)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)


async def _prepare(settings: IssuerSettings) -> None:
    """See to the schema and the first key, before anything is served."""
    if is_sqlite(settings.database_url):
        check_sqlite_version()
        # A migration cannot be taken back: not on another installation's database.
        await require_known_keys(settings)
        await asyncio.to_thread(migrations.upgrade, settings.database_url)
    database = Database(settings.database_url, pool_size=1)
    try:
        await migrations.require_current_schema(database)
        now = seconds(system_clock)
        await require_right_keys(database, settings, now=now)
        await warn_of_removed_keys(database, settings, now=now)
        keys = KeyStore(
            database,
            settings.key_encryption_keys,
            rsa_bits=settings.rsa_bits,
            clock=system_clock,
        )
        await keys.ensure_active()
    finally:
        await database.close()


def _run_alone(settings: IssuerSettings) -> None:
    from issuer.app import build_public_app
    from issuer.composition import compose

    with listening_for(settings) as (public, operators):
        issuer = compose(settings)
        server = PublicServer(
            uvicorn.Config(
                build_public_app(issuer, operators),
                # Called for each connection, as uvicorn calls a protocol's class.
                http=cast(Any, build_port(settings)),
                **SERVER_OPTIONS,
            ),
            release_waiters=issuer.following.release_waiters,
            on_started=lambda: announce(settings),
        )
        server.run(sockets=[public])
