"""HTTP requests to the issuer, bounded in time and size.

URLs come from configuration only, redirects are not followed, and proxies in the
environment are ignored (R21).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import httpx

from shared.configuration.issuers_file import MAX_ISSUERS
from shared.feed import LINES_TYPE
from shared.outgoing.authorities import Authorities
from shared.outgoing.bodies import BodyError, read_beginning, read_pieces
from shared.outgoing.connections import Connections, Request
from shared.outgoing.failures import (
    EXCERPT_READ,
    TEXTS,
    FailureKind,
    excerpt,
    explain,
    shown_url,
)
from verifier.sync.clock import boottime
from verifier.sync.own_requests import sending

if TYPE_CHECKING:
    from shared.tracing.exporting import Spans

#: Seconds to connect, and to wait for data beyond the hold.
CONNECT_TIMEOUT: Final = 2.0
READ_TIMEOUT: Final = 5.0
#: Seconds an answer may take in total beyond the hold. A server that sends single bytes
#: slowly keeps each wait short, so the total needs a bound. A large answer gets more
#: time in proportion to the bytes received.
ANSWER_TIMEOUT: Final = 10.0
LEAST_BYTES_PER_SECOND: Final = 262_144
#: To one server at most: the feed, our keys, and those of each other issuer that is
#: there, so that none waits for another.
_MAX_CONNECTIONS: Final = 2 + MAX_ISSUERS
#: The longest line: a page of 10,000 entries with the longest keys.
MAX_LINE_BYTES: Final = 4 * 1_048_576
#: An answer that could be in lines but is not: it is kept and parsed as a whole.
MAX_UNLINED_BYTES: Final = 32 * 1_048_576


class FetchError(Exception):
    """A source did not answer as expected; the message may be logged.

    Attributes:
        kind: what went wrong.
        url: the URL without credentials.
        status: HTTP status; None without an answer.
    """

    def __init__(
        self,
        message: str,
        kind: FailureKind = FailureKind.FAILED,
        *,
        url: str = "",
        status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.url = shown_url(url)
        self.status = status


class Fetched(NamedTuple):
    """An answer.

    Attributes:
        status: HTTP status.
        headers: names in lower case.
        body: the whole body; empty when the status is not 200.
        sent_at: boot-time seconds at which the request was sent. The answer was true
            then or later, so its age counts from here.
        excerpt: the beginning of the body of another status, safe to log.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    sent_at: float
    excerpt: str = ""


#: Called with each line of an answer, without its end, and the send time.
TakeLine = Callable[[bytes, float], Awaitable[None]]


