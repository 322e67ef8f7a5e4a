"""The operators' port: metrics, health, status and explanations.

It listens on its own address, so no client's request can reach it (R6).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import quote

import orjson
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from shared.jose.json_members import DuplicateMemberError, require_distinct_members
from shared.metrics.prometheus import CONTENT_TYPE
from shared.metrics.scrapes import Scrapes
from shared.serving.server import Lifecycle
from verifier.check import gate
from verifier.check.decision import CheckPaths, Refused, Times, decide
from verifier.check.denials import REFUSALS
from verifier.check.forward_auth import PlainCheckRequest
from verifier.check.policy import DEFAULT_POLICY
from verifier.check.verify import VerifiedClaims
from verifier.operators.metrics import WorkerParts
from verifier.operators.worker_board import (
    WorkerBoard,
    WorkerState,
    not_ready_reasons,
    warnings,
)
from verifier.reloading.reload import ReloadReport
from verifier.sync.staleness import Failure, SourceStatus, staleness_of

_MAX_BODY = 16_384


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
    """

    parts: WorkerParts
    scrapes: Scrapes
    board: WorkerBoard
    report: Callable[[], None]
    lifecycle: Lifecycle
    now: Callable[[], int]
    boottime: Callable[[], float]
    reloads: ReloadReport


def build_admin(admin: AdminDependencies) -> Starlette:
    """Return the operators' application."""
    routes = _Routes(admin)
    return Starlette(
        routes=[
            Route("/metrics", routes.metrics),
            Route("/healthz", routes.healthz),
            Route("/readyz", routes.readyz),
            Route("/status", routes.status),
            Route("/explain", routes.explain, methods=["POST"]),
        ]
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

    async def explain(self, request: Request) -> Response:
        body = b""
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > _MAX_BODY:
                    return _problem(413, "The body is over 16384 bytes.")
        except ClientDisconnect:
            # Otherwise the server would log a traceback for each such client.
            return Response(status_code=400)
        return _explain(self._admin, body)


def describe(admin: AdminDependencies, boottime: float) -> dict[str, Any]:
    """Return the state of this worker: feed, keys, revocations, policies, disk copy.

    `compiled`: whether the gate is compiled (decision 0009). `ready` and `workers` are
    about all workers of this verifier. Ages and remaining times are in seconds; an age
    of null means "never yet". `last_error` is empty after a success; `last_failure`
    stays.
    """
    _, trust, feed, keys, copy, canary, _ = admin.parts
    snapshot = trust.snapshot
    staleness = staleness_of(feed.status, snapshot.fresh_until, boottime)
    return {
        "ready": not not_ready_reasons(admin.board, boottime),
        "feed": {
            "epoch": feed.epoch,
            "position": feed.position,
            "head": feed.head,
            "staleness": staleness.word,
            "fresh_for": _remaining(snapshot.fresh_until, boottime),
            "last_canary_delay": canary.last_delay,
            **_describe_source(feed.status, boottime),
        },
        "keys": {
            "kids": sorted(snapshot.keys.keys),
            "usable_for": _remaining(snapshot.keys_until, boottime),
            **_describe_source(keys.status, boottime),
        },
        "revocations": len(snapshot.revocations),
        "disk_copy": {"state": copy.state, "bytes": copy.size, "error": copy.error},
        "policies": sorted(admin.parts.gate.policies.policies),
        "policy_file": {
            "digest": admin.parts.gate.policies.digest or None,
            "loaded_at": admin.reloads.loaded_at,
            "last_error": admin.reloads.policy_error,
        },
        "compiled": not gate.__file__.endswith(".py"),
        "workers": [_describe_worker(w, boottime) for w in admin.board.read()],
    }


def _describe_worker(state: WorkerState, boottime: float) -> dict[str, Any]:
    return {
        "pid": state.pid,
        "epoch": state.epoch or None,
        "position": state.position,
        "revocations": state.entries,
        "is_loading": state.is_loading,
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


def _explain(admin: AdminDependencies, body: bytes) -> Response:
    """Explain why a request passes or not.

    The body: `{"token"?, "policy"?, "method"?, "host"?, "uri"?}`. Without a token the
    request has no credential.

    The answer never has the token, and has claims only after they were verified (R35).
    """
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError:
        return _problem(400, "The body must be JSON.")
    try:
        require_distinct_members(body, asked)
    except DuplicateMemberError as error:
        return _problem(400, f"{error.name or 'A member'}: {error.rule}.")
    names = ("token", "policy", "method", "host", "uri")
    if not isinstance(asked, dict) or not all(
        name in names and isinstance(value, str) for name, value in asked.items()
    ):
        return _problem(
            400, "Only these texts are known: token, policy, method, host and uri."
        )
    return JSONResponse(_decide(admin, asked))


def _decide(admin: AdminDependencies, asked: dict[str, str]) -> dict[str, Any]:
    """Decide as the gate does, without its cache (R66)."""
    trust = admin.parts.trust.snapshot
    times = Times(admin.now(), admin.boottime())
    paths = CheckPaths(admin.parts.gate.policies)
    outcome = decide(_check_request(asked), trust, paths, times)
    described: dict[str, Any] = {"stale": times.boottime >= trust.fresh_until}
    if outcome.claims is not None:
        described["claims"] = _describe_claims(outcome.claims, times.now)
    if isinstance(outcome, Refused):
        status = REFUSALS[outcome.reason].status
        return described | {
            "decision": "deny",
            "reason": outcome.reason.value,
            "status": status,
        }
    return described | {"decision": "allow", "reason": "", "status": 200}


def _check_request(asked: dict[str, str]) -> PlainCheckRequest:
    """Return the check request that nginx would send about this question."""
    # `%` is no policy's name: an empty one has no path.
    policy = quote(asked.get("policy", DEFAULT_POLICY), safe="") or "%"
    headers = []
    if "token" in asked:
        headers.append((b"authorization", b"Bearer " + asked["token"].encode()))
    for name in ("method", "host", "uri"):
        if asked.get(name):
            headers.append((b"x-original-" + name.encode(), asked[name].encode()))
    target = b"/verify/nginx/p/" + policy.encode()
    return PlainCheckRequest(b"GET", target, headers, peer_is_trusted=True)


def _describe_claims(claims: VerifiedClaims, now: int) -> dict[str, Any]:
    return {
        "sub": claims.sub,
        "sid": claims.sid,
        "jti": claims.jti,
        "client_id": claims.client_id,
        "gen": claims.gen,
        "scope": " ".join(claims.scopes),
        "roles": list(claims.roles),
        "expires_in": int(claims.exp - now),
    }


def _problem(status: int, detail: str) -> Response:
    body = {"type": "about:blank", "status": status, "detail": detail}
    return JSONResponse(body, status, media_type="application/problem+json")
