"""What counts for an attempt to log in: buckets of failures, as they were read. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple


class Proof(StrEnum):
    """What is being guessed; failures of each count apart."""

    PASSWORD = "password"  # noqa: S105
    CODE = "code"


@dataclass(frozen=True, slots=True)
class Bucket:
    """Failures that count together: their key, what it is called, how many are free."""

    key: bytes
    word: str
    free: int


class Count(NamedTuple):
    """What a bucket counts; `debt` is of failures that are to take others' turns."""

    failures: int
    blocked_until: int
    debt: int = 0


NO_FAILURES: Final = Count(0, 0)


@dataclass(frozen=True, slots=True)
class Standing:
    """What counts for one attempt, as it was read.

    Attributes:
        buckets: in which a failure would count, in the order of their keys.
        counts: by key, of those that have failures.
        proof: what is tried.
        source: the caller's network.
        noted_at: when the account's last login from there was noted; None: unknown.
        device: the bucket of a device that has logged in before; None: no such device.
    """

    buckets: tuple[Bucket, ...]
    counts: Mapping[bytes, Count]
    proof: Proof
    source: str
    noted_at: int | None
    device: Bucket | None = None

    def count(self, bucket: Bucket) -> Count:
        """Return what a bucket counted when it was read."""
        return self.counts.get(bucket.key, NO_FAILURES)


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that may be made, and is counted as a failure until it has succeeded.

    Attributes:
        standing: as it was read.
        counted: what its buckets count with it, by key.
        is_of_device: it counts in the device's bucket, and waited for no other.
    """

    standing: Standing
    counted: Mapping[bytes, Count]
    is_of_device: bool = False
