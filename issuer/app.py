"""The issuer as ASGI applications: routes, guards around them, background tasks."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from issuer.accounts import login_routes, user_routes
from issuer.body_limit import BodyLimit
from issuer.callers import build_caller_of
from issuer.clients import oauth_routes
from issuer.clients.oauth_routes import CLIENT_CREDENTIALS
from issuer.clock import Clock, system_clock
from issuer.composition import Issuer, compose
from issuer.correlation import CorrelationMiddleware
from issuer.db import Database
from issuer.dependencies import Authenticate
from issuer.error_responses import ErrorBoundary, build_answer, install
from issuer.errors import UnavailableError
from issuer.health import OperatorsServer, build_operators_app
from issuer.keys import jwks_routes
from issuer.metrics import RequestMetrics
from issuer.openapi import DocumentedApp
from issuer.revocation import routes as feed_routes
from issuer.settings import IssuerSettings
from issuer.tokens import session_routes
from shared import log

_PRUNE_SECONDS: Final = 60.0
_KEY_SCHEDULE_SECONDS: Final = 10.0
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
    issuer: Issuer, operators_socket: socket.socket | None = None
) -> FastAPI:
    """Return the application that clients and verifiers see.

    Args:
        issuer: the composed parts.
        operators_socket: a listening socket on which the operators' application is
            served while this one runs; none: it is not served.
    """
    server = (
        OperatorsServer(build_operators(issuer), operators_socket)
        if operators_socket
        else None
    )
    app = DocumentedApp(
        title="Gatehouse issuer",
        version=_find_version(),
        docs_url=None,
        redoc_url=None,
        # A redirect would carry the request's Host (R37).
        redirect_slashes=False,
        lifespan=_build_lifespan(issuer, server),
    )
    _include_routers(app, issuer)
    install(app)
    metrics = issuer.metrics
    # The last added stands outermost.
    app.add_middleware(
        BodyLimit,
        max_bytes=issuer.settings.max_body_bytes,
        build_answer=build_answer,
    )
    app.add_middleware(
        ErrorBoundary,
        on_unavailable=metrics.database_trouble,
        on_unexpected=metrics.unexpected_error,
    )
    app.add_middleware(_NoStore)
    app.add_middleware(RequestMetrics, metrics=metrics)
    app.add_middleware(CorrelationMiddleware)
    return app


def build_operators(issuer: Issuer) -> Starlette:
    """Return the operators' application: ready when the database answers and an
    active signing key can be used.
    """

    async def require_ready() -> None:
        issuer.metrics.feed_head((await issuer.feed.head()).seq)
        await issuer.keys.signing_key()

    return build_operators_app(issuer.metrics, require_ready)


def _include_routers(app: FastAPI, issuer: Issuer) -> None:
    settings = issuer.settings
    caller_of = build_caller_of(settings.trusted_proxies)
    authenticate = Authenticate(issuer.access_tokens)
    feed_token = settings.feed_token.get_secret_value()
    metadata = {"grant_types_supported": [CLIENT_CREDENTIALS]}
    for router in (
        login_routes.build_router(
            issuer.login, issuer.password_change, authenticate, caller_of
        ),
        session_routes.build_router(
            issuer.sessions, issuer.logout, authenticate, caller_of
        ),
        user_routes.build_router(issuer.users, authenticate, caller_of),
        oauth_routes.build_router(issuer.clients, issuer.token_status, caller_of),
        jwks_routes.build_router(issuer.keys, settings.url, metadata),
        feed_routes.build_router(issuer.feed, issuer.feed_watch, feed_token),
    ):
        app.include_router(router)


def _build_lifespan(
    issuer: Issuer, operators_server: OperatorsServer | None
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        stopping = asyncio.Event()
        keep_schedule = issuer.key_rotation.keep_schedule
        tasks = [
            asyncio.create_task(issuer.feed_watch.poll()),
            asyncio.create_task(_repeat(issuer.feed.prune, _PRUNE_SECONDS, stopping)),
            asyncio.create_task(
                _repeat(keep_schedule, _KEY_SCHEDULE_SECONDS, stopping)
            ),
        ]
        if operators_server is not None:
            operators_server.start()
        try:
            yield
        finally:
            stopping.set()
            issuer.feed_watch.close()
            if operators_server is not None:
                await operators_server.stop()
            await _end(tasks)
            await issuer.close()

    return lifespan


async def _repeat(
    act: Callable[[], Awaitable[object]], interval: float, stopping: asyncio.Event
) -> None:
    """Do `act` every `interval` seconds until `stopping`, whatever it raises."""
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
    """Let each finish its round: cut off in a transaction, a connection would leak."""
    _, late = await asyncio.wait(tasks, timeout=_STOP_SECONDS)
    for task in late:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class _NoStore:
    """Keeps every answer out of caches that does not say otherwise itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, send_marked)


def _find_version() -> str:
    try:
        return version("gatehouse")
    except PackageNotFoundError:
        return "0"
