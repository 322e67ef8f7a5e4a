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
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import orjson

from verifier.check.answers import decision_of
from verifier.check.decision import Allowed, Refused
from verifier.sync.sync import FeedFollower

_LOG: Final = logging.getLogger(__name__)
#: Records per worker. A flood of refusals replaces all of them within a second.
RECORDS: Final = 1_000
_RECORD_BYTES: Final = 512
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
        kid: the key of ours that signed the token; empty when that is not known.
        epoch: of the feed position.
        position: the feed position in force.
        fresh_for: seconds for which the revocations were still fresh; below 0 when they
            were not.
    """

    decided_at: float
    decision: str
    reason: str
    dialect: str
    policy: str
    rule: int
    kid: str
    epoch: str
    position: int
    fresh_for: float


class DecisionBoard:
    """The records of all workers; create it before the workers are forked.

    Args:
        slots: the number of workers that may live at a time.
    """

    def __init__(self, slots: int) -> None:
        self._records = slots * RECORDS
        self._memory = mmap.mmap(-1, self._records * _RECORD_BYTES)

    def write(self, number: int, id: bytes, record: DecisionRecord) -> None:
        """Write a record, in place of the one with this number."""
        body = orjson.dumps(tuple(record))
        if len(body) > _RECORD_BYTES - _JSON_AT:
            return
        packed = id + len(body).to_bytes(2, "little") + body
        start = number * _RECORD_BYTES
        checked = zlib.crc32(packed).to_bytes(4, "little") + packed
        self._memory[start : start + len(checked)] = checked

    def find(self, id: bytes) -> DecisionRecord | None:
        """Return the record of this id; None when there is none, or none any more."""
        for number in range(self._records):
            start = number * _RECORD_BYTES
            at = start + _ID_AT
            if self._memory[at : at + _ID_BYTES] == id:
                record = _read(self._memory[start : start + _RECORD_BYTES])
                if record is not None:
                    return record
        return None


def _read(packed: bytes) -> DecisionRecord | None:
    """Return the record; None when another worker is writing it."""
    size = int.from_bytes(packed[_SIZE_AT:_JSON_AT], "little")
    checked = packed[_ID_AT : _JSON_AT + size]
    if zlib.crc32(checked) != int.from_bytes(packed[:_ID_AT], "little"):
        return None
    fields: list[Any] = orjson.loads(packed[_JSON_AT : _JSON_AT + size])
    return DecisionRecord(*fields)


class DecisionLog:
    """Keeps the decisions of one worker.

    `record` is called for every refusal, so it only remembers; `publish` writes what
    was remembered to the board.

    Args:
        board: shared by all workers.
        slot: of this worker.
        feed: has the feed position in force.
        fresh_for: gives the seconds for which the revocations are fresh.
        now: gives Unix seconds.
    """

    def __init__(
        self,
        board: DecisionBoard,
        slot: int,
        feed: FeedFollower,
        fresh_for: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self._board = board
        self._first = slot * RECORDS
        self._next = 0
        self._feed = feed
        self._fresh_for = fresh_for
        self._now = now
        self._ids: list[bytes] = []
        self._kept: deque[tuple[bytes, DecisionRecord]] = deque(maxlen=RECORDS)

    def record(self, outcome: Allowed | Refused) -> bytes:
        """Remember a decision; never raise.

        Returns:
            Its id: 16 hexadecimal digits, ASCII. It is random, so it says nothing
            about other decisions.
        """
        if not self._ids:
            pool = os.urandom(_IDS_AT_ONCE * _ID_BYTES)
            starts = range(0, len(pool), _ID_BYTES)
            self._ids = [pool[start : start + _ID_BYTES] for start in starts]
        id = self._ids.pop()
        try:
            self._kept.append((id, self._describe(outcome)))
        except Exception:
            # The decision is made. A fault here must not change the answer.
            _LOG.exception("decision.not_recorded")
        return id.hex().encode()

    def publish(self, most: int = RECORDS) -> None:
        """Write decisions that were remembered to the board, the oldest first.

        Args:
            most: how many; the others stay for the next call.
        """
        for _ in range(min(most, len(self._kept))):
            id, record = self._kept.popleft()
            self._board.write(self._first + self._next, id, record)
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
        self.publish()
        return self._board.find(id)

    def _describe(self, outcome: Allowed | Refused) -> DecisionRecord:
        route, policy, rule = outcome.route, outcome.policy, outcome.rule
        if isinstance(outcome, Refused):
            decision, reason = "deny", outcome.reason.value
        else:
            decision = decision_of(outcome.answer)
            reason = outcome.shadowed.value if outcome.shadowed else ""
        return DecisionRecord(
            decided_at=self._now(),
            decision=decision,
            reason=reason,
            dialect=route.dialect.name if route is not None else "",
            policy=policy.name[:_NAME_CHARS] if policy is not None else "",
            rule=rule.number if rule is not None else 0,
            kid=outcome.kid,
            epoch=self._feed.epoch or "",
            position=self._feed.position,
            fresh_for=round(self._fresh_for(), 3),
        )
