"""Check values of the settings' keys: they show whether a key is the same as before.

A check value reveals nothing about the key: it is derived from the 32 random bytes by
HKDF, under its own label.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.clock import seconds
from issuer.settings.issuer_settings import PREFIX
from issuer.storage.db import Database
from issuer.storage.tables.keys import KeyCheck
from shared import log

if TYPE_CHECKING:
    # A migration needs no routes.
    from issuer.foundation import Foundation

PEPPERS: Final = "password_peppers"
_BYTES: Final = 32
_LOG = logging.getLogger(__name__)


class WrongKeyError(Exception):
    """Keys of the settings are not those of before; one line names each setting."""


@dataclass(frozen=True, slots=True)
class CheckedKey:
    """A key of one of the settings' rings.

    Attributes:
        ring: the setting's name without its prefix, in lower case.
        key_id: its id in the ring.
        key: the 32 bytes.
    """

    ring: str
    key_id: str
    key: bytes

    @property
    def setting(self) -> str:
        """The name of the setting."""
        return name_setting(self.ring)

    @property
    def digest(self) -> bytes:
        """The check value."""
        label = "\0".join(("gatehouse key check", self.ring, self.key_id)).encode()
        return HKDF(SHA256(), _BYTES, None, label).derive(self.key)


class KeyProofs:
    """Stores the check value of a pepper after it verified a stored password.

    This is for databases of older programs, which have hashes but no check values:
    there the first right password proves the pepper.

    Args:
        base: gives the database, the clock and the settings.
    """

    def __init__(self, base: Foundation) -> None:
        self._database = base.database
        self._clock = base.clock
        self._peppers = base.settings.password_peppers
        self._proved: set[str] = set()
        self._written: set[str] = set()

    def note(self, pepper_id: str) -> None:
        """Note that a password was verified under this pepper; from any thread."""
        self._proved.add(pepper_id)

    async def write(self) -> None:
        """Store the check values of the noted peppers; log an error when one differs.

        Raises:
            UnavailableError: when the database is away.
        """
        pending = self._proved - self._written
        if not pending:
            return
        keys = [
            CheckedKey(PEPPERS, key_id, self._peppers[key_id]) for key_id in pending
        ]
        try:
            await write_checks(self._database, keys, seconds(self._clock))
        except WrongKeyError as error:
            # Two issuers with different peppers under one id started at the same time.
            log.event(_LOG, logging.ERROR, "keys.differ", detail=str(error))
        self._written |= pending


def name_setting(ring: str) -> str:
    """Return the name of a ring's setting."""
    return f"{PREFIX}{ring.upper()}"


async def read_checks(db: AsyncSession) -> Mapping[tuple[str, str], bytes]:
    """Return the check values by ring and key id."""
    rows = await db.execute(select(KeyCheck.ring, KeyCheck.key_id, KeyCheck.digest))
    return {(row.ring, row.key_id): row.digest for row in rows}


def compare(
    keys: Sequence[CheckedKey], known: Mapping[tuple[str, str], bytes]
) -> Iterator[str]:
    """Yield a sentence for each key that differs from its stored check value."""
    for key in keys:
        digest = known.get((key.ring, key.key_id))
        if digest is not None and not hmac.compare_digest(digest, key.digest):
            yield (
                f"{key.setting}: the key with id {key.key_id} is not the one this "
                "database was used with. Put the right one back; a new key needs a new "
                "id. Check ISSUER_DATABASE_URL too (docs/database.md)."
            )


async def write_checks(
    database: Database, keys: Sequence[CheckedKey], now: int
) -> None:
    """Store check values; compare those that another process has stored meanwhile.

    Raises:
        WrongKeyError: when one of those differs.
        UnavailableError: when the database is away.
    """
    insert = sqlite.insert if database.is_sqlite else postgresql.insert
    rows = [
        {
            "ring": key.ring,
            "key_id": key.key_id,
            "digest": key.digest,
            "created_at": now,
        }
        for key in keys
    ]
    async with database.write() as db:
        await db.execute(insert(KeyCheck).values(rows).on_conflict_do_nothing())
        problems = list(compare(keys, await read_checks(db)))
    if problems:
        raise WrongKeyError("\n".join(problems))
