"""Personal keys."""

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


class PersonalKey(Base):
    """A personal access key of a user, stored as its SHA-256 digest.

    `id` is also the `sid` of every token made with it, so one feed entry ends them all.
    `last_used_at` is written once an hour at most. `address` is the origin of its
    creation.
    """

    __tablename__ = "personal_keys"
    __table_args__ = (
        Index(None, "user_id", "created_at"),
        # For deleting keys that ended long ago.
        Index(None, "expires_at"),
        Index(
            "ix_personal_keys_revoked",
            "revoked_at",
            sqlite_where=text("revoked_at IS NOT NULL"),
            postgresql_where=text("revoked_at IS NOT NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(100))
    scopes: Mapped[str] = mapped_column(Text)
    address: Mapped[str] = mapped_column(
        String(64), default="", server_default=text("''")
    )
    created_at: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[int] = mapped_column(BigInteger)
    last_used_at: Mapped[int | None] = mapped_column(BigInteger)
    revoked_at: Mapped[int | None] = mapped_column(BigInteger)
