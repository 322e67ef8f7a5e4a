"""PostgreSQL's advisory locks: every number this program uses, and its meaning.

The numbers are part of the contract between replicas of different versions, which share
one database: a number never changes and is never used for a second purpose. SQLite
needs no such locks: BEGIN IMMEDIATE admits one writer at a time.
"""

from __future__ import annotations

from enum import IntEnum

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from issuer.storage.db import Database


class AdvisoryLock(IntEnum):
    """What a lock protects; each is held to the end of the transaction."""

    #: Removing the last administrator.
    ADMINISTRATORS = 0x6761_7461
    #: Migrating the schema.
    MIGRATIONS = 0x6761_7465
    #: Rotating the signing keys.
    KEY_ROTATION = 0x6761_7466
    #: Linking audit events into the chain.
    AUDIT_LINKING = 0x6761_7467
    #: Deleting old audit events.
    AUDIT_RETENTION = 0x6761_7468
    #: Giving names that must not look like other names.
    LOOK_ALIKES = 0x6761_7469


async def take_lock(database: Database, db: AsyncSession, lock: AdvisoryLock) -> None:
    """Wait for the lock and hold it until the transaction ends."""
    if not database.is_sqlite:
        statement = text("SELECT pg_advisory_xact_lock(:id)")
        await db.execute(statement, {"id": int(lock)})


async def try_lock(database: Database, db: AsyncSession, lock: AdvisoryLock) -> bool:
    """Take the lock until the transaction ends if it is free; return whether it was."""
    if database.is_sqlite:
        return True
    statement = text("SELECT pg_try_advisory_xact_lock(:id)")
    return bool(await db.scalar(statement, {"id": int(lock)}))
