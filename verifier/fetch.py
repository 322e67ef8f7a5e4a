"""The network edge of `sync.py`: one HTTP GET, bounded in time and size.

URLs come from configuration only, redirects are not followed, and no proxy is taken from
the environment (R21).
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

import httpx

#: Seconds to connect, and to wait beyond what the server was asked to hold.
CONNECT_TIMEOUT = 2.0
READ_TIMEOUT = 5.0


class FetchError(Exception):
    """A source did not answer as it should; the message is fit for a log."""


class Fetched(NamedTuple):
    """An answer.

    Attributes:
        status: HTTP status.
        headers: names in lower case.
        body: the whole body.
        sent_at: monotonic seconds when the request was sent: what the answer says was
            true then or later, so age is counted from here.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    sent_at: float


#: `fetch(url, headers, hold, max_bytes)`; `hold` is how long the server may wait.
Fetch = Callable[[str, Mapping[str, str], float, int], Awaitable[Fetched]]


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
        self, url: str, headers: Mapping[str, str], hold: float, max_bytes: int
    ) -> Fetched:
        """Get `url`.

        Raises:
            FetchError: when there is no whole answer within the limits.
        """
        sent_at = time.monotonic()
        timeout = httpx.Timeout(READ_TIMEOUT + hold, connect=CONNECT_TIMEOUT)
        try:
            async with self._client.stream(
                "GET", url, headers=dict(headers), timeout=timeout
            ) as response:
                chunks, size = [], 0
                async for chunk in response.aiter_bytes():
                    size += len(chunk)
                    if size > max_bytes:
                        raise FetchError(f"the answer is over {max_bytes} bytes")
                    chunks.append(chunk)
        except httpx.HTTPError as error:
            raise FetchError(f"{type(error).__name__}: no answer") from error
        body = b"".join(chunks)
        return Fetched(response.status_code, response.headers, body, sent_at)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
