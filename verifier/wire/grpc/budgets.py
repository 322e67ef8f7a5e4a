"""The bounds of the gRPC port, each with its reason (R40, R44)."""

from __future__ import annotations

from typing import Final

#: Bytes of one check. Envoy passes on at most 60 KiB of headers unless its config says
#: otherwise.
MESSAGE_BYTES: Final = 65_536
#: Headers of one check: the 100 that Envoy takes of a client, and its own.
HEADERS: Final = 128
#: Seconds in which the message of a call must arrive. Envoy sends it with the call.
MESSAGE_TIME: Final = 5.0
#: Calls that wait for their message, of all peers; one peer has nine tenths. More are
#: refused at once.
CALLS: Final = 1_000
#: Streams of one connection; Envoy opens another connection for more.
STREAMS: Final = 256
#: Bytes of the metadata of a call. Envoy sends about 300.
METADATA_BYTES: Final = 8_192
#: Seconds after which an idle connection is closed, with GOAWAY, as on the HTTP port.
IDLE_TIME: Final = 75.0
#: Seconds after which any connection is closed, with GOAWAY, and the seconds that its
#: calls have then. The system spreads new connections over the workers, so the load is
#: spread anew.
CONNECTION_TIME: Final = 600.0
CONNECTION_GRACE: Final = 10.0
#: Seconds between two pings of an idle connection, and until an unanswered one ends it:
#: a peer that vanished holds no connection.
PING_PERIOD: Final = 30.0
PING_TIMEOUT: Final = 10.0
#: Seconds between two pings of a peer, at least.
PEER_PING_PERIOD: Final = 1.0
#: Seconds in which a new connection must have begun to speak HTTP/2.
HANDSHAKE_TIME: Final = 5.0
