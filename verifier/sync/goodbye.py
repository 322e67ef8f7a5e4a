"""A clean stop ends our lease, so that no confirmation waits for it to run out.

The order matters (docs/revocation.md): first no 200 is answered any more, then the age
of the disk copy is void, then the issuer is informed. If one step fails, the later ones
are left out, and the lease runs out as if this process had been killed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from shared.feed import FOLLOWER_HEADER, FOLLOWER_REPLACES_HEADER, GOODBYE_PATH
from shared.log import event
from verifier.check.trust import Trust
from verifier.disk.disk_copy import DiskCopy
from verifier.sync.feed import FeedFollower, FeedSource
from verifier.sync.fetch import Fetched, FetchError, unexpected

_LOG: Final = logging.getLogger(__name__)
#: Seconds that this adds to a stop at most.
GOODBYE_TIMEOUT: Final = 2.0
#: The other side may have closed a kept connection; the second attempt opens a new one.
_ATTEMPTS: Final = 2

#: Posts no body to a URL with these headers; may raise FetchError.
Post = Callable[[str, Mapping[str, str]], Awaitable[Fetched]]


def stop_answering(trust: Trust, abort_connections: Callable[[], None]) -> None:
    """End the trust and every connection, so that no 200 leaves any more.

    Connections that did not end in their time are aborted. A check that arrives all the
    same is refused: the trust has no keys, and cannot get new ones.
    """
    trust.end()
    abort_connections()


async def say_goodbye(
    feed: FeedFollower,
    copy: DiskCopy,
    post: Post,
    *,
    patience: float = GOODBYE_TIMEOUT,
) -> None:
    """Void the age of the copy and end our lease, unless the issuer is unreachable.

    While the issuer is unreachable the copy keeps its age: the next process may answer
    from it under our lease, as after a crash.

    Args:
        feed: must not be followed any more.
        copy: the disk copy of this process.
        post: sends the request.
        patience: seconds after which it gives up.
    """
    if feed.status.failures:
        return
    if not copy.void_age():
        return
    try:
        async with asyncio.timeout(patience):
            await _post(feed.source, feed.replaces, post)
    except (FetchError, TimeoutError) as error:
        # The lease runs out by itself.
        event(_LOG, logging.WARNING, "feed.goodbye_failed", error=str(error))
    else:
        event(_LOG, logging.INFO, "feed.goodbye", follower=feed.source.follower_id)


async def _post(source: FeedSource, replaces: tuple[str, ...], post: Post) -> None:
    url = source.url + GOODBYE_PATH
    headers = {
        "Authorization": f"Bearer {source.token}",
        FOLLOWER_HEADER: source.follower_id,
    }
    if replaces:
        headers[FOLLOWER_REPLACES_HEADER] = ",".join(replaces)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            answer = await post(url, headers)
        except FetchError:
            if attempt == _ATTEMPTS:
                raise
        else:
            if answer.status != 204:
                raise unexpected(answer, url)
            return