class Fetch(Protocol):
    """The signature of `HttpSource.fetch`."""

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
            url: the URL.
            headers: of the request.
            hold: seconds the server may wait before it answers.
            max_bytes: the largest body.
            take_line: called with the lines of an answer of `LINES_TYPE` as they come;
                the `body` is empty then. Any other answer may have `MAX_UNLINED_BYTES`.
        """


def unexpected(answer: Fetched, url: str) -> FetchError:
    """Return the error for an answer with an unexpected status."""
    kind, detail = FailureKind.STATUS, answer.excerpt
    # 304 has no address: a server sends it that was not asked for it.
    if 300 <= answer.status < 400 and answer.status != 304:
        kind = FailureKind.REDIRECT
        detail = f"to {shown_url(answer.headers.get('location', ''))}"
    message = f"{TEXTS[kind]}: status {answer.status}"
    if detail:
        message += f": {detail}"
    return FetchError(message, kind, url=url, status=answer.status)


class HttpSource:
    """Fetches over kept connections.

    Args:
        authorities: the certificate authorities for https.
        spans: of this process; None unless traces are asked for.
    """

    def __init__(self, authorities: Authorities, spans: Spans | None = None) -> None:
        self._spans = spans
        self._connections = Connections(authorities, max_connections=_MAX_CONNECTIONS)

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
            FetchError: when there is no complete answer within the limits.
            Exception: any error that `take_line` raises.
        """
        with sending("GET", url, self._spans) as own:
            answer = await self._fetch(
                url, {**headers, **own.headers}, hold, max_bytes, take_line
            )
            own.answered(answer.status)
        return answer

    async def _fetch(
        self,
        url: str,
        headers: Mapping[str, str],
        hold: float,
        max_bytes: int,
        take_line: TakeLine | None,
    ) -> Fetched:
        sent_at = boottime()
        timeout = httpx.Timeout(READ_TIMEOUT + hold, connect=CONNECT_TIMEOUT)
        request = Request("GET", url, headers, timeout)
        with _as_fetch_errors(url) as progress:
            async with (
                asyncio.timeout(ANSWER_TIMEOUT + hold) as deadline,
                self._connections.stream(request) as response,
            ):
                progress.has_head = True
                if response.status_code != 200:
                    return await _read_refusal(response, headers, sent_at)
                is_in_lines = take_line is not None and _is_in_lines(response)
                if take_line is not None and not is_in_lines:
                    max_bytes = min(max_bytes, MAX_UNLINED_BYTES)
                pieces = read_pieces(response, max_bytes, build_extension(deadline))
                if take_line is not None and is_in_lines:
                    await _hand_on(pieces, take_line, sent_at)
                body = b"".join([piece async for piece in pieces])
        return Fetched(response.status_code, response.headers, body, sent_at)

    async def post(self, url: str, headers: Mapping[str, str]) -> Fetched:
        """Send a POST without a body.

        Raises:
            FetchError: when there is no answer within the limits.
        """
        with sending("POST", url, self._spans) as own:
            answer = await self._post(url, {**headers, **own.headers})
            own.answered(answer.status)
        return answer

    async def _post(self, url: str, headers: Mapping[str, str]) -> Fetched:
        sent_at = boottime()
        timeout = httpx.Timeout(READ_TIMEOUT, connect=CONNECT_TIMEOUT)
        with _as_fetch_errors(url) as progress:
            async with (
                asyncio.timeout(ANSWER_TIMEOUT),
                self._connections.stream(
                    Request("POST", url, headers, timeout)
                ) as response,
            ):
                progress.has_head = True
                return await _read_refusal(response, headers, sent_at)

    async def renew_authorities(self) -> bool:
        """Read the authorities again; return whether they changed."""
        return await self._connections.renew_authorities()

    async def close(self) -> None:
        """Close the connections."""
        await self._connections.close()


@dataclass
class _Progress:
    """Progress of a request; `has_head`: the head of the answer was received."""

    has_head: bool = False


@contextmanager
def _as_fetch_errors(url: str) -> Iterator[_Progress]:
    """Turn network errors into `FetchError`."""
    progress = _Progress()
    try:
        yield progress
    except BodyError as error:
        raise FetchError(str(error), error.kind, url=url) from error
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
        kind, detail = explain(error, has_head=progress.has_head)
        message = f"{TEXTS[kind]}: {detail}" if detail else TEXTS[kind]
        raise FetchError(message, kind, url=url) from error


async def _read_refusal(
    response: httpx.Response, headers: Mapping[str, str], sent_at: float
) -> Fetched:
    """Read the beginning of an answer that is not 200: it often has the cause."""
    begin = await read_beginning(response, EXCERPT_READ)
    # A proxy's error page may repeat the credential (R35).
    _, _, secret = headers.get("Authorization", "").partition(" ")
    shown = excerpt(begin, [secret] if secret else [])
    return Fetched(response.status_code, response.headers, b"", sent_at, shown)


def build_extension(deadline: asyncio.Timeout) -> Callable[[int], None]:
    """Return a function that extends the deadline of an answer with each packet.

    It counts bytes on the wire, because a server can send many decoded bytes cheaply.
    """

    def extend(size: int) -> None:
        when = deadline.when()
        if when is not None:
            deadline.reschedule(when + size / LEAST_BYTES_PER_SECOND)

    return extend


def _is_in_lines(response: httpx.Response) -> bool:
    content_type: str = response.headers.get("content-type", "")
    return content_type.startswith(LINES_TYPE)


async def _hand_on(
    chunks: AsyncIterator[bytes], take_line: TakeLine, sent_at: float
) -> None:
    # The pieces of the unfinished line; joined once, so small pieces cost little.
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
            raise BodyError(
                FailureKind.TOO_LARGE, f"a line is over {MAX_LINE_BYTES} bytes"
            )
    if held:
        raise BodyError(FailureKind.CLOSED_EARLY, "the answer ends within a line")
