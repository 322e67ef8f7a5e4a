"""One log line per refusal, in a bounded number of lines (R35, R47).

A flood of bad tokens must not become a flood of lines. A token bucket limits them, and
the next line has the number of refusals without one. Nothing here runs for an allow.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, NamedTuple

from shared.jose.jws import JwsError, parse_compact, read_kid
from shared.log import event
from shared.tracing.ids import find_request_id, find_trace_id
from verifier.check.claims import read_unverified_iss
from verifier.check.decision import Refused
from verifier.check.denials import Denied
from verifier.check.forward_auth import (
    CheckRequest,
    HeaderList,
    Route,
    read_bearer,
    read_question,
)
from verifier.check.policy import TokenPolicy
from verifier.check.trust import Trust, TrustSnapshot

_LOG: Final = logging.getLogger(__name__)
#: The bucket holds the lines of this many seconds.
_BURST: Final = 2


class RefusalLog:
    """Writes the log lines about refusals of one worker.

    Args:
        rate: lines per second; 0 writes none.
        trust: has the ids of the keys.
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
                policy = refused.policy
                if policy is not None:
                    named = find_named_key(
                        request, route, policy.token, self._trust.snapshot
                    )
                    fields |= {n: v for n, v in named._asdict().items() if v}
        suppressed = self.suppressed
        if suppressed > self._reported:
            fields["suppressed"] = suppressed - self._reported
        event(_LOG, logging.INFO, self._name, **fields)
        self._reported = suppressed
        if self._trace is not None and request is not None and request.peer_is_trusted:
            self._trace(self._name, fields, request.headers)


class NamedKey(NamedTuple):
    """Whose key a token names. The token may have a bad signature all the same.

    Attributes:
        issuer: the configured name of the issuer whose terms count; empty when the
            token names none of the policy's.
        kid: the key id, only if that issuer has such a key; any other is an attacker's
            text.
    """

    issuer: str = ""
    kid: str = ""


def find_named_key(
    request: CheckRequest, route: Route, policy: TokenPolicy, trust: TrustSnapshot
) -> NamedKey:
    """Return whose key the token of a request names, as `read_signed` chooses it."""
    issuer = ""
    try:
        authorization, _ = read_question(request, route)
        jws = parse_compact(read_bearer(authorization))
        terms = policy.sole
        if terms is None:
            terms = policy.terms_of(read_unverified_iss(jws.unverified_payload))
        issuer = terms.name
        unverified_kid = read_kid(jws.unverified_header)
        keys = trust.of(terms.issuer).keys.keys
    except (Denied, JwsError):
        return NamedKey(issuer)
    return NamedKey(issuer, unverified_kid if unverified_kid in keys else "")


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
