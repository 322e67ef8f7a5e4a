"""The issuer as ASGI applications: routes, guards around them, background tasks."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
)
from functools import partial

from fastapi import FastAPI
from starlette.applications import Starlette

from issuer.composition import Issuer
from issuer.errors import UnavailableError
from issuer.foundation import Package, end_tasks
from issuer.http.body_limit import BodyLimit
from issuer.http.callers import build_caller_of
from issuer.http.correlation import CorrelationMiddleware
from issuer.http.cors import BrowserAccess
from issuer.http.dependencies import provide
from issuer.http.error_responses import ErrorBoundary, build_answer, install
from issuer.http.health import OperatorsServer, build_operators_app
from issuer.http.no_store import NoStore
from issuer.login import login_routes
from issuer.login.admission import LoginAdmission
from issuer.metrics import RequestMetrics
from issuer.openapi import page as api_page
from issuer.openapi.document import DocumentedApp
from issuer.revoking import bulk_routes
from issuer.storage.conflict_retry import ConflictRetry
from shared.distribution import VERSION
from shared.serving.server import Lifecycle
from shared.shortages import raise_descriptor_limit


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
    settings, metrics = issuer.base.settings, issuer.base.metrics
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
        servers=[{"url": settings.url}],
        root_path_in_servers=False,
        # A redirect would carry the request's Host (R37).
        redirect_slashes=False,
        # Whoever sets OTEL_... for all of a machine shall not have logins traced.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        lifespan=_build_lifespan(issuer, server),
    )
    app.state.issuer_url = settings.url
    app.state.caller_of = build_caller_of(settings.trusted_proxies)
    _include_packages(app, issuer.packages())
    install(app)
    if settings.docs:
        app.router.routes.extend(api_page.build_routes(settings.url))
    # The last added stands outermost.
    app.add_middleware(ConflictRetry, build_answer=build_answer)
    app.add_middleware(
        LoginAdmission,
        pool=issuer.hashing.pool,
        paths=[login_routes.LOGIN_PATH],
        build_answer=build_answer,
        on_refused=partial(metrics.login, "overloaded"),
    )
    app.add_middleware(
        BodyLimit,
        max_bytes=settings.max_body_bytes,
        build_answer=build_answer,
        larger={bulk_routes.PATH: settings.bulk_max_body_bytes},
    )
    app.add_middleware(
        ErrorBoundary,
        on_unavailable=metrics.database_trouble,
        on_unexpected=metrics.unexpected_error,
    )
    if settings.cors_origins:
        app.add_middleware(BrowserAccess, origins=settings.cors_origins)
    app.add_middleware(NoStore)
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
        await issuer.base.database.require_writable()
        issuer.base.metrics.feed_head((await issuer.feed.feed.head()).seq)
        await issuer.keys.store.signing_key()

    return build_operators_app(issuer.scrapes, issuer.shortages, require_ready)


def _include_packages(app: FastAPI, packages: Sequence[Package]) -> None:
    """Take the packages' routes as they are, those asked most before all others.

    `include_router` would build each route's parameters and models a second time, which
    is half the cost of an application, and ask router by router for each request.
    """
    hot = [router for package in packages for router in package.hot_routers]
    cold = [router for package in packages for router in package.routers]
    for router in (*hot, *cold):
        app.router.routes.extend(router.routes)
    provide(app, (part for package in packages for part in package.provides))


def _build_lifespan(
    issuer: Issuer, operators_server: OperatorsServer | None
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        # Each step of the stop is taken, whatever an earlier one raises, and also when
        # the start fails half way. They run in reverse.
        async with AsyncExitStack() as stack:
            stack.push_async_callback(issuer.close)
            raise_descriptor_limit()
            stopping = asyncio.Event()
            tasks = [asyncio.create_task(task.run(stopping)) for task in issuer.tasks()]
            stack.push_async_callback(end_tasks, tasks)
            if operators_server is not None:
                stack.push_async_callback(operators_server.stop)
            for package in reversed(issuer.packages()):
                stack.callback(package.stop)
            stack.callback(stopping.set)
            if operators_server is not None:
                operators_server.start()
            yield

    return lifespan
