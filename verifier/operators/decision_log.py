"""The last decisions of each worker, found by their ids (R66).

Every refusal carries an id, and any worker may be asked about it. So the records are in
memory that all workers share, a fixed number for each worker; a newer record replaces
the oldest. A record has no token, no claim and no path.
"""

from __future__ import annotations

import logging
import mmap
import os
import zlib
from collections import deque
from typing import Any, Final, NamedTuple

import orjson

from verifier.check.answers import decision_of
from verifier.check.decision import Allowed, Refused, Times
from verifier.check.policy import PolicyBook
from verifier.check.trust import TrustSnapshot
from verifier.policies.explanation import pack_checks
from verifier.sync.feed import FeedFollower

_LOG: Final = logging.getLogger(__name__)
#: Records per worker. A flood of refusals replaces all of them within a second.
RECORDS: Final = 1_000
#: More than the longest record: a policy's name, a key id and a feed's epoch have
#: bounds.
_RECORD_BYTES: Final = 1_024
_ID_BYTES: Final = 8
#: Checksum (4 bytes), id, length (2 bytes), then the record as JSON.
_ID_AT: Final = 4
_SIZE_AT: Final = _ID_AT + _ID_BYTES
_JSON_AT: Final = _SIZE_AT + 2
#: Of a policy's name, which is the only part without a bound of its own.
_NAME_CHARS: Final = 200
#: Ids that are made at once: each call of the system costs as much as ten ids.
_IDS_AT_ONCE: Final = 256


class DecisionRecord(NamedTuple):
    """What is kept of one decision.

    Attributes:
        decided_at: Unix seconds.
        decision: `deny`, or the `X-Auth-Decision` of the allow.
        reason: why it was refused, or would be outside of shadow mode; else empty.
        dialect: of the gateway; empty when the check path was unknown.
        policy: its name; empty when none was found.
        rule: the number of the rule that matches, from 1; 0 when none did, or when none
            was looked for.
        issuer: the configured name of the issuer that signed the token; empty when that
            is not known.
        kid: the key of that issuer that signed it; empty when that is not known.
        epoch: of the feed position.
        position: the feed position in force.
        fresh_for: seconds for which the revocations were still fresh; below 0 when they
            were not.
        policies: the beginning of the digest of the policies in force.
        checks: every check with its outcome, packed by `verifier.policies.explanation`.
    """

    decided_at: float
    decision: str
    reason: str
    dialect: str
    policy: str
    rule: int
    issuer: str
    kid: str
    epoch: str
    position: int
    fresh_for: float
    policies: str
    checks: str


