"""A copy is sealed with the new feed token, so that the next start can read it
(R59).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.feed import EntryKind
from tests.support.gatehouse_verifier import unstarted
from verifier.disk.compaction import keep_compact
from verifier.disk.copy_format import derive_key

KEY = derive_key("another feed token")


class EndOfTestError(Exception):
    """Ends a task that would run for ever."""


async def test_the_next_start_reads_entries_sealed_with_the_new_key(
    tmp_path: Path,
) -> None:
    first = unstarted()
    await first.start_from(tmp_path)
    first.issuer.revoke(EntryKind.SID, "a-session")
    await first.sync()
    first.copy.rekey(KEY)
    # Records before the rewrite are still sealed with the key before.
    first.issuer.revoke(EntryKind.SID, "another")
    await first.sync()
    sleeps = 0

    async def sleep(_seconds: float) -> None:
        nonlocal sleeps
        sleeps += 1
        if sleeps == 4:
            raise EndOfTestError

    with pytest.raises(EndOfTestError):
        await keep_compact(first.copy, lambda: 2, first.clock.now, sleep)
    file = first.copy.file
    assert file is not None
    assert file.key == KEY
    assert not first.copy.is_bloated(2)
    first.copy.close()
    second = unstarted(follower_id="0b7c9a1e-0000-4000-8000-000000000002")
    second.copy.rekey(KEY)
    await second.start_from(tmp_path)
    assert len(second.trust.snapshot.own.revocations) == 2
    assert second.feed.position == 2
