"""The issuer as ASGI applications: routes, guards around them, background tasks."""

import socket

from fastapi import FastAPI

from issuer.composition import Issuer
from issuer.http.body_limit import BodyLimit
from issuer.http.callers import build_caller_of, build_client_of
from issuer.http.correlation import CorrelationMiddleware
from issuer.http.cors import BrowserAccess
from issuer.http.dependencies import include
from issuer.http.error_responses import ErrorBoundary, build_answer, install
from issuer.http.lifespan import build_lifespan
from issuer.http.no_store import NoStore
from issuer.http.observation.access_log import AccessLog
from issuer.http.observation.request_metrics import RequestMetrics
from issuer.http.observation.server_spans import ServerSpans
from issuer.http.operators_port.health import build_operators_app
from issuer.login.admission import LoginAdmission
from issuer.openapi import page as api_page
from issuer.openapi.document import DocumentedApp
from issuer.revoking import bulk_routes
from issuer.storage.conflict_retry import ConflictRetry
from shared.serving.server import Lifecycle


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
    operators = build_operators_app(issuer.operators, lifecycle)
    lifespan = build_lifespan(
        issuer.packages, operators, operators_socket, issuer.close
    )
    app = DocumentedApp(settings.url, lifespan)
    app.state.issuer_url = settings.url
    app.state.caller_of = build_caller_of(settings.trusted_proxies)
    include(app, issuer.packages)
    install(app)
    if settings.docs:
        app.router.routes.extend(api_page.build_routes(settings.url))
    # The last added stands outermost.
    app.add_middleware(ConflictRetry, build_answer=build_answer)
    app.add_middleware(LoginAdmission, pool=issuer.hashing.pool, metrics=metrics)
    app.add_middleware(
        BodyLimit,
        max_bytes=settings.max_body_bytes,
        larger={bulk_routes.PATH: settings.bulk_max_body_bytes},
    )
    app.add_middleware(ErrorBoundary, metrics=metrics)
    if settings.cors_origins:
        app.add_middleware(BrowserAccess, origins=settings.cors_origins)
    app.add_middleware(NoStore)
    app.add_middleware(RequestMetrics, metrics=metrics)
    if settings.access_log:
        client_of = build_client_of(settings.trusted_proxies)
        app.add_middleware(AccessLog, find_client=client_of)
    if issuer.base.spans is not None:
        app.add_middleware(ServerSpans, spans=issuer.base.spans)
    app.add_middleware(CorrelationMiddleware)
    return app
