"""No caller gets the outcome of a read that began before its call."""

from __future__ import annotations

import asyncio

import pytest

from issuer.storage.shared_reads import SharedReads


class Source:
    """Gives 1, 2, ... each on request."""

    def __init__(self) -> None:
        self.begun = 0
        self.go_on = asyncio.Semaphore(0)

    async def read(self) -> int:
        self.begun += 1
        number = self.begun
        await self.go_on.acquire()
        return number


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_concurrent_callers_share_one_read() -> None:
    source, reads = Source(), SharedReads[str, int]()
    asking = [asyncio.create_task(reads.get("a", source.read)) for _ in range(100)]
    await turns()
    source.go_on.release()
    assert await asyncio.gather(*asking) == [1] * 100


async def test_a_caller_during_a_read_gets_the_next_one() -> None:
    source, reads = Source(), SharedReads[str, int]()
    first = asyncio.create_task(reads.get("a", source.read))
    await turns()
    assert source.begun == 1
    late = [asyncio.create_task(reads.get("a", source.read)) for _ in range(3)]
    await turns()
    assert source.begun == 1
    source.go_on.release()
    assert await first == 1
    source.go_on.release()
    assert await asyncio.gather(*late) == [2] * 3


async def test_other_keys_do_not_wait() -> None:
    source, reads = Source(), SharedReads[str, int]()
    asking = [asyncio.create_task(reads.get(key, source.read)) for key in "ab"]
    await turns()
    assert source.begun == 2
    source.go_on.release()
    source.go_on.release()
    await asyncio.gather(*asking)


async def test_one_that_leaves_takes_nobodys_read_along() -> None:
    source, reads = Source(), SharedReads[str, int]()
    leaving = asyncio.create_task(reads.get("a", source.read))
    staying = asyncio.create_task(reads.get("a", source.read))
    await turns()
    leaving.cancel()
    source.go_on.release()
    assert await staying == 1


async def test_a_failure_reaches_only_the_callers_that_share_the_read() -> None:
    reads = SharedReads[str, int]()

    async def fail() -> int:
        raise LookupError

    async def succeed() -> int:
        return 1

    failed = await asyncio.gather(
        *(reads.get("a", fail) for _ in range(2)), return_exceptions=True
    )
    assert [type(error) for error in failed] == [LookupError] * 2
    assert await reads.get("a", succeed) == 1
    with pytest.raises(LookupError):
        await reads.get("a", fail)
