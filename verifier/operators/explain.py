"""`POST /explain`: why a request passes or not, or why one was decided as it was (R66).

A request is decided by `decide`, as in the gate. A decision id gives a decision of the
last moments, of any worker. No answer has a token, and claims only after they were
verified (R35).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from shared.jose.json_members import DuplicateMemberError, require_distinct_members
from verifier.check.decision import CheckPaths, Times, decide
from verifier.check.denials import REFUSALS, DenyReason
from verifier.check.forward_auth import CheckRequest
from verifier.operators.decision_log import RECORDS, DecisionRecord, digest_of
from verifier.operators.metrics import WorkerParts
from verifier.policies.described_decision import (
    describe_checks,
    describe_decision,
    describe_rule,
)
from verifier.policies.described_request import (
    DescribedRequestError,
    read_described_request,
)
from verifier.policies.explanation import PRESUMED, unpack_checks
from verifier.sync.staleness import SourceStatus

_MAX_BODY: Final = 16_384
_ID: Final = re.compile(r"[0-9a-fA-F]{16}")
#: Other workers publish their decisions every 0.5 s.
_LOOKS: Final = 8
_BETWEEN_LOOKS: Final = 0.1
_UNKNOWN_ID: Final = (
    "decision_id: no decision with this id is kept. Each worker keeps its last "
    f"{RECORDS:,}, until it ends. An allow has an id only where its policy says "
    "decision_ids = true, or where shadow mode let it pass."
)


class Explainer:
    """Explains decisions of one verifier.

    Args:
        parts: of the worker that is asked.
        now: gives Unix seconds.
        boottime: gives boot-time seconds.
        sleep: waits for so many seconds.
    """

    def __init__(
        self,
        parts: WorkerParts,
        now: Callable[[], int],
        boottime: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._parts = parts
        self._now = now
        self._boottime = boottime
        self._sleep = sleep

    async def answer(self, request: Request) -> Response:
        """Answer `POST /explain`."""
        body = b""
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > _MAX_BODY:
                    return _problem(413, f"The body is over {_MAX_BODY} bytes.")
        except ClientDisconnect:
            # Otherwise the server would log a traceback for each such client.
            return Response(status_code=400)
        try:
            asked = _read_body(body)
            if "decision_id" in asked:
                return await self._answer_about_decision(asked)
            return JSONResponse(self.explain(read_described_request(asked)))
        except DescribedRequestError as error:
            return _problem(400, str(error))

    def explain(self, request: CheckRequest) -> dict[str, Any]:
        """Decide about a request as the gate does, without its cache, and explain it.

        Returns:
            What docs/policies.md describes ("Why was a request refused?"); JSON.
        """
        trust = self._parts.trust.snapshot
        times = Times(self._now(), self._boottime())
        paths = CheckPaths(self._parts.gate.policies)
        outcome = decide(request, trust, paths, times)
        return {
            "stale": times.boottime >= trust.own.fresh_until,
            **describe_decision(outcome, request, trust, times.now, PRESUMED),
            "feed": {
                "epoch": self._parts.feed.epoch,
                "position": self._parts.feed.position,
                **_describe_age(self._parts.feed.status, times),
                "fresh_for": _remaining(trust.own.fresh_until, times),
            },
            "keys": {
                **_describe_age(self._parts.keys.status, times),
                "usable_for": _remaining(trust.own.keys_until, times),
            },
            "issuers": {
                name: {
                    **_describe_age(refresher.status, times),
                    "usable_for": _remaining(
                        trust.issuers[refresher.source.issuer].keys_until, times
                    ),
                }
                for name, refresher in sorted(self._parts.others.refreshers.items())
            },
        }

    async def _answer_about_decision(self, asked: dict[str, Any]) -> Response:
        decision_id = asked.pop("decision_id")
        if asked:
            raise DescribedRequestError("decision_id: must be the only member.")
        if not isinstance(decision_id, str) or not _ID.fullmatch(decision_id):
            raise DescribedRequestError(
                "decision_id: must be the 16 hexadecimal digits of an answer's "
                "X-Auth-Decision-Id."
            )
        record = await self._find(decision_id)
        if record is None:
            return _problem(404, _UNKNOWN_ID)
        return JSONResponse(self._describe_record(decision_id.lower(), record))

    async def _find(self, decision_id: str) -> DecisionRecord | None:
        """Return the record, also when its worker is about to publish it."""
        for _ in range(_LOOKS - 1):
            record = self._parts.decisions.find(decision_id)
            if record is not None:
                return record
            await self._sleep(_BETWEEN_LOOKS)
        return self._parts.decisions.find(decision_id)

    def _describe_record(
        self, decision_id: str, record: DecisionRecord
    ) -> dict[str, Any]:
        is_deny = record.decision == "deny"
        status = REFUSALS[DenyReason(record.reason)].status if is_deny else 200
        return {
            "decision_id": decision_id,
            "decided_at": record.decided_at,
            "decision": "deny" if is_deny else "allow",
            "status": status,
            "reason": record.reason if is_deny else "",
            "shadow_reason": "" if is_deny else record.reason,
            "auth_decision": "" if is_deny else record.decision,
            "dialect": record.dialect,
            "policy": record.policy,
            **self._describe_recorded_rule(record),
            "issuer": record.issuer,
            "kid": record.kid,
            "feed": {
                "epoch": record.epoch or None,
                "position": record.position,
                "fresh_for": max(0.0, record.fresh_for),
            },
            "checks": describe_checks(unpack_checks(record.checks, record.reason)),
        }

    def _describe_recorded_rule(self, record: DecisionRecord) -> dict[str, Any]:
        """Return the rule by its number, as far as the policies are still the same."""
        policies = self._parts.gate.policies
        are_same = record.policies == digest_of(policies)
        described: dict[str, Any] = {"rule": None, "policies_changed": not are_same}
        if record.rule:
            described["rule"] = {"number": record.rule}
            policy = policies.policies.get(record.policy)
            if are_same and policy is not None:
                described["rule"] = describe_rule(policy.rules[record.rule - 1])
        return described


def _read_body(body: bytes) -> dict[str, Any]:
    """Return the members of the body.

    Raises:
        DescribedRequestError: it is not a JSON object, or a member stands twice.
    """
    try:
        asked = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise DescribedRequestError("The body must be JSON.") from None
    try:
        require_distinct_members(body, asked)
    except DuplicateMemberError as error:
        raise DescribedRequestError(
            f"{error.name or 'A member'}: {error.rule}."
        ) from None
    if not isinstance(asked, dict):
        raise DescribedRequestError("The body must be a JSON object.")
    return asked


def _describe_age(status: SourceStatus, times: Times) -> dict[str, Any]:
    """Return the seconds since the last good answer; null before the first."""
    last = status.last_success
    return {"age": None if last is None else round(times.boottime - last, 3)}


def _remaining(until: float, times: Times) -> float:
    """Return the seconds left, at least 0."""
    return max(0.0, round(until - times.boottime, 3))


def _problem(status: int, detail: str) -> Response:
    body = {"type": "about:blank", "status": status, "detail": detail}
    return JSONResponse(body, status, media_type="application/problem+json")
