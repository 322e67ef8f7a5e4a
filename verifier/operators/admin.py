"""The operators' port: metrics, health, status and explanations.

It listens on its own address, so no client's request can reach it (R6).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from shared.metrics.prometheus import CONTENT_TYPE
from shared.metrics.scrapes import Scrapes
from shared.serving.server import Lifecycle
from verifier.check import gate
from verifier.check.trust import IssuerTrust, Trust
from verifier.operators.browser_guard import BrowserGuard
from verifier.operators.explain import Explainer
from verifier.operators.metrics import WorkerParts
from verifier.operators.worker_board import (
    WorkerBoard,
    WorkerState,
    not_ready_reasons,
    warnings,
)
from verifier.reloading.reload import ReloadReport
from verifier.sync.keys import KeysRefresher
from verifier.sync.staleness import Failure, SourceStatus, staleness_of


class AdminDependencies(NamedTuple):
    """The dependencies of the operators' port.

    Attributes:
        parts: this worker's parts.
        scrapes: the answers of `/metrics`.
        board: the states of all workers.
        report: writes the state of this worker to the board.
        lifecycle: whether a stop was requested.
        now: gives Unix seconds.
        boottime: gives boot-time seconds.
        reloads: outcomes of reading the files again.
        host: of the address that the port listens on; empty for a unix socket.
    """

    parts: WorkerParts
    scrapes: Scrapes
    board: WorkerBoard
    report: Callable[[], None]
    lifecycle: Lifecycle
    now: Callable[[], int]
    boottime: Callable[[], float]
    reloads: ReloadReport
    host: str


def build_admin(admin: AdminDependencies) -> Starlette:
    """Return the operators' application."""
    routes = _Routes(admin)
    explainer = Explainer(admin.parts, admin.now, admin.boottime)
    return Starlette(
        routes=[
            Route("/metrics", routes.metrics),
            Route("/healthz", routes.healthz),
            Route("/readyz", routes.readyz),
            Route("/status", routes.status),
            Route("/explain", explainer.answer, methods=["POST"]),
        ],
        middleware=[Middleware(BrowserGuard, host=admin.host)],
    )


class _Routes:
    """The routes of the operators' port."""

    def __init__(self, admin: AdminDependencies) -> None:
        self._admin = admin

    async def metrics(self, _request: Request) -> Response:
        body = await self._admin.scrapes.body()
        return Response(body, headers={"Content-Type": CONTENT_TYPE})

    async def healthz(self, _request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(self, _request: Request) -> Response:
        admin = self._admin
        admin.report()
        reasons = not_ready_reasons(admin.board, admin.boottime())
        if admin.lifecycle.is_draining:
            # Checks are still answered for a while, but no new ones should come (R60).
            reasons.insert(0, "draining")
        status = 503 if reasons else 200
        body = {
            "ready": not reasons,
            "reasons": reasons,
            "warnings": warnings(admin.board),
        }
        return JSONResponse(body, status_code=status)

    async def status(self, _request: Request) -> Response:
        self._admin.report()
        return JSONResponse(describe(self._admin, self._admin.boottime()))


def describe(admin: AdminDependencies, boottime: float) -> dict[str, Any]:
    """Return the state of this worker: feed, keys, revocations, policies, disk copy.

    `issuers`: the keys of each other issuer, by its configured name. `native`: the
    gateways that check tokens by themselves; null without any.

    `compiled`: whether the gate is compiled (decision 0009). `ready` and `workers` are
    about all workers of this verifier. Ages and remaining times are in seconds; an age
    of null means "never yet". `last_error` is empty after a success; `last_failure`
    stays.
    """
    _, trust, feed, keys, copy, canary, _, others, gateways = admin.parts
    snapshot = trust.snapshot
    staleness = staleness_of(feed.status, snapshot.own.fresh_until, boottime)
    return {
        "ready": not not_ready_reasons(admin.board, boottime),
        "feed": {
            "epoch": feed.epoch,
            "position": feed.position,
            "head": feed.head,
            "staleness": staleness.word,
            "fresh_for": _remaining(snapshot.own.fresh_until, boottime),
            "last_canary_delay": canary.last_delay,
            **_describe_source(feed.status, boottime),
        },
        "keys": {
            "kids": sorted(snapshot.own.keys.keys),
            "usable_for": _remaining(snapshot.own.keys_until, boottime),
            **_describe_source(keys.status, boottime),
        },
        "issuers": {
            name: _describe_other(refresher, trust, boottime)
            for name, refresher in sorted(others.refreshers.items())
        },
        "native": None if gateways is None else gateways.describe(),
        "revocations": len(snapshot.own.revocations),
        "disk_copy": {"state": copy.state, "bytes": copy.size, "error": copy.error},
        "policies": sorted(admin.parts.gate.policies.policies),
        "policy_file": {
            "digest": admin.parts.gate.policies.digest or None,
            "issuers_digest": admin.parts.gate.policies.issuers_digest or None,
            "loaded_at": admin.reloads.loaded_at,
            "last_error": admin.reloads.policy_error,
        },
        "compiled": not gate.__file__.endswith(".py"),
        "workers": [_describe_worker(w, boottime) for w in admin.board.read()],
    }


def _describe_other(
    refresher: KeysRefresher, trust: Trust, boottime: float
) -> dict[str, Any]:
    """Return the state of another issuer's keys."""
    issuer = refresher.source.issuer
    # After the end of all trust there is nothing of it.
    known = trust.snapshot.issuers.get(issuer, IssuerTrust())
    return {
        "issuer": issuer,
        "kids": sorted(known.keys.keys),
        "usable_for": _remaining(known.keys_until, boottime),
        **_describe_source(refresher.status, boottime),
    }


def _describe_worker(state: WorkerState, boottime: float) -> dict[str, Any]:
    return {
        "pid": state.pid,
        "epoch": state.epoch or None,
        "position": state.position,
        "revocations": state.entries,
        "is_loading": state.is_loading,
        "policy_file_differs": state.has_older_policies,
        "fresh_for": _remaining(state.fresh_until, boottime),
        "keys_usable_for": _remaining(state.keys_until, boottime),
    }


def _remaining(until: float, boottime: float) -> float:
    """Return the seconds left, at least 0."""
    return max(0.0, round(until - boottime, 3))


def _describe_source(status: SourceStatus, boottime: float) -> dict[str, Any]:
    last = status.last_success
    return {
        "age": None if last is None else round(boottime - last, 3),
        "failures": status.failures,
        "last_error": status.last_error,
        "last_failure": _describe_failure(status.last_failure, boottime),
    }


def _describe_failure(failure: Failure | None, boottime: float) -> object:
    if failure is None:
        return None
    return {
        "age": round(boottime - failure.at, 3),
        "kind": failure.kind,
        "url": failure.url,
        "status": failure.status,
        "error": failure.error,
        "setting": failure.setting,
    }
