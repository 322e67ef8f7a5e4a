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
    """A personal access key of a user, as its SHA-256 digest.

    `id` is also the `sid` of every token it is exchanged for, so that one entry of the
    feed ends them all. `last_used_at` is only written once an hour. `address` is where
    it was made from.
    """

    __tablename__ = "personal_keys"
    __table_args__ = (
        Index(None, "user_id", "created_at"),
        # What is deleted once it has ended long ago.
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
