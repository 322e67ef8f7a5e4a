"""Checks that the keys of the settings are those that the database was written with.

A start with a wrong pepper, key-encryption key or refresh key would succeed, and then
every login would fail. So a check value of each key is stored under its id
(`keys/check_values.py`), and a start or a command with another key under that id is
refused.

A new key needs a new id. If an id was removed and is still needed, a warning is logged
(docs/decisions/0014-the-database-refuses.md).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Final, NamedTuple

from sqlalchemy import Connection, func, inspect, select
from sqlalchemy.ext.asyncio import AsyncSession

from issuer import migrations
from issuer.credentials.secret_encryption import decrypt_secret
from issuer.errors import UnavailableError
from issuer.keys.check_values import (
    PEPPERS,
    CheckedKey,
    WrongKeyError,
    compare,
    name_setting,
    read_checks,
    write_checks,
)
from issuer.keys.encryption import decrypt_private_key
from issuer.sessions.refresh import make_token
from issuer.settings.issuer_settings import IssuerSettings, KeyRing
from issuer.storage.db import Database
from issuer.storage.tables.keys import KeyCheck, SigningKey
from issuer.storage.tables.login import SecondFactorRow
from issuer.storage.tables.sessions import RefreshFamily
from issuer.storage.tables.users import User
from issuer.tokens.opaque_tokens import digest_token
from shared import log

_ENCRYPTION: Final = "key_encryption_keys"
_REFRESH: Final = "refresh_keys"
#: Living families whose tokens are computed again to find their key.
_SAMPLE: Final = 100
_LOG = logging.getLogger(__name__)


class RemovedKey(NamedTuple):
    """A key that rows need and the settings lack.

    Attributes:
        setting: its ring.
        key_id: its id, of one that is missing; empty when rows do not name it.
        rows: how many there are.
        detail: what they are, and what follows.
    """

    setting: str
    key_id: str
    rows: int
    detail: str


async def require_right_keys(
    database: Database, settings: IssuerSettings, *, now: int
) -> None:
    """Return when the settings' keys fit the database; store check values of new ones.

    A key without a check value must open the boxes that are stored under its id.

    Args:
        database: with the present schema.
        settings: read at the start.
        now: Unix seconds.

    Raises:
        WrongKeyError: naming the settings that are wrong.
        UnavailableError: when the database is away.
    """
    async with database.read() as db:
        proved = await find_proved_keys(db, settings, now=now)
    if proved:
        await write_checks(database, proved, now)


async def find_proved_keys(
    db: AsyncSession, settings: IssuerSettings, *, now: int
) -> list[CheckedKey]:
    """Compare the settings' keys with the database; write nothing.

    Returns:
        the keys without a check value that have proved to be right.

    Raises:
        WrongKeyError: naming the settings that are wrong.
    """
    keys = list(_list_keys(settings))
    known = await read_checks(db)
    problems = list(compare(keys, known))
    if problems:
        raise WrongKeyError("\n".join(problems))
    fresh = [key for key in keys if (key.ring, key.key_id) not in known]
    is_first = not any(ring == _REFRESH for ring, _ in known)
    proved = [key for key in fresh if await _is_proved(db, key)]
    if is_first:
        await _require_refresh_key(db, settings.refresh_keys, now)
    return proved


async def require_known_keys(settings: IssuerSettings) -> None:
    """Return when no key differs from its stored check value.

    It works with any schema, and without one.

    Raises:
        WrongKeyError: naming the settings that are wrong.
        UnavailableError: when the database is away.
    """
    database = Database(settings.database_url, pool_size=1)
    try:
        if migrations.lacks_file(database):
            return
        async with database.read() as db:
            connection = await db.connection()
            if not await connection.run_sync(_has_checks):
                return
            known = await read_checks(db)
    finally:
        await database.close()
    problems = list(compare(list(_list_keys(settings)), known))
    if problems:
        raise WrongKeyError("\n".join(problems))


def _has_checks(connection: Connection) -> bool:
    return inspect(connection).has_table(KeyCheck.__tablename__)


async def warn_of_removed_keys(
    database: Database, settings: IssuerSettings, *, now: int
) -> None:
    """Log the rows that need keys which have left the settings.

    This refuses nothing: an operator who has lost a key must be able to continue.

    Raises:
        UnavailableError: when the database is away.
    """
    async with database.read() as db:
        for key in await find_removed_keys(db, settings, now=now):
            log.event(
                _LOG,
                logging.WARNING,
                "keys.still_needed",
                setting=key.setting,
                key_id=key.key_id,
                count=key.rows,
                detail=key.detail,
            )


async def find_removed_keys(
    db: AsyncSession, settings: IssuerSettings, *, now: int
) -> list[RemovedKey]:
    """Return the keys that rows need and the settings lack."""
    found = []
    peppers = settings.password_peppers
    query = select(func.count(), func.min(User.password_hash)).where(
        User.password_hash.startswith("ghp1$", autoescape=True),
        *(
            ~User.password_hash.startswith(f"ghp1${key_id}$", autoescape=True)
            for key_id in peppers
        ),
    )
    count, example = (await db.execute(query)).one()
    if count:
        what = "password hashes; these users cannot log in"
        key_id = str(example).split("$")[1]
        found.append(RemovedKey(name_setting(PEPPERS), key_id, count, what))
    factors = select(func.count(), func.min(SecondFactorRow.kek_id)).where(
        SecondFactorRow.kek_id.not_in(settings.key_encryption_keys)
    )
    count, key_id = (await db.execute(factors)).one()
    if count:
        what = "second factors; run reencrypt-keys"
        found.append(RemovedKey(name_setting(_ENCRYPTION), key_id, count, what))
    made, total = await _count_refreshable(db, settings.refresh_keys, now)
    if made < total:
        what = f"of {total} refresh tokens looked at; these sessions cannot go on"
        found.append(RemovedKey(name_setting(_REFRESH), "", total - made, what))
    return found


def _list_keys(settings: IssuerSettings) -> Iterator[CheckedKey]:
    for ring in (_ENCRYPTION, PEPPERS, _REFRESH):
        keys: KeyRing = getattr(settings, ring)
        for key_id, key in keys.items():
            yield CheckedKey(ring, key_id, key)


async def _is_proved(db: AsyncSession, key: CheckedKey) -> bool:
    """Return whether the check value of a new key may be stored now.

    Raises:
        WrongKeyError: when it does not open the boxes under its id.
    """
    if key.ring == PEPPERS:
        prefix = f"ghp1${key.key_id}$"
        uses = select(User.id).where(
            User.password_hash.startswith(prefix, autoescape=True)
        )
        # Only a right password proves a pepper: see `KeyProofs`.
        return await db.scalar(uses.limit(1)) is None
    if key.ring == _ENCRYPTION:
        await _require_opening(db, key)
    return True


async def _require_opening(db: AsyncSession, key: CheckedKey) -> None:
    ring = KeyRing({key.key_id: key.key})
    signing = await db.scalar(
        select(SigningKey)
        .where(
            SigningKey.kek_id == key.key_id, SigningKey.private_encrypted.is_not(None)
        )
        .limit(1)
    )
    factor = await db.scalar(
        select(SecondFactorRow).where(SecondFactorRow.kek_id == key.key_id).limit(1)
    )
    try:
        if signing is not None:
            decrypt_private_key(
                signing.private_encrypted or b"",
                kid=signing.kid,
                kek_id=key.key_id,
                key_ring=ring,
            )
        if factor is not None:
            decrypt_secret(
                factor.secret_encrypted,
                user_id=factor.user_id,
                kek_id=key.key_id,
                key_ring=ring,
            )
    except UnavailableError as error:
        raise WrongKeyError(
            f"{key.setting}: the key with id {key.key_id} does not open what is stored "
            f"under it ({error.detail}). Put the right one back."
        ) from None


async def _require_refresh_key(db: AsyncSession, ring: KeyRing, now: int) -> None:
    """Refuse a ring if none of its keys made a living refresh token.

    Tokens do not name their key. If only one of several keys is missing, a warning is
    logged.

    Raises:
        WrongKeyError: naming the setting.
    """
    made, total = await _count_refreshable(db, ring, now)
    if total and not made:
        raise WrongKeyError(
            f"{name_setting(_REFRESH)}: no key of it made the refresh tokens of living "
            "sessions. Put the right one back, or revoke these sessions' users first."
        )


async def _count_refreshable(
    db: AsyncSession, ring: KeyRing, now: int
) -> tuple[int, int]:
    """Return how many sampled families the ring's keys made, and the sample size."""
    rows = await db.execute(
        select(RefreshFamily.id, RefreshFamily.generation, RefreshFamily.current_digest)
        .where(RefreshFamily.revoked_at.is_(None), RefreshFamily.expires_at > now)
        # Ids are random, so the first ones are a fair sample.
        .order_by(RefreshFamily.id)
        .limit(_SAMPLE)
    )
    found = [
        any(
            digest_token(make_token(row.id, row.generation, key)) == row.current_digest
            for key in ring.values()
        )
        for row in rows
    ]
    return sum(found), len(found)
