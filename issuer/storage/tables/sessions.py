"""Sessions and their refresh families."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    Text,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from issuer.storage.tables.base import Base


class Session(Base):
    """One sign-in of a user. All its tokens carry its `sid`.

    `refreshes_until` is when the whole limit of refreshes is available again, in Unix
    milliseconds (`rate_limits.py`); NULL before the first refresh. `amr` holds the
    methods of the login, space-delimited; NULL in older sessions.
    """

    __tablename__ = "sessions"
    __table_args__ = (
        # No index has a column that a refresh changes, so PostgreSQL updates no index.
        Index(None, "created_at"),
        Index(
            "ix_sessions_not_ended",
            "user_id",
            "created_at",
            sqlite_where=text("ended_at IS NULL"),
            postgresql_where=text("ended_at IS NULL"),
        ),
    )

    sid: Mapped[str] = mapped_column(String(36), primary_key=True)
    user_id: Mapped[str] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), index=True
    )
    client_id: Mapped[str] = mapped_column(String(64))
    device_label: Mapped[str] = mapped_column(String(200), default="")
    address: Mapped[str] = mapped_column(String(64), default="")
    created_at: Mapped[int] = mapped_column(BigInteger)
    last_used_at: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[int] = mapped_column(BigInteger)
    ended_at: Mapped[int | None] = mapped_column(BigInteger)
    refreshes_until: Mapped[int | None] = mapped_column(BigInteger)
    amr: Mapped[str | None] = mapped_column(String(64))


class RefreshFamily(Base):
    """All refresh tokens descended from one sign-in, in one row.

    `generation` and `current_digest` name the one token that may rotate next; rotation
    compares and swaps `current_digest`. Earlier tokens of the family are recognised by
    their MAC and smaller generation and need no row. Why one row: docs/design.md,
    "Refresh tokens".
    """

    __tablename__ = "refresh_families"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    sid: Mapped[str] = mapped_column(
        ForeignKey("sessions.sid", ondelete="CASCADE"), index=True
    )
    client_id: Mapped[str] = mapped_column(String(64))
    scope: Mapped[str] = mapped_column(Text)
    generation: Mapped[int] = mapped_column(BigInteger)
    current_digest: Mapped[bytes] = mapped_column(LargeBinary(32))
    created_at: Mapped[int] = mapped_column(BigInteger)
    rotated_at: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[int] = mapped_column(BigInteger)
    revoked_at: Mapped[int | None] = mapped_column(BigInteger)
    revoked_reason: Mapped[str | None] = mapped_column(String(32))
