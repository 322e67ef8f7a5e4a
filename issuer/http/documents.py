"""Documents that are equal for all clients: in memory once for all answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

#: Bytes sent at a time: the most that is buffered for a slow client. Two pieces are not
#: copied together (`shared/serving/writes.py`).
PIECE: Final = 16_384


def cut(content: bytes) -> tuple[bytes, ...]:
    """Return the content in pieces of at most `PIECE` bytes."""
    return tuple(content[at : at + PIECE] for at in range(0, len(content), PIECE))


class Document:
    """One document, cut once into the pieces of every answer.

    Built for each answer, the OpenAPI document took 127 KB for each client that did not
    read it, and the heap did not shrink: 28 MB after 200 such clients (R44).

    Args:
        pieces: the whole document, as `cut` returns it.
        headers: of its answers, in addition to `Content-Length`.
    """

    def __init__(self, pieces: tuple[bytes, ...], headers: Mapping[str, str]) -> None:
        length = sum(map(len, pieces))
        self._headers = {**headers, "Content-Length": str(length)}
        self._pieces = pieces

    def answer(self) -> Response:
        """Return an answer with the document."""
        return _Pieces(self._pieces, self._headers)


class _Pieces(Response):
    """Sends the pieces without copies.

    Starlette's streaming makes two tasks for each answer, one of which waits for the
    client's disconnect: 50 KB. Here the few pieces after a disconnect are dropped.
    """

    def __init__(self, pieces: tuple[bytes, ...], headers: Mapping[str, str]) -> None:
        super().__init__(headers=headers)
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send head and pieces."""
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        for piece in self._pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
