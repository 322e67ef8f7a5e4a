"""The buckets of failures of an attempt to log in, as they were read. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple


class Proof(StrEnum):
    """The kind of secret; failures of each kind are counted separately."""

    PASSWORD = "password"  # noqa: S105
    CODE = "code"


@dataclass(frozen=True, slots=True)
class Bucket:
    """Failures counted together: key, kind of bucket, number of free failures."""

    key: bytes
    word: str
    free: int


class Count(NamedTuple):
    """The count of a bucket; `debt` is the number of devices' failures to be
    charged.
    """

    failures: int
    blocked_until: int
    debt: int = 0


NO_FAILURES: Final = Count(0, 0)


@dataclass(frozen=True, slots=True)
class FailureCounts:
    """The buckets and counts of one attempt, as they were read.

    Attributes:
        buckets: that a failure would count in, in the order of their keys.
        counts: of buckets with failures, by key.
        proof: the kind of secret.
        source: the caller's network.
        noted_at: when the account's last login from there was stored; None if unknown.
        device: the bucket of a known device; None without one.
    """

    buckets: tuple[Bucket, ...]
    counts: Mapping[bytes, Count]
    proof: Proof
    source: str
    noted_at: int | None
    device: Bucket | None = None

    def count(self, bucket: Bucket) -> Count:
        """Return the count of a bucket when it was read."""
        return self.counts.get(bucket.key, NO_FAILURES)


@dataclass(frozen=True, slots=True)
class LoginAttempt:
    """An admitted attempt, counted as a failure until it succeeds.

    Attributes:
        recorded: as it was read.
        counted: the counts of its buckets including it, by key.
        is_of_device: whether it counts in the device's bucket and waited for no other.
    """

    recorded: FailureCounts
    counted: Mapping[bytes, Count]
    is_of_device: bool = False
