"""The tables of the audit's chain; the events themselves are in `issuer.storage.tables.models`."""

from __future__ import annotations

from sqlalchemy import BigInteger, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from issuer.storage.tables.models import Base


class AuditUnlinked(Base):
    """That an event is not in the chain yet; a trigger writes it with the event."""

    __tablename__ = "audit_unlinked"

    event_id: Mapped[int] = mapped_column(
        BigInteger, primary_key=True, autoincrement=False
    )


class AuditLink(Base):
    """The place of an event in the chain: gapless from 1, in the order of linking.

    `digest` covers the event and the digest before; `seal` proves that an issuer put it
    there.
    """

    __tablename__ = "audit_links"

    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    event_id: Mapped[int] = mapped_column(BigInteger, unique=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary(32))
    seal: Mapped[str] = mapped_column(String(160))


class AuditCheckpoint(Base):
    """Where the chain begins since older events were deleted: after `seq`."""

    __tablename__ = "audit_checkpoints"

    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    digest: Mapped[bytes] = mapped_column(LargeBinary(32))
    made_at: Mapped[int] = mapped_column(BigInteger)
    seal: Mapped[str] = mapped_column(String(160))
