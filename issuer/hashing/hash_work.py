"""The work of a stored password hash: its family and an amount within it. Pure.

Within a family, time is proportional to the amount. Amounts of two families are not
comparable: their ratio depends on the machine and is measured (`hash_times.py`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Family(StrEnum):
    """A function that hashes passwords."""

    BCRYPT = "bcrypt"
    PBKDF2_SHA256 = "pbkdf2_sha256"
    ARGON2ID = "argon2id"
    SCRYPT = "scrypt"


class Work(NamedTuple):
    """The cost of one hash.

    Attributes:
        family: the function.
        amount: bcrypt: 2 to the power of the cost; PBKDF2: iterations; Argon2id: KiB
            of memory times passes; scrypt: N times r times p.
    """

    family: Family
    amount: int


def bcrypt_work(cost: int) -> Work:
    """Return the work of bcrypt at this cost."""
    return Work(Family.BCRYPT, 1 << cost)
