"""One log line per refusal, in a bounded number of lines (R35, R47).

A flood of bad tokens must not become a flood of lines. A token bucket limits them, and
the next line has the number of refusals without one. Nothing here runs for an allow.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from shared.jose.jws import JwsError, parse_compact, read_kid
from shared.log import event
from shared.tracing.ids import find_request_id, find_trace_id
from verifier.check.decision import Refused
from verifier.check.denials import Denied
from verifier.check.forward_auth import (
    CheckRequest,
    HeaderList,
    Route,
    read_bearer,
    read_question,
)
from verifier.check.trust import KeySet, Trust

_LOG: Final = logging.getLogger(__name__)
#: The bucket holds the lines of this many seconds.
_BURST: Final = 2


class RefusalLog:
    """Writes the log lines about refusals of one worker.

    Args:
        rate: lines per second; 0 writes none.
        trust: has the ids of our keys.
        monotonic: the time now, by the clock of `refill`.
        name: of the log event.
        trace: called with name, fields and the headers of the request that a line is
            about, if its peer is trusted; as seldom as there are lines.

    Attributes:
        suppressed: refusals without a line.
    """

    def __init__(
        self,
        rate: int,
        trust: Trust,
        monotonic: float,
        name: str = "gate.refused",
        trace: Callable[[str, dict[str, object], HeaderList], None] | None = None,
    ) -> None:
        self._trace = trace
        self._name = name
        self.suppressed = 0
        self._reported = 0
        self._rate = rate
        self._trust = trust
        self._left = rate * _BURST
        self._filled_at = monotonic

    def refill(self, monotonic: float) -> None:
        """Add the lines that became due. A timer calls this, so `note` reads no
        clock.
        """
        due = int((monotonic - self._filled_at) * self._rate)
        if due <= 0:
            return
        self._left = min(self._left + due, self._rate * _BURST)
        self._filled_at += due / self._rate

    def note(
        self, refused: Refused, request: CheckRequest | None, decision_id: bytes
    ) -> None:
        """Write the line about one refusal, or count it as suppressed; never raise.

        Args:
            refused: the refusal.
            request: None when a connection was refused, before any request.
            decision_id: its id, ASCII.
        """
        if self._left == 0:
            self.suppressed += 1
            return
        self._left -= 1
        try:
            self._write(refused, request, decision_id)
        except Exception:
            # The refusal is decided. A fault here must not change the answer.
            self.suppressed += 1

    def _write(
        self, refused: Refused, request: CheckRequest | None, decision_id: bytes
    ) -> None:
        route = refused.route
        fields: dict[str, object] = {
            "reason": refused.reason.value,
            "decision_id": decision_id.decode("ascii"),
        }
        if refused.policy is not None:
            fields["policy"] = refused.policy.name
        if refused.rule is not None:
            fields["rule"] = refused.rule.number
        if route is not None:
            fields["dialect"] = route.dialect.name
        # Nothing is read of a request from an untrusted peer (R1).
        if request is not None and request.peer_is_trusted:
            fields |= _read_ids(request)
            if route is not None:
                kid = find_kid(request, route, self._trust.snapshot.own.keys)
                fields |= {"kid": kid} if kid else {}
        suppressed = self.suppressed
        if suppressed > self._reported:
            fields["suppressed"] = suppressed - self._reported
        event(_LOG, logging.INFO, self._name, **fields)
        self._reported = suppressed
        if self._trace is not None and request is not None and request.peer_is_trusted:
            self._trace(self._name, fields, request.headers)


def find_kid(request: CheckRequest, route: Route, keys: KeySet) -> str:
    """Return the token's key id only if it is one of ours, else an empty text.

    Any other is an attacker's text. The token may have a bad signature all the same.
    """
    try:
        authorization, _ = read_question(request, route)
        jws = parse_compact(read_bearer(authorization))
        unverified_kid = read_kid(jws.unverified_header)
    except (Denied, JwsError):
        return ""
    return unverified_kid if unverified_kid in keys.keys else ""


def _read_ids(request: CheckRequest) -> dict[str, object]:
    """Return the request ids that other logs use, where their form is safe."""
    ids: dict[str, object] = {}
    request_id = find_request_id(request.headers)
    if request_id:
        ids["request_id"] = request_id
    trace_id = find_trace_id(request.headers)
    if trace_id:
        ids["trace_id"] = trace_id
    return ids
