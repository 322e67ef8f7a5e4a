"""The bounds of one connection in every state, each with its reason (R40, R44, R47)."""

from __future__ import annotations

from typing import Final

#: Bytes of one head: request line, headers and the empty line. A token is at most 8,000
#: of them, and nginx passes on at most 32,768 of which it keeps single lines to 8,192.
HEAD_BYTES: Final = 16_384
#: Headers of one head. Gateways send up to 60; each costs a call of the parser.
HEADERS: Final = 100
#: Bytes of a target: RFC 9112, section 3, asks for 8,000 at least.
TARGET_BYTES: Final = 8_192
#: Seconds from a head's first byte, or from the connection's begin, to the head's end.
HEAD_TIME: Final = 5.0
#: Seconds a connection stays without a request; above the 60 s of nginx, so that the
#: gateway closes first and no check meets a connection that is being closed.
IDLE_TIME: Final = 75.0
#: Bytes of answers that may wait here for the peer to read them, beside what the system
#: keeps for it; beyond that no request is read.
UNREAD_BYTES: Final = 8_192
#: Seconds in which a peer that reads no answers must take some; then it is aborted.
UNREAD_TIME: Final = 5.0
#: Bytes and seconds that are read over behind the last answer, so that the peer reads it
#: before a reset destroys it (RFC 9112, section 9.6). Bodies, chunk extensions and
#: trailers are counted here, for none is ever parsed.
DISCARD_BYTES: Final = 65_536
DISCARD_TIME: Final = 1.0
#: Bytes of requests that wait for the next turn. No gateway sends a check before the one
#: in front of it was answered; a peer that has sent more gets one last answer. With 200
#: such peers, what waits both ways adds 8 MB.
KEPT_BYTES: Final = 32_768
#: Bytes the system may hold of one TCP connection before we read them. It brings one and a
#: half times as many in a read: less than may be kept, so a TCP peer that sends faster
#: than it is answered is slowed down and not ended. A unix socket holds what the sender's
#: buffer does. Without it uvloop reads 256,000 bytes at once.
RECEIVE_BUFFER: Final = 16_384
#: Checks of one connection in one turn of the event loop. No gateway sends the next
#: check before it has the answer, so few cost none of them anything. 200 connections
#: that do added 14.5 ms to the median of good checks (p99 192 ms) with 16, 4.6 (40) with
#: 4, 1.7 (14) with 1: `python -m loadtests.bench_attack`, medians of three rounds.
CHECKS_PER_TURN: Final = 4
#: One peer gets all connections but this share of them: a gateway that leaks connections
#: leaves some to the others.
SHARE_FOR_OTHERS: Final = 10
#: Seconds between two log lines about refused peers.
LOG_PERIOD: Final = 10.0
