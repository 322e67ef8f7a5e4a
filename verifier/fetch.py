"""The network edge of `sync.py`: one HTTP GET, bounded in time and size.

URLs come from configuration only, redirects are not followed, and no proxy is taken from
the environment (R21).
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Final, NamedTuple, Protocol

import httpx

from shared.feed import LINES_TYPE
from verifier.clock import boottime

#: Seconds to connect, and to wait beyond what the server was asked to hold.
CONNECT_TIMEOUT = 2.0
READ_TIMEOUT = 5.0
#: Of an answer in lines: a page of 10,000 entries with the longest keys.
MAX_LINE_BYTES: Final = 4 * 1_048_576


class FetchError(Exception):
    """A source did not answer as it should; the message is fit for a log."""


class Fetched(NamedTuple):
    """An answer.

    Attributes:
        status: HTTP status.
        headers: names in lower case.
        body: the whole body.
        sent_at: `boottime` seconds when the request was sent: what the answer says was
            true then or later, so age is counted from here.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    sent_at: float


#: Takes a line of an answer, without its end, and when the answer was asked for.
TakeLine = Callable[[bytes, float], Awaitable[None]]


class Fetch(Protocol):
    """Fetches; `HttpSource.fetch` does it over the network."""

    async def __call__(
        self,
        url: str,
        headers: Mapping[str, str],
        hold: float,
        max_bytes: int,
        take_line: TakeLine | None = None,
    ) -> Fetched:
        """Get `url`.

        Args:
            url: what to get.
            headers: the request's.
            hold: seconds the server may wait before it answers.
            max_bytes: of the body at most.
            take_line: takes the lines of an answer of `LINES_TYPE` as they come; such
                an answer's `body` is empty.
        """


class HttpSource:
    """Fetches over one kept connection.

    Args:
        ca_file: PEM file of the authorities to trust; the system's when None.
    """

    def __init__(self, ca_file: str | None = None) -> None:
        self._client = httpx.AsyncClient(
            verify=ssl.create_default_context(cafile=ca_file),
            trust_env=False,
            follow_redirects=False,
            limits=httpx.Limits(max_connections=2, max_keepalive_connections=2),
        )

    async def fetch(
        self,
        url: str,
        headers: Mapping[str, str],
        hold: float,
        max_bytes: int,
        take_line: TakeLine | None = None,
    ) -> Fetched:
        """Get `url`; see `Fetch`.

        Raises:
            FetchError: when there is no whole answer within the limits.
            Exception: whatever `take_line` raises.
        """
        sent_at = boottime()
        timeout = httpx.Timeout(READ_TIMEOUT + hold, connect=CONNECT_TIMEOUT)
        try:
            async with self._client.stream(
                "GET", url, headers=dict(headers), timeout=timeout
            ) as response:
                chunks = _bounded(response.aiter_bytes(), max_bytes)
                if take_line is not None and _is_in_lines(response):
                    await _hand_on(chunks, take_line, sent_at)
                body = b"".join([chunk async for chunk in chunks])
        except httpx.HTTPError as error:
            raise FetchError(f"{type(error).__name__}: no answer") from error
        return Fetched(response.status_code, response.headers, body, sent_at)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


async def _bounded(
    chunks: AsyncIterator[bytes], max_bytes: int
) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > max_bytes:
            raise FetchError(f"the answer is over {max_bytes} bytes")
        yield chunk


def _is_in_lines(response: httpx.Response) -> bool:
    content_type: str = response.headers.get("content-type", "")
    return response.status_code == 200 and content_type.startswith(LINES_TYPE)


async def _hand_on(
    chunks: AsyncIterator[bytes], take_line: TakeLine, sent_at: float
) -> None:
    # The line that has not ended yet, in pieces: joined once, however small they are.
    pieces: list[bytes] = []
    held = 0
    async for chunk in chunks:
        *ends, rest = chunk.split(b"\n")
        if ends:
            lines = [b"".join([*pieces, ends[0]]), *ends[1:]]
            pieces, held = [], 0
            for line in lines:
                await take_line(line, sent_at)
        pieces.append(rest)
        held += len(rest)
        if held > MAX_LINE_BYTES:
            raise FetchError(f"a line is over {MAX_LINE_BYTES} bytes")
    if held:
        raise FetchError("the answer ends within a line")
