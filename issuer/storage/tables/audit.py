"""The audit log's events and their chain."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    LargeBinary,
    String,
    Text,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from issuer.storage.tables.base import Base, BigId


class AuditEvent(Base):
    """An act, its actor, subject and origin; written in the act's transaction.

    Triggers forbid changes, and deletions except up to a checkpoint. `seal` proves that
    an issuer wrote it (`audit/seals.py`); empty in rows of older programs.
    """

    __tablename__ = "audit_events"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    at: Mapped[int] = mapped_column(BigInteger, index=True)
    event: Mapped[str] = mapped_column(String(64), index=True)
    actor: Mapped[str] = mapped_column(String(256), index=True)
    subject: Mapped[str] = mapped_column(String(256), index=True)
    address: Mapped[str] = mapped_column(String(64))
    correlation_id: Mapped[str] = mapped_column(String(64), index=True)
    facts: Mapped[str] = mapped_column(Text)
    seal: Mapped[str] = mapped_column(String(160), server_default=text("''"))


class AuditUnlinked(Base):
    """Marks an event that is not in the chain yet; written by a trigger."""

    __tablename__ = "audit_unlinked"

    event_id: Mapped[int] = mapped_column(
        BigInteger, primary_key=True, autoincrement=False
    )


class AuditLink(Base):
    """The place of an event in the chain: gapless from 1, in the order of linking.

    `digest` covers the event and the previous digest; `seal` proves that an issuer
    linked it.
    """

    __tablename__ = "audit_links"

    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    event_id: Mapped[int] = mapped_column(BigInteger, unique=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary(32))
    seal: Mapped[str] = mapped_column(String(160))


class AuditCheckpoint(Base):
    """The start of the chain after a deletion of older events: after `seq`."""

    __tablename__ = "audit_checkpoints"

    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    digest: Mapped[bytes] = mapped_column(LargeBinary(32))
    made_at: Mapped[int] = mapped_column(BigInteger)
    seal: Mapped[str] = mapped_column(String(160))
