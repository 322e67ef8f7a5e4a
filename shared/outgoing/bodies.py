"""The body of an answer, decoded and bounded for any Content-Encoding.

A kilobyte of gzip can decode to a megabyte, and gzip within gzip to a gigabyte. The
client library decodes it all before its size can be checked. Here a piece has at
most `PIECE_BYTES`, and only one encoding is accepted.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, suppress
from typing import Final

import httpx

from shared.outgoing.failures import FailureKind

#: Bytes that are decoded in one step.
PIECE_BYTES: Final = 65_536
#: Bytes that are read at most for the beginning of a body, encoded and decoded.
MAX_SKIPPED: Final = 1_048_576
#: The value of Accept-Encoding: only what can be decoded here.
ACCEPT_ENCODING: Final = "gzip"
#: zlib's window, for gzip with its header and checksum.
_GZIP: Final = 16 + zlib.MAX_WBITS


class BodyError(Exception):
    """A body cannot be used.

    Attributes:
        kind: `TOO_LARGE`, `BAD_ENCODING` or `CLOSED_EARLY`.
    """

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def _see_nothing(_size: int) -> None:
    """Ignore the arrival of a packet."""


async def read_pieces(
    response: httpx.Response,
    max_bytes: int,
    see_arrival: Callable[[int], None] = _see_nothing,
) -> AsyncGenerator[bytes, None]:
    """Yield a body, decoded, in pieces of `PIECE_BYTES` at most.

    Other tasks run between two pieces, also when both came in one packet, because a
    small packet may decode to hundreds of pieces.

    Args:
        response: an answer with a body that was not read yet.
        max_bytes: of the body at most, encoded and decoded.
        see_arrival: gets the bytes of each packet as it came, before it is decoded.

    Raises:
        BodyError: when it is larger, or not decoded by gzip alone.
        httpx.HTTPError: the body is incomplete.
    """
    decoder = _decoder_of(response)
    came = size = 0
    async for raw in response.aiter_raw():
        came += len(raw)
        see_arrival(len(raw))
        if came > max_bytes:
            raise _too_large(max_bytes)
        for piece in decoder.decode(raw):
            size += len(piece)
            if size > max_bytes:
                raise _too_large(max_bytes)
            yield piece
            await asyncio.sleep(0)
    decoder.end()


async def read_beginning(response: httpx.Response, size: int) -> bytes:
    """Return the beginning of a body, decoded; empty if it cannot be decoded.

    Args:
        response: an answer with a body that was not read yet.
        size: bytes to return at most; the rest is not read.

    Raises:
        httpx.HTTPError: no body arrives.
    """
    begin = bytearray()
    with suppress(BodyError):
        async with aclosing(read_pieces(response, MAX_SKIPPED)) as pieces:
            async for piece in pieces:
                begin += piece
                if len(begin) >= size:
                    break
    return bytes(begin[:size])


class _Plain:
    """A body without encoding."""

    def decode(self, raw: bytes) -> Iterator[bytes]:
        yield raw

    def end(self) -> None:
        """Accept the end at any point, because HTTP checks the length."""


class _Gzip:
    """One gzip stream (RFC 1952)."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(_GZIP)

    def decode(self, raw: bytes) -> Iterator[bytes]:
        if self._stream.eof:
            raise BodyError(
                FailureKind.BAD_ENCODING, "bytes follow the end of the gzip"
            )
        while True:
            try:
                piece = self._stream.decompress(raw, PIECE_BYTES)
            except zlib.error as error:
                raise BodyError(FailureKind.BAD_ENCODING, f"gzip: {error}") from None
            raw = self._stream.unconsumed_tail
            if piece:
                yield piece
            if not raw and len(piece) < PIECE_BYTES:
                break
        if self._stream.unused_data:
            raise BodyError(
                FailureKind.BAD_ENCODING, "bytes follow the end of the gzip"
            )

    def end(self) -> None:
        if not self._stream.eof:
            raise BodyError(FailureKind.CLOSED_EARLY, "the gzip stream is cut off")


def _decoder_of(response: httpx.Response) -> _Plain | _Gzip:
    named = response.headers.get("content-encoding", "").lower().split(",")
    encodings = [
        name for part in named if (name := part.strip()) not in {"", "identity"}
    ]
    if not encodings:
        return _Plain()
    if encodings in (["gzip"], ["x-gzip"]):
        return _Gzip()
    raise BodyError(FailureKind.BAD_ENCODING, "it is not gzip, which was asked for")


def _too_large(max_bytes: int) -> BodyError:
    return BodyError(FailureKind.TOO_LARGE, f"the answer is over {max_bytes} bytes")
