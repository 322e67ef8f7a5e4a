"""The budgets of one port, each with its reason (R40, R44, R46)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Limits:
    """What connections of one port may cost. Times are in seconds.

    Attributes:
        connections: in all; more are answered 503 and closed.
        share_for_others: one peer gets all connections but this share (a tenth for 10):
            a client that leaks connections leaves some to the others.
        head_bytes: of one head: request line, headers and the empty line. A token is at
            most 8,000 of them.
        headers: of one head. Gateways send up to 60.
        target_bytes: RFC 9112, section 3, asks for 8,000 at least.
        head_time: from a head's first byte, or from the connection's begin, to the
            head's end.
        idle_time: without a request; above the 60 s of gateways and verifiers, so that
            they close first.
        body_bytes: of one body, announced or as it comes, also where no route limits
            it.
        body_time: to the end of a body, beside what `body_rate` grants.
        body_rate: bytes a second that a body must bring after that.
        bodies_in_all: bytes of the bodies of unanswered requests, of all connections:
            an application holds them until the answer.
        framing_bytes: of chunk extensions and chunk sizes, beside 20 for each chunk,
            which is the longest size there is. The parser drops them without counting.
        read_bytes: of one read. Requests after one that is not answered yet wait in
            it, and nothing more is read until then. No gateway sends any.
        unread_time: in which the peer must take `unread_step` bytes of waiting answers,
            or all of them; otherwise the connection is aborted, because a close would
            wait for ever.
        unread_step: see `unread_time`.
        unread_in_all: bytes of waiting answers of all peers that do not take them at
            once. Beyond that the peers that have taken nothing for longest are aborted.
        unread_beside: added to that sum for each of them: the memory that waits with
            an answer, which is its request, the application's frames and one read of
            further requests.
        unread_patience: a peer that took some within that time is aborted only at twice
            that sum.
        discard_bytes: read and dropped after the last answer, so that the peer reads
            it before a reset destroys it (RFC 9112, section 9.6).
        discard_time: for that.
        ending: connections that are being ended. One more aborts the oldest.
    """

    connections: int = 1_000
    share_for_others: int = 10
    head_bytes: int = 16_384
    headers: int = 100
    target_bytes: int = 8_192
    head_time: float = 10.0
    idle_time: float = 75.0
    body_bytes: int = 65_536
    body_time: float = 10.0
    body_rate: int = 1_024
    bodies_in_all: int = 4_194_304
    framing_bytes: int = 4_096
    read_bytes: int = 16_384
    unread_time: float = 20.0
    unread_step: int = 16_384
    unread_in_all: int = 3_145_728
    unread_beside: int = 32_768
    unread_patience: float = 0.25
    discard_bytes: int = 65_536
    discard_time: float = 1.0
    ending: int = 128


#: For a port that operators, their probes and Prometheus ask: few, and with small
#: bodies.
OPERATORS: Final = Limits(connections=256)
