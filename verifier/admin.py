"""The operators' port: metrics, health, status and explanations.

It listens on its own address, so that nothing a client sends can reach it (R6).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from shared.worker_metrics import CONTENT_TYPE
from verifier.denials import REFUSALS, Denied
from verifier.forward_auth import read_bearer
from verifier.metrics import VerifierMetrics
from verifier.policy import DEFAULT_POLICY, PolicyBook
from verifier.sync import FeedFollower, KeysRefresher, SourceStatus, TrustHolder
from verifier.verify import verify

_MAX_BODY = 16_384


class Watched(NamedTuple):
    """What the operators' port looks at; `now` gives Unix, `monotonic` other seconds."""

    trust: TrustHolder
    feed: FeedFollower
    keys: KeysRefresher
    policies: PolicyBook
    metrics: VerifierMetrics
    now: Callable[[], int]
    monotonic: Callable[[], float]


def build_admin(watched: Watched) -> Starlette:
    """Return the operators' application."""

    async def metrics(_request: Request) -> Response:
        return Response(
            watched.metrics.render(), headers={"Content-Type": CONTENT_TYPE}
        )

    async def healthz(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_request: Request) -> Response:
        reasons = not_ready_reasons(watched.trust, watched.monotonic())
        status = 503 if reasons else 200
        body = {"ready": not reasons, "reasons": reasons}
        return JSONResponse(body, status_code=status)

    async def status(_request: Request) -> Response:
        return JSONResponse(describe(watched, watched.monotonic()))

    async def explain(request: Request) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MAX_BODY:
                return _problem(413, "The body is over 16384 bytes.")
        return _explain(watched, body)

    return Starlette(
        routes=[
            Route("/metrics", metrics),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/status", status),
            Route("/explain", explain, methods=["POST"]),
        ]
    )


def not_ready_reasons(trust: TrustHolder, monotonic: float) -> list[str]:
    """Return why this worker should get no traffic; empty when it should."""
    reasons = []
    if monotonic >= trust.snapshot.keys_until:
        reasons.append("no_keys")
    if monotonic >= trust.snapshot.fresh_until:
        reasons.append("stale")
    return reasons


def describe(watched: Watched, monotonic: float) -> dict[str, Any]:
    """Return the state of this worker: feed, keys, revocations, policies.

    Ages and what is left are in seconds; an age of null means "never yet".
    """
    snapshot = watched.trust.snapshot
    return {
        "ready": not not_ready_reasons(watched.trust, monotonic),
        "feed": {
            "epoch": watched.feed.epoch,
            "position": watched.feed.position,
            "head": watched.feed.head,
            "fresh_for": _remaining(snapshot.fresh_until, monotonic),
            **_describe_source(watched.feed.status, monotonic),
        },
        "keys": {
            "kids": sorted(snapshot.keys.keys),
            "usable_for": _remaining(snapshot.keys_until, monotonic),
            **_describe_source(watched.keys.status, monotonic),
        },
        "revocations": len(snapshot.revocations),
        "policies": sorted(watched.policies.policies),
    }


def _remaining(until: float, monotonic: float) -> float:
    """Seconds left, 0 when there are none or never were."""
    return max(0.0, round(until - monotonic, 3))


def _describe_source(status: SourceStatus, monotonic: float) -> dict[str, Any]:
    last = status.last_success
    return {
        "age": None if last is None else round(monotonic - last, 3),
        "failures": status.failures,
        "last_error": status.last_error,
    }


def _explain(watched: Watched, body: bytes) -> Response:
    """Say why a token passes or not: `{"token", "policy"?, "method"?, "uri"?}`.

    The token itself is never given back, and claims only once they are verified (R35).
    """
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError:
        return _problem(400, "The body must be JSON.")
    names = ("token", "policy", "method", "uri")
    if not isinstance(asked, dict) or not all(
        name in names and isinstance(value, str) for name, value in asked.items()
    ):
        return _problem(400, "Only the texts token, policy, method and uri are known.")
    if "token" not in asked:
        return _problem(400, "token: is missing.")
    method, uri = asked.get("method"), asked.get("uri")
    outcome: dict[str, Any] = {
        "stale": watched.monotonic() >= watched.trust.snapshot.fresh_until
    }
    try:
        policy = watched.policies.find(asked.get("policy", DEFAULT_POLICY))
        token = read_bearer(b"Bearer " + asked["token"].encode())
        now = watched.now()
        claims = verify(token, watched.trust.snapshot, policy.token, now)
        outcome["claims"] = {
            "sub": claims.sub,
            "sid": claims.sid,
            "jti": claims.jti,
            "client_id": claims.client_id,
            "gen": claims.gen,
            "scope": " ".join(claims.scopes),
            "roles": list(claims.roles),
            "expires_in": int(claims.exp - now),
        }
        policy.permit(
            claims, method.encode() if method else None, uri.encode() if uri else None
        )
    except Denied as denied:
        refusal = REFUSALS[denied.reason]
        outcome |= {
            "decision": "deny",
            "reason": denied.reason.value,
            "status": refusal.status,
        }
    else:
        outcome |= {"decision": "allow", "reason": "", "status": 200}
    return JSONResponse(outcome)


def _problem(status: int, detail: str) -> Response:
    body = {"type": "about:blank", "status": status, "detail": detail}
    return JSONResponse(body, status, media_type="application/problem+json")
