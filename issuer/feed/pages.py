"""Encoded pages of the feed; requests that ask the same at the same time share one
read.
"""

from __future__ import annotations

from typing import NamedTuple

from issuer.feed.feed import RevocationFeed
from issuer.storage.shared_reads import SharedReads
from shared.feed import encode_page


class PageRequest(NamedTuple):
    """Which page a follower asks for."""

    epoch: str
    after: int
    limit: int


class EncodedPage(NamedTuple):
    """A page as it is sent."""

    body: bytes
    is_empty: bool


class FeedPages:
    """Reads pages of the feed.

    Args:
        feed: has the pages.
    """

    def __init__(self, feed: RevocationFeed) -> None:
        self._feed = feed
        self._reads: SharedReads[PageRequest, EncodedPage] = SharedReads()

    async def read(self, wanted: PageRequest) -> EncodedPage:
        """Return a page.

        Raises:
            ConflictError: for another epoch, or a position that was never given out.
            UnavailableError: when the database is away.
        """

        async def read_page() -> EncodedPage:
            page = await self._feed.page(*wanted)
            # Pruned entries leave an empty page that still moves the follower on.
            return EncodedPage(encode_page(page), page.to == page.after)

        return await self._reads.get(wanted, read_page)
