"""How much work a stored password hash is: its family, and an amount within it. Pure.

Amounts of one family compare, and time grows with them in proportion. Those of two
families do not: how one compares with another depends on the machine, and is measured
(`hash_times.py`).
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
    """What one hash costs.

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
