"""Runs the issuer: one process, or workers under a supervisor.

`app.py` is imported at the last moment: a setting that is wrong is reported before
that.

`run_worker` is over 40 lines: it names every part of a worker once, in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Generator
from typing import Any, Final, cast

import uvicorn

from issuer import migrations
from issuer.clock import seconds, system_clock
from issuer.http.correlation import log_context
from issuer.keys.store import KeyStore
from issuer.settings.database_url import is_sqlite
from issuer.settings.issuer_settings import IssuerSettings
from issuer.startup.key_checks import (
    require_known_keys,
    require_right_keys,
    warn_of_removed_keys,
)
from issuer.storage.db import Database, check_sqlite_version
from shared import collector, log
from shared.listening import listening
from shared.serving.limits import Limits
from shared.serving.port import Port
from shared.serving.server import Duties, Lifecycle, WorkerServer, run_server
from shared.serving.supervisor import Patience, Slot, Supervisor, slots_for
from shared.worker_metrics import MetricsBoard

#: How uvicorn is set up, beside its `http`: `build_port`.
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
#: A full collection walked the program's own 160,000 objects and took 77 to 90 ms,
#: which was the tail of every wait (loadtests/REVOCATION.md). Calls leave few cycles,
#: some 9,000 objects in 60,000 calls; these are all collected in the end, in 1 to 8 ms
#: at a time.
COLLECTOR_PACE: Final = collector.Pace(young=10_000, middle=10, old=10)
#: Seconds a worker has to finish, beside the settable delay: above uvicorn's own, which
#: answers first.
_STOP_SECONDS: Final = 20.0
#: Room for one worker's metrics. With every route asked they take some 200,000 bytes.
_SLOT_BYTES: Final = 1_048_576
_LOG = logging.getLogger(__name__)


def run(settings: IssuerSettings) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status.

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
    with listening_for(settings) as sockets:
        program = _Program(settings, *sockets)
        if settings.workers > 1:
            return program.supervise()
        program.run_worker(None)
        return 0


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
        _LOG,
        logging.INFO,
        "issuer.listening",
        bind=settings.bind,
        admin_bind=settings.admin_bind,
        url=settings.url,
        workers=settings.workers,
    )


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


class _Program:
    """What every worker of this issuer is made from."""

    def __init__(
        self,
        settings: IssuerSettings,
        public: socket.socket,
        operators: socket.socket,
    ) -> None:
        self._settings = settings
        self._public = public
        self._operators = operators
        workers = settings.workers
        # Before any worker is forked, so that all have the same one.
        self._metrics = (
            MetricsBoard(slots_for(workers), _SLOT_BYTES) if workers > 1 else None
        )

    def supervise(self) -> int:
        """Keep the workers until a stop; return the exit status."""
        # Imported before any worker is forked, and shared with them as long as no
        # collection writes to it.
        import issuer.app  # noqa: F401  that is what this is for

        collector.exempt_what_is_there()
        supervisor = Supervisor(
            self.run_worker,
            self._settings.workers,
            reload=self._reload,
            listeners=(self._public, self._operators),
            patience=Patience(stop=self._settings.drain_delay + _STOP_SECONDS),
        )
        announce(self._settings)
        return supervisor.run()

    def _reload(self) -> None:
        """Reread what later workers start with: the last good, should files turn
        bad.
        """
        from issuer.startup.reload import renewed

        self._settings = renewed(self._settings)

    def run_worker(self, slot: Slot | None) -> None:
        """Serve in this process until it has drained.

        Raises:
            SystemExit: it could not start.
        """
        from issuer.app import build_public_app
        from issuer.composition import compose
        from issuer.startup.reload import renewed

        # A worker may start long after the settings were read.
        settings, lifecycle = renewed(self._settings), Lifecycle()
        collector.set_pace(COLLECTOR_PACE)
        board = self._metrics
        issuer = compose(
            settings,
            metrics_slot=board.take_over(slot.index) if board and slot else None,
        )

        def on_started() -> None:
            collector.exempt_what_is_there()
            if slot is None:
                announce(settings)

        server = WorkerServer(
            uvicorn.Config(
                build_public_app(issuer, self._operators, lifecycle),
                # Called for each connection, as uvicorn calls a protocol's class.
                http=cast(Any, build_port(settings)),
                **SERVER_OPTIONS,
            ),
            self._public,
            lifecycle,
            Duties(
                reload=issuer.reloader.reload,
                on_started=on_started,
                # Each held feed request would hold the stop for up to a minute.
                on_drain=issuer.feed.release_waiters,
                drain_delay=settings.drain_delay,
            ),
            slot,
        )
        run_server(server)
