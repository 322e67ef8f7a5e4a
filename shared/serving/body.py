"""The body of one request, within the port's budgets (R44)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shared.serving import heads

if TYPE_CHECKING:
    from shared.serving.port import Port
    from shared.serving.requests import Requests

#: Bytes of a chunked body that are read at a time; its framing is counted per piece.
_CHUNKED_PIECE: Final = 2_048
#: The longest framing of a chunk: 16 digits and two ends of line.
_CHUNK_FRAMING: Final = 20


class Body:
    """The body of the request under way; one object for all bodies of a connection.

    Args:
        port: the state that all connections of one port share.

    Attributes:
        held: bytes that the application may hold, counted in the port's sum.
    """

    def __init__(self, port: Port) -> None:
        self._port = port
        self._limits = port.limits
        self._framing = 0
        self._began_at = 0.0
        self.held = 0

    def begin(self, now: float) -> None:
        """Count anew, because the head of a request with a body was read.

        Args:
            now: seconds of the event loop.
        """
        self._framing = 0
        self._began_at = now

    def grant(self, seconds: float) -> None:
        """Give the peer more time, because the application took nothing meanwhile."""
        self._began_at += seconds

    def deadline(self, came: int) -> float:
        """Return the time of the event loop until which the rest may take.

        Args:
            came: bytes received; each extends the time.
        """
        return self._began_at + self._limits.body_time + came / self._limits.body_rate

    def read(self, requests: Requests, data: bytes) -> bytes:
        """Pass on a piece of the body; return the bytes that were not read.

        Raises:
            RefusedError: body or framing are too large, the bodies of all connections
                are, or the body ends elsewhere than its head says.
        """
        left = requests.left
        piece = data[: _CHUNKED_PIECE if left is None else left - requests.body_bytes]
        before = requests.body_bytes
        requests.read_body(piece)
        came = requests.body_bytes - before
        if left is None:
            self._count_framing(requests, len(piece) - came)
        if requests.body_bytes > self._limits.body_bytes:
            raise heads.RefusedError(heads.BODY_TOO_LARGE, "body")
        if requests.is_answering:
            self.held += came
            if not self._port.add_body(came):
                raise heads.RefusedError(heads.CROWDED, "bodies_in_all")
        if not requests.is_whole and left is not None and requests.body_bytes >= left:
            # The parser's end of the body differs from the head's.
            raise heads.RefusedError(heads.BAD_REQUEST, "malformed")
        return data[len(piece) :]

    def _count_framing(self, requests: Requests, size: int) -> None:
        self._framing += size
        granted = self._limits.framing_bytes + _CHUNK_FRAMING * requests.chunks
        if self._framing > granted:
            raise heads.RefusedError(heads.BODY_TOO_LARGE, "framing_bytes")

    def is_rest_short(self, requests: Requests) -> bool:
        """Return whether the rest of a body is worth reading, and will come."""
        left = requests.left
        return (
            left is not None
            and not requests.expects_continue
            and left - requests.body_bytes <= self._limits.discard_bytes
        )

    def release(self) -> None:
        """Subtract the held bytes from the port's sum."""
        self._port.remove_body(self.held)
        self.held = 0
