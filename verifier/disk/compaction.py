"""Rewrites a disk copy without expired entries, while requests are answered.

The new file is made beside the old one and takes its name in one step; before that it
does not count. Records appended to the old file meanwhile are copied as well.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson

from shared.log import event
from verifier.check.revocations import PRUNE_MARGIN
from verifier.disk.copy_file import NEW_SUFFIX, CopyFile
from verifier.disk.copy_format import CopyDamagedError, RecordKind, RecordReader
from verifier.disk.disk_copy import ROWS_AT_ONCE, DiskCopy

_LOG: Final = logging.getLogger(__name__)
_PERIOD: Final = 1.0
#: Seconds until the next attempt after a failure: a full disk stays full for a while.
_RETRY: Final = 60.0


async def keep_compact(
    copy: DiskCopy,
    live_entries: Callable[[], int],
    now: Callable[[], int],
    sleep: Callable[[float], Awaitable[None]],
) -> None:
    """Compact the copy each time most of it has expired, forever.

    Args:
        copy: the copy.
        live_entries: gives the number of entries in the index.
        now: gives Unix seconds.
        sleep: waits that many seconds.
    """
    pause = _PERIOD
    while True:
        await sleep(pause)
        pause = _PERIOD
        if copy.file is None or not copy.is_bloated(live_entries()):
            continue
        try:
            await compact(copy, now())
        except OSError as error:
            event(_LOG, logging.WARNING, "copy.not_compacted", error=str(error))
            pause = _RETRY
        except CopyDamagedError as error:
            # The disk returns other bytes than were written, so the copy is unreliable.
            copy.lose(error)


async def compact(copy: DiskCopy, now: int) -> None:
    """Rewrite the copy without the entries that no token alive at `now` needs.

    Args:
        copy: a copy that is kept.
        now: Unix seconds.

    Raises:
        OSError: when the new file could not be made; the old one stays in use.
        CopyDamagedError: when the old one cannot be read.
    """
    old = copy.file
    if old is None:
        return
    before = old.length
    # Left behind by an earlier attempt; the name is ours while we hold the lock.
    old.path.with_suffix(NEW_SUFFIX).unlink(missing_ok=True)
    new = CopyFile.create(old.path.parent, old.path.stem, copy.identity)
    try:
        await _carry_over(copy, old, new, now)
        copy.move_to(new)
    except BaseException:
        new.destroy()
        new.close()
        raise
    event(_LOG, logging.INFO, "copy.compacted", bytes=new.length, bytes_before=before)


async def _carry_over(copy: DiskCopy, old: CopyFile, new: CopyFile, now: int) -> None:
    reader = RecordReader(old.descriptor, old.key)
    rows: list[Any] = []
    # There is no `await` between the last check of the length and the return, so
    # nothing is appended unseen.
    while reader.offset < old.length:
        for record in reader.records(old.length):
            if record.kind is RecordKind.ENTRIES:
                rows += living_rows(record.payload, now)
            while len(rows) >= ROWS_AT_ONCE:
                new.append(RecordKind.ENTRIES, rows[:ROWS_AT_ONCE])
                del rows[:ROWS_AT_ONCE]
            await asyncio.sleep(0)
            if copy.file is not old:
                raise OSError("the copy was lost meanwhile")
    if rows:
        new.append(RecordKind.ENTRIES, rows)


def living_rows(payload: bytes, now: int) -> list[Any]:
    """Return the rows of a record that could still concern a token alive at `now`."""
    least = now - PRUNE_MARGIN
    return [row for row in orjson.loads(payload) if row[4] >= least]
