"""Runs the issuer: one process, or workers under a supervisor.

`app.py` is imported last, so that a wrong setting is reported without waiting for it.

`_Program._serve` is over 40 lines: it names every part of a worker once, in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Final, cast

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
from issuer.storage.db import Database
from issuer.storage.sqlite_engine import check_sqlite_version
from shared import collector, log
from shared.listening import listening
from shared.metrics.worker_metrics import MetricsBoard
from shared.serving.limits import Limits
from shared.serving.port import Port
from shared.serving.server import (
    Duties,
    Lifecycle,
    WorkerServer,
    longest_drain,
    run_server,
)
from shared.serving.workers.supervisor import Patience, Slot, Supervisor, slots_for
from shared.tracing.environment import wants_traces
from shared.tracing.running import running_spans

if TYPE_CHECKING:
    from shared.tracing.exporting import Spans

#: uvicorn's options except `http`, which is `build_port`.
SERVER_OPTIONS: Final[dict[str, Any]] = {
    "loop": "uvloop",
    "ws": "none",
    "lifespan": "on",
    "log_config": None,
    "access_log": False,
    # `callers.py` reads forwarded headers by the one list of trusted peers (R1).
    "proxy_headers": False,
    "server_header": False,
    "timeout_graceful_shutdown": 10,
}
#: A full collection visited the program's own 160,000 objects and took 77 to 90 ms,
#: the longest part of every wait (loadtests/REVOCATION.md). Calls leave few cycles,
#: about 9,000 objects in 60,000 calls; all of these are collected later, in 1 to 8 ms
#: each time.
COLLECTOR_PACE: Final = collector.Pace(young=10_000, middle=10, old=10)
#: Seconds a worker has to finish, in addition to the times from the settings. More than
#: uvicorn's own limit, so that uvicorn ends the requests first.
_STOP_SECONDS: Final = 20.0
#: Bytes for one worker's metrics. After a request to every route they take about
#: 200,000.
_SLOT_BYTES: Final = 1_048_576
_LOG = logging.getLogger(__name__)


def run(settings: IssuerSettings) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status.

    A SQLite database is migrated here. A PostgreSQL database that lacks migrations is
    refused: they must run once, and not in every replica.

    Raises:
        SchemaBehindError: when the PostgreSQL database lacks migrations.
        WrongKeyError: when a key of the settings differs from the one used before.
        UnavailableError: when the database is away, or the signing key cannot be used.
        DBAPIError: when the database answers and refuses.
        SettingsError: naming the setting, when it cannot listen; naming the variable,
            when traces are asked for and cannot be made.
    """
    is_traced = wants_traces(os.environ)
    log.configure("issuer", settings.log_level, log_context)
    asyncio.run(_prepare(settings))
    # It takes seconds. A client whose connection waits in the queue of a port that
    # serves nothing yet does not try another issuer. And workers share this memory, as
    # long as no collection writes to it.
    import issuer.app  # noqa: F401

    with listening_for(settings) as sockets:
        program = _Program(settings, *sockets, is_traced=is_traced)
        if settings.workers > 1:
            return program.supervise()
        program.run_worker(None)
        return 0


def build_port(settings: IssuerSettings) -> Port:
    """Return the public port of one worker, which makes its connections."""
    largest = max(settings.max_body_bytes, settings.bulk_max_body_bytes)
    limits = Limits(
        connections=settings.max_connections,
        body_bytes=largest,
        # The bodies of two administrators at a time, and the small ones of all others.
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
    """Log where the issuer listens."""
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
    """Check or migrate the schema and make the first key, before anything is served."""
    if is_sqlite(settings.database_url):
        check_sqlite_version()
        # A migration cannot be undone, so it must not run on another installation's
        # database.
        await require_known_keys(settings)
        await asyncio.to_thread(migrations.upgrade, settings.database_url)
    database = Database(settings.database_url, pool_size=1)
    try:
        await migrations.require_current_schema(database)
        now = seconds(system_clock)
        await require_right_keys(database, settings, now=now)
        await warn_of_removed_keys(database, settings, now=now)
        await KeyStore(database, settings, system_clock).ensure_active()
    finally:
        await database.close()


async def _rehearse(settings: IssuerSettings) -> None:
    """Compose what each worker will, once, and drop it.

    Much is made at the first use and kept: schemas, files, late imports. Made here, it
    is in the memory that the workers share; each made 4 MB of its own.
    """
    from issuer.app import build_public_app
    from issuer.composition import compose

    issuer = compose(settings)
    config = uvicorn.Config(build_public_app(issuer), **SERVER_OPTIONS)
    config.load()
    config.get_loop_factory()
    await issuer.close()


class _Program:
    """The program that every worker runs."""

    def __init__(
        self,
        settings: IssuerSettings,
        public: socket.socket,
        operators: socket.socket,
        *,
        is_traced: bool,
    ) -> None:
        self._settings = settings
        self._is_traced = is_traced
        self._public = public
        self._operators = operators
        workers = settings.workers
        # Made before any worker is forked, so that all share it.
        self._metrics = (
            MetricsBoard(slots_for(workers), _SLOT_BYTES) if workers > 1 else None
        )

    def supervise(self) -> int:
        """Run the workers until a stop, and return the exit status."""
        settings = self._settings
        asyncio.run(_rehearse(settings))
        collector.exempt_what_is_there()
        supervisor = Supervisor(
            self.run_worker,
            settings.workers,
            reload=self._reload,
            listeners=(self._public, self._operators),
            patience=Patience(
                stop=longest_drain(settings.drain_delay, settings.drain_idle)
                + _STOP_SECONDS
            ),
        )
        announce(self._settings)
        return supervisor.run()

    def _reload(self) -> None:
        """Read the settings for later workers again; bad files change nothing."""
        from issuer.startup.reload import renewed

        self._settings = renewed(self._settings)

    def run_worker(self, slot: Slot | None) -> None:
        """Serve in this process until it has drained, and send its last spans.

        Raises:
            SystemExit: when it could not start.
        """
        with running_spans("issuer", is_wanted=self._is_traced) as spans:
            self._serve(slot, spans)

    def _serve(self, slot: Slot | None, spans: Spans | None) -> None:
        from issuer.app import build_public_app
        from issuer.composition import compose
        from issuer.startup.reload import renewed

        # A worker may start long after the program read its settings.
        settings, lifecycle = renewed(self._settings), Lifecycle()
        collector.set_pace(COLLECTOR_PACE)
        board = self._metrics
        issuer = compose(
            settings,
            metrics_slot=board.take_over(slot.index) if board and slot else None,
            spans=spans,
        )

        def on_started() -> None:
            collector.exempt_what_is_there()
            if slot is None:
                announce(settings)

        server = WorkerServer(
            uvicorn.Config(
                build_public_app(issuer, self._operators, lifecycle),
                # uvicorn calls it for each connection, as it would a protocol's class.
                http=cast(Any, build_port(settings)),
                **SERVER_OPTIONS,
            ),
            self._public,
            lifecycle,
            Duties(
                reload=issuer.reloader.reload,
                on_started=on_started,
                # Each held feed request would delay the stop for up to a minute.
                on_drain=issuer.feed.release_waiters,
                drain_delay=settings.drain_delay,
                drain_idle=settings.drain_idle,
            ),
            slot,
        )
        run_server(server)
