"""The issuer as ASGI applications: routes, guards around them, background tasks."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from typing import Any, Final

from fastapi import APIRouter, FastAPI
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from issuer.accounts import user_change_routes, user_routes
from issuer.audit import routes as audit_routes
from issuer.clients import client_routes, metadata_routes, oauth_routes
from issuer.clock import Clock, seconds, system_clock
from issuer.composition import Issuer, compose
from issuer.errors import UnavailableError
from issuer.exports import status_list_routes
from issuer.exports.status_list import LISTS_PATH
from issuer.feed import routes as feed_routes
from issuer.feed.revoked_answers import RevokedAnswers
from issuer.http.authorization.administration import AdministrationRule
from issuer.http.authorization.authentication import Authenticate
from issuer.http.body_limit import BodyLimit
from issuer.http.callers import build_caller_of
from issuer.http.correlation import CorrelationMiddleware
from issuer.http.cors import BrowserAccess
from issuer.http.error_responses import ErrorBoundary, build_answer, install
from issuer.http.health import OperatorsServer, build_operators_app
from issuer.keys import jwks_routes
from issuer.login import login_routes
from issuer.login.admission import LoginAdmission
from issuer.metrics import RequestMetrics
from issuer.openapi import page as api_page
from issuer.openapi.document import DocumentedApp
from issuer.passwords import password_change_routes, password_reset_routes
from issuer.personal_keys import personal_key_routes
from issuer.revoking import bulk_routes, key_routes
from issuer.roles import role_routes
from issuer.second_factor import second_factor_routes
from issuer.sessions import refresh_routes, session_list_routes, session_routes
from issuer.settings.issuer_settings import IssuerSettings
from issuer.storage.conflict_retry import ConflictRetry
from issuer.storage.db import Database
from shared import log
from shared.distribution import VERSION
from shared.scrapes import PERIOD
from shared.serving.server import Lifecycle
from shared.shortages import raise_descriptor_limit

_PRUNE_SECONDS: Final = 60.0
_SESSION_PRUNE_SECONDS: Final = 600.0
_LEASE_WATCH_SECONDS: Final = 1.0
_KEY_SCHEDULE_SECONDS: Final = 10.0
_DELIVER_SECONDS: Final = 1.0
_LINK_SECONDS: Final = 0.5
_TALLY_SECONDS: Final = 10.0
_KEY_REPORT_SECONDS: Final = 1.0
#: How long a background task may take to finish its round at the end.
_STOP_SECONDS: Final = 5.0
_logger = logging.getLogger(__name__)


def create_app(
    settings: IssuerSettings,
    *,
    clock: Clock = system_clock,
    database: Database | None = None,
) -> FastAPI:
    """Return the public application of an issuer composed by `compose`."""
    return build_public_app(compose(settings, clock=clock, database=database))


def build_public_app(
    issuer: Issuer,
    operators_socket: socket.socket | None = None,
    lifecycle: Lifecycle | None = None,
) -> FastAPI:
    """Return the application that clients and verifiers see.

    Args:
        issuer: the composed parts.
        operators_socket: a listening socket on which the operators' application is
            served while this one runs; none: it is not served.
        lifecycle: whether a stop was asked for; none: it never is.
    """
    server = (
        OperatorsServer(build_operators(issuer, lifecycle), operators_socket)
        if operators_socket
        else None
    )
    app = DocumentedApp(
        title="Gatehouse issuer",
        version=VERSION,
        docs_url=None,
        redoc_url=None,
        servers=[{"url": issuer.settings.url}],
        root_path_in_servers=False,
        # A redirect would carry the request's Host (R37).
        redirect_slashes=False,
        # Whoever sets OTEL_... for all of a machine shall not have logins traced.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        lifespan=_build_lifespan(issuer, server),
    )
    _include_routers(app, issuer)
    install(app)
    if issuer.settings.docs:
        app.router.routes.extend(api_page.build_routes(issuer.settings.url))
    metrics = issuer.metrics
    # The last added stands outermost.
    app.add_middleware(ConflictRetry, build_answer=build_answer)
    app.add_middleware(
        LoginAdmission,
        pool=issuer.hashing_pool,
        paths=[login_routes.LOGIN_PATH],
        build_answer=build_answer,
        on_refused=partial(metrics.login, "overloaded"),
    )
    app.add_middleware(
        BodyLimit,
        max_bytes=issuer.settings.max_body_bytes,
        build_answer=build_answer,
        larger={bulk_routes.PATH: issuer.settings.bulk_max_body_bytes},
    )
    app.add_middleware(
        ErrorBoundary,
        on_unavailable=metrics.database_trouble,
        on_unexpected=metrics.unexpected_error,
    )
    if issuer.settings.cors_origins:
        app.add_middleware(BrowserAccess, origins=issuer.settings.cors_origins)
    app.add_middleware(_NoStore)
    app.add_middleware(RequestMetrics, metrics=metrics)
    app.add_middleware(CorrelationMiddleware)
    return app


def build_operators(issuer: Issuer, lifecycle: Lifecycle | None = None) -> Starlette:
    """Return the operators' application: ready when the database answers and an
    active signing key can be used, until a stop is asked for (R60).
    """

    async def require_ready() -> None:
        if lifecycle is not None and lifecycle.is_draining:
            raise UnavailableError(detail="draining")
        await issuer.database.require_writable()
        issuer.metrics.feed_head((await issuer.feed.head()).seq)
        await issuer.keys.signing_key()

    return build_operators_app(issuer.scrapes, issuer.shortages, require_ready)


def _include_routers(app: FastAPI, issuer: Issuer) -> None:
    settings = issuer.settings
    caller_of = build_caller_of(settings.trusted_proxies)
    authenticate = Authenticate(
        issuer.access_tokens.verify,
        AdministrationRule(settings.admin_max_login_age, settings.admin_second_factor),
        issuer.clock,
    )
    following = issuer.following
    revoked = RevokedAnswers(following.confirmation)
    programs = issuer.client_parts
    metadata: dict[str, Any] = {}
    lists = issuer.exports.status_lists
    if lists is not None:
        metadata["status_list_aggregation_endpoint"] = settings.url + LISTS_PATH
        _include(app, status_list_routes.build_router(lists))
    for router in (
        # Routes are tried in turn, and this is the order of how often they are asked. One
        # revocation makes each verifier ask the feed again: as the last of these, finding
        # its route was 230 of 350 us that a request costs in here.
        feed_routes.build_router(
            issuer.feed,
            following.watch,
            following.leases,
            issuer.feed_credential,
            max_staleness=settings.max_follower_staleness,
        ),
        jwks_routes.build_router(issuer.keys, issuer.key_parts.reports),
        oauth_routes.build_router(
            programs.authentication,
            programs.grants,
            programs.token_status,
            revoked,
            caller_of,
        ),
        refresh_routes.build_router(issuer.sessions, caller_of),
        login_routes.build_router(issuer.login, caller_of),
        password_change_routes.build_router(
            issuer.password_change, revoked, authenticate, caller_of
        ),
        second_factor_routes.build_router(
            issuer.second_factors,
            issuer.login_parts.second_factor_login,
            authenticate,
            caller_of,
        ),
        password_reset_routes.build_router(
            issuer.password_reset, revoked, authenticate, caller_of
        ),
        session_routes.build_router(issuer.logout, revoked, authenticate, caller_of),
        bulk_routes.build_router(issuer.bulk, revoked, authenticate, caller_of),
        session_list_routes.build_router(
            issuer.session_list, issuer.logout, revoked, authenticate, caller_of
        ),
        user_routes.build_router(
            issuer.users,
            issuer.accounts.user_list,
            authenticate,
            caller_of,
            settings.url,
        ),
        user_change_routes.build_router(
            issuer.accounts.user_changes,
            issuer.login_parts.password_proof,
            revoked,
            authenticate,
            caller_of,
        ),
        role_routes.build_router(
            issuer.accounts.roles, revoked, authenticate, caller_of, settings.url
        ),
        client_routes.build_router(
            programs.clients, revoked, authenticate, caller_of, settings.url
        ),
        personal_key_routes.build_router(
            programs.personal_keys, revoked, authenticate, caller_of, settings.url
        ),
        metadata_routes.build_router(settings.url, programs.grants.types, metadata),
        key_routes.build_router(
            issuer.key_parts.key_list,
            issuer.revocations,
            revoked,
            authenticate,
            caller_of,
        ),
        audit_routes.build_router(issuer.audit.reader, authenticate),
    ):
        _include(app, router)


def _include(app: FastAPI, router: APIRouter) -> None:
    """Take a router's routes as they are.

    `include_router` would build each route's parameters and models a second time, which
    is half the cost of an application, and ask router by router for each request.
    """
    app.router.routes.extend(router.routes)


def _build_lifespan(
    issuer: Issuer, operators_server: OperatorsServer | None
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        raise_descriptor_limit()
        stopping = asyncio.Event()
        keep_schedule = issuer.key_rotation.keep_schedule
        watch_leases = issuer.following.lease_watch.look
        tasks = [
            *map(asyncio.create_task, issuer.following.tasks()),
            asyncio.create_task(_repeat(watch_leases, _LEASE_WATCH_SECONDS, stopping)),
            asyncio.create_task(_repeat(issuer.feed.prune, _PRUNE_SECONDS, stopping)),
            asyncio.create_task(
                _repeat(issuer.session_list.prune, _SESSION_PRUNE_SECONDS, stopping)
            ),
            asyncio.create_task(
                _repeat(issuer.login_parts.upkeep.prune, _PRUNE_SECONDS, stopping)
            ),
            asyncio.create_task(_repeat(issuer.limits.prune, _PRUNE_SECONDS, stopping)),
            asyncio.create_task(
                _repeat(issuer.login_parts.costliest.refresh, _PRUNE_SECONDS, stopping)
            ),
            asyncio.create_task(
                _repeat(keep_schedule, _KEY_SCHEDULE_SECONDS, stopping)
            ),
        ]
        tasks += [
            asyncio.create_task(_repeat(act, interval, stopping, delay=delay))
            for act, interval, delay in _find_exports_tasks(issuer)
        ]
        tasks += [
            asyncio.create_task(_repeat(act, interval, stopping))
            for act, interval in _find_record_tasks(issuer)
        ]
        if operators_server is not None:
            operators_server.start()
        try:
            yield
        finally:
            stopping.set()
            issuer.following.close()
            if operators_server is not None:
                await operators_server.stop()
            await _end(tasks)
            await _write_counts(issuer)
            await issuer.close()

    return lifespan


def _find_exports_tasks(
    issuer: Issuer,
) -> Iterator[tuple[Callable[[], Awaitable[object]], float, float]]:
    """Yield what is to be repeated, how often, and after how many seconds at first."""
    canary_interval = issuer.settings.canary_interval
    if canary_interval:
        yield issuer.canary.send, canary_interval, canary_interval
    if issuer.exports.status_indices is not None:
        yield issuer.exports.status_indices.prune, _PRUNE_SECONDS, 0.0
    delivery = issuer.exports.event_delivery
    if delivery is not None:
        yield delivery.deliver_due, _DELIVER_SECONDS, 0.0
        yield delivery.prune, _PRUNE_SECONDS, 0.0


def _find_record_tasks(
    issuer: Issuer,
) -> Iterator[tuple[Callable[[], Awaitable[object]], float]]:
    """Yield what keeps records true, and how often it is to be repeated."""

    async def take_down_proofs() -> None:
        await issuer.key_parts.proofs.write(seconds(issuer.clock))

    yield issuer.accounts.look_alikes.fill, _PRUNE_SECONDS
    # Each minute, so that a jump of the clock is seen when it comes.
    yield issuer.audit.retention.keep, _PRUNE_SECONDS
    yield take_down_proofs, _KEY_REPORT_SECONDS
    yield issuer.audit.linker.link, _LINK_SECONDS
    for tallies in issuer.audit.tallies:
        yield tallies.flush, _TALLY_SECONDS
    yield issuer.key_parts.reports.write, _KEY_REPORT_SECONDS
    yield issuer.scrapes.publish, PERIOD


async def _repeat(
    act: Callable[[], Awaitable[object]],
    interval: float,
    stopping: asyncio.Event,
    *,
    delay: float = 0.0,
) -> None:
    """Do `act` every `interval` seconds until `stopping`, whatever it raises."""
    if delay:
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), delay)
    while not stopping.is_set():
        try:
            await act()
        except UnavailableError as error:
            log.event(
                _logger, logging.WARNING, "background.unavailable", detail=error.detail
            )
        except Exception:
            # A mistake in one round must not end all later ones unseen.
            _logger.exception("background.failed")
        with suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), interval)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    """Let each finish its round; cut off what takes too long."""
    _, late = await asyncio.wait(tasks, timeout=_STOP_SECONDS)
    for task in late:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _write_counts(issuer: Issuer) -> None:
    """Write what was counted for the audit log, as far as the database takes it."""
    for tallies in issuer.audit.tallies:
        try:
            await tallies.close()
        except UnavailableError as error:
            log.event(
                _logger, logging.WARNING, "audit.counts_lost", detail=error.detail
            )


class _NoStore:
    """Keeps every answer out of caches that does not say otherwise itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message["headers"]
                if all(name != b"cache-control" for name, _ in headers):
                    message["headers"] = [*headers, (b"cache-control", b"no-store")]
            await send(message)

        await self._app(scope, receive, send_marked)
