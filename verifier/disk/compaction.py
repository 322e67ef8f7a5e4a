"""Rewrites a disk copy without what is past, while requests go on.

The new file is made beside the old one and takes its name in one step; until then it
counts for nothing. What is appended to the old file meanwhile is carried over as well.
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
from verifier.disk.copy_format import CopyDamagedError, Kind, RecordReader
from verifier.disk.disk_copy import ROWS_AT_ONCE, DiskCopy

_LOG: Final = logging.getLogger(__name__)
_PERIOD: Final = 1.0
#: Seconds until it is tried again when it failed: a full disk stays full for a while.
_RETRY: Final = 60.0


async def keep_compact(
    copy: DiskCopy,
    live_entries: Callable[[], int],
    now: Callable[[], int],
    sleep: Callable[[float], Awaitable[None]],
) -> None:
    """Compact the copy for ever, each time most of it is past.

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
            # The disk gives back something else than it took: nobody may rely on it.
            copy.lose(error)


async def compact(copy: DiskCopy, now: int) -> None:
    """Rewrite the copy without the entries that no token alive at `now` needs.

    Args:
        copy: a copy that is kept.
        now: Unix seconds.

    Raises:
        OSError: when the new file could not be made; the old one stays in use.
        CopyDamagedError: when the old one cannot be read any more.
    """
    old = copy.file
    if old is None:
        return
    before = old.length
    # What an earlier try left behind; the name is ours as long as the lock is.
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
    # No pause between the last look at the length and the return: nothing is appended
    # behind our back.
    while reader.offset < old.length:
        for record in reader.records(old.length):
            if record.kind is Kind.ENTRIES:
                rows += living_rows(record.payload, now)
            while len(rows) >= ROWS_AT_ONCE:
                new.append(Kind.ENTRIES, rows[:ROWS_AT_ONCE])
                del rows[:ROWS_AT_ONCE]
            await asyncio.sleep(0)
            if copy.file is not old:
                raise OSError("the copy was lost meanwhile")
    if rows:
        new.append(Kind.ENTRIES, rows)


def living_rows(payload: bytes, now: int) -> list[Any]:
    """Return the rows of a record that could still concern a token alive at `now`."""
    least = now - PRUNE_MARGIN
    return [row for row in orjson.loads(payload) if row[4] >= least]
