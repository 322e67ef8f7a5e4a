"""Security events that wait to be delivered."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Index,
    Integer,
    String,
    Text,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from issuer.storage.tables.base import Base


class SecurityEvent(Base):
    """A security event for one endpoint: waiting for delivery, or refused there.

    `id` is the `jti` of the event's token, the same at every attempt. A delivered one
    is deleted.
    """

    __tablename__ = "security_events"
    __table_args__ = (
        Index(
            "ix_security_events_due",
            "endpoint",
            "next_attempt_at",
            sqlite_where=text("failed_at IS NULL"),
            postgresql_where=text("failed_at IS NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    endpoint: Mapped[str] = mapped_column(String(64))
    sub_id: Mapped[str] = mapped_column(Text)
    txn: Mapped[str] = mapped_column(String(36))
    event_at: Mapped[int] = mapped_column(BigInteger)
    attempts: Mapped[int] = mapped_column(Integer)
    next_attempt_at: Mapped[int] = mapped_column(BigInteger)
    failed_at: Mapped[int | None] = mapped_column(BigInteger)
    failure: Mapped[str | None] = mapped_column(String(256))