class DecisionBoard:
    """The records of all workers; create it before the workers are forked.

    The ids stand together before the records, so that one search finds an id.

    Args:
        slots: the number of workers that may live at a time.
    """

    def __init__(self, slots: int) -> None:
        records = slots * RECORDS
        self._ids_end = records * _ID_BYTES
        self._memory = mmap.mmap(-1, self._ids_end + records * _RECORD_BYTES)

    def write(self, number: int, id: bytes, record: DecisionRecord) -> None:
        """Write a record, in place of the one with this number."""
        # orjson writes no named tuples.
        body = orjson.dumps(list(record))
        if len(body) > _RECORD_BYTES - _JSON_AT:
            return
        packed = id + len(body).to_bytes(2, "little") + body
        start = self._start_of(number)
        checked = zlib.crc32(packed).to_bytes(4, "little") + packed
        self._memory[start : start + len(checked)] = checked
        self._memory[number * _ID_BYTES : (number + 1) * _ID_BYTES] = id

    def find(self, id: bytes) -> DecisionRecord | None:
        """Return the record of this id; None when there is none, or none any more."""
        ids = self._memory[: self._ids_end]
        at = ids.find(id)
        while at >= 0:
            # A match across two ids does not count.
            if at % _ID_BYTES == 0:
                start = self._start_of(at // _ID_BYTES)
                return _read(id, self._memory[start : start + _RECORD_BYTES])
            at = ids.find(id, at + 1)
        return None

    def _start_of(self, number: int) -> int:
        return self._ids_end + number * _RECORD_BYTES


def _read(id: bytes, packed: bytes) -> DecisionRecord | None:
    """Return the record; None when another worker is writing it."""
    if packed[_ID_AT:_SIZE_AT] != id:
        return None
    size = int.from_bytes(packed[_SIZE_AT:_JSON_AT], "little")
    checked = packed[_ID_AT : _JSON_AT + size]
    if zlib.crc32(checked) != int.from_bytes(packed[:_ID_AT], "little"):
        return None
    fields: list[Any] = orjson.loads(packed[_JSON_AT : _JSON_AT + size])
    return DecisionRecord(*fields)


class _Kept:
    """A decision that is not published yet; the attributes are as in its record."""

    __slots__ = (
        "decided_at",
        "epoch",
        "fresh_for",
        "hex_id",
        "outcome",
        "policies",
        "position",
    )

    def __init__(
        self,
        hex_id: bytes,
        outcome: Allowed | Refused,
        decided_at: float,
        epoch: str | None,
        position: int,
        fresh_for: float,
        policies: PolicyBook,
    ) -> None:
        self.hex_id = hex_id
        self.outcome = outcome
        self.decided_at = decided_at
        self.epoch = epoch
        self.position = position
        self.fresh_for = fresh_for
        self.policies = policies


class DecisionLog:
    """Keeps the decisions of one worker.

    `record` is called for every refusal, so it only remembers; `publish` describes what
    was remembered, and writes it to the board.

    Args:
        board: shared by all workers.
        slot: of this worker.
        feed: has the feed position in force.
    """

    def __init__(
        self,
        board: DecisionBoard,
        slot: int,
        feed: FeedFollower,
    ) -> None:
        self._board = board
        self._first = slot * RECORDS
        self._next = 0
        self._feed = feed
        self._hex_ids: list[bytes] = []
        self._kept: deque[_Kept] = deque(maxlen=RECORDS)

    def record(
        self,
        outcome: Allowed | Refused,
        times: Times,
        trust: TrustSnapshot,
        policies: PolicyBook,
    ) -> bytes:
        """Remember a decision; never raise.

        Args:
            outcome: the decision.
            times: of the decision.
            trust: in force.
            policies: in force.

        Returns:
            Its id: 16 hexadecimal digits, ASCII. It is random, so it says nothing
            about other decisions.
        """
        if not self._hex_ids:
            self._hex_ids = _make_ids()
        hex_id = self._hex_ids.pop()
        try:
            kept = _Kept(
                hex_id,
                outcome,
                times.exact,
                self._feed.epoch,
                self._feed.position,
                trust.own.fresh_until - times.boottime,
                policies,
            )
            self._kept.append(kept)
        except Exception:
            # The decision is made. A fault here must not change the answer.
            _LOG.exception("decision.not_recorded")
        return hex_id

    def publish(self, most: int = RECORDS) -> None:
        """Write decisions that were remembered to the board, the oldest first.

        Args:
            most: how many; the others stay for the next call.
        """
        for _ in range(min(most, len(self._kept))):
            kept = self._kept.popleft()
            try:
                id = bytes.fromhex(kept.hex_id.decode())
                self._board.write(self._first + self._next, id, _describe(kept))
            except Exception:
                # The task that publishes has other work; a record is not worth it.
                _LOG.exception("decision.not_published")
            self._next = (self._next + 1) % RECORDS

    def find(self, decision_id: str) -> DecisionRecord | None:
        """Return the record of a decision of any worker.

        Decisions of other workers are found once those have published them.

        Returns:
            None when the id is unknown, or too old.
        """
        try:
            id = bytes.fromhex(decision_id)
        except ValueError:
            return None
        if len(id) != _ID_BYTES:
            return None
        hex_id = id.hex().encode()
        for kept in self._kept:
            if kept.hex_id == hex_id:
                return _describe(kept)
        return self._board.find(id)


def _make_ids() -> list[bytes]:
    """Return unused ids, each as 16 hexadecimal digits."""
    pool, size = os.urandom(_IDS_AT_ONCE * _ID_BYTES).hex().encode(), 2 * _ID_BYTES
    return [pool[start : start + size] for start in range(0, len(pool), size)]


def digest_of(policies: PolicyBook) -> str:
    """Return enough of the digests of policies and issuers to tell them from others."""
    if policies.issuers_digest:
        return policies.digest[:8] + policies.issuers_digest[:8]
    return policies.digest[:16]


def _describe(kept: _Kept) -> DecisionRecord:
    outcome = kept.outcome
    route, policy, rule = outcome.route, outcome.policy, outcome.rule
    if isinstance(outcome, Refused):
        decision, reason = "deny", outcome.reason.value
    else:
        decision = decision_of(outcome.answer)
        reason = outcome.shadowed.value if outcome.shadowed else ""
    return DecisionRecord(
        decided_at=kept.decided_at,
        decision=decision,
        reason=reason,
        dialect=route.dialect.name if route is not None else "",
        policy=policy.name[:_NAME_CHARS] if policy is not None else "",
        rule=rule.number if rule is not None else 0,
        issuer=_issuer_of(outcome),
        kid=outcome.kid,
        epoch=kept.epoch or "",
        position=kept.position,
        fresh_for=round(kept.fresh_for, 3),
        policies=digest_of(kept.policies),
        checks=pack_checks(outcome, int(kept.decided_at)),
    )


def _issuer_of(outcome: Allowed | Refused) -> str:
    """Return the name of the issuer that signed the token, as far as that is known."""
    policy = outcome.policy
    if policy is None or not outcome.kid:
        return ""
    if outcome.claims is not None:
        return policy.token.terms_of(outcome.claims.iss).name
    return "" if policy.token.sole is None else policy.token.sole.name
