"""The bounds of one connection in every state, each with its reason (R40, R44, R47)."""

from __future__ import annotations

from typing import Final

#: Bytes of one head: request line, headers and the empty line. A token has at most
#: 8,000. nginx passes on at most 32,768, with lines of at most 8,192.
HEAD_BYTES: Final = 16_384
#: Headers of one head. Gateways send up to 60; each costs a parser callback.
HEADERS: Final = 100
#: Bytes of a target; RFC 9112, section 3, recommends 8,000 at least.
TARGET_BYTES: Final = 8_192
#: Seconds from the first byte of a head, or from the accept, to the end of the head.
HEAD_TIME: Final = 5.0
#: Seconds an idle connection is kept. It is more than the 60 s of nginx, so the gateway
#: closes first, and no check is sent on a connection that is being closed.
IDLE_TIME: Final = 75.0
#: Bytes of answers that may wait here for the peer, besides the system's send buffer;
#: beyond that no request is read.
UNREAD_BYTES: Final = 8_192
#: Seconds after which a connection is aborted if its peer reads no answers.
UNREAD_TIME: Final = 5.0
#: Bytes and seconds of data discarded after the last answer, so that the peer can read
#: the answer before a reset destroys it (RFC 9112, section 9.6). Bodies, chunk
#: extensions and trailers count here, because none is ever parsed.
DISCARD_BYTES: Final = 65_536
DISCARD_TIME: Final = 1.0
#: Bytes of requests kept for the next turn. No gateway sends a check before the
#: previous one is answered; a peer that has sent more gets one last answer. 200 such
#: peers add 8 MB in both directions.
KEPT_BYTES: Final = 32_768
#: Bytes of the receive buffer of a TCP connection. One read returns up to one and a
#: half times as many, which is less than `KEPT_BYTES`. So a TCP peer that sends faster
#: than it is answered is slowed down, not ended. For a unix socket the sender's buffer
#: counts. Without this limit uvloop reads 256,000 bytes at once.
RECEIVE_BUFFER: Final = 16_384
#: Checks of one connection in one turn of the event loop. No gateway sends the next
#: check before it has the answer, so a small number slows none of them. 200 connections
#: that do send ahead added 14.5 ms to the median of good checks (p99 192 ms) with 16,
#: 4.6 (40) with 4, 1.7 (14) with 1: `python -m loadtests.bench_attack`, medians of
#: three rounds.
CHECKS_PER_TURN: Final = 4
#: One peer may have all connections but one in this many, so a gateway that leaks
#: connections leaves some to the others.
SHARE_FOR_OTHERS: Final = 10
#: Seconds between two log lines about refused peers.
LOG_PERIOD: Final = 10.0
