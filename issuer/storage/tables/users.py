"""Users."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from issuer.storage.tables.base import Base


class User(Base):
    """A person. `username` is the normal form, the only key (requirement R36).

    `generation` is the least valid `gen` in tokens of this user: raising it logs the
    user out everywhere. `version` counts changes. An empty `password_hash` means that
    the user cannot log in with a password. `name_skeleton` belongs to the name
    `skeleton_of` (`accounts/look_alikes.py`); older programs write neither.
    """

    __tablename__ = "users"
    # For lists ordered by date.
    __table_args__ = (Index(None, "created_at", "id"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    username: Mapped[str] = mapped_column(String(64), unique=True)
    password_hash: Mapped[str] = mapped_column(Text)
    generation: Mapped[int] = mapped_column(BigInteger, default=0)
    version: Mapped[int] = mapped_column(BigInteger, default=1)
    created_at: Mapped[int] = mapped_column(BigInteger)
    updated_at: Mapped[int] = mapped_column(BigInteger)
    disabled_at: Mapped[int | None] = mapped_column(BigInteger)
    password_changed_at: Mapped[int] = mapped_column(BigInteger)
    name_skeleton: Mapped[str | None] = mapped_column(Text, index=True)
    skeleton_of: Mapped[str | None] = mapped_column(String(64))


#: Whether the skeleton of the user's name is missing or outdated.
SKELETON_DUE: Final = text("skeleton_of IS NULL OR skeleton_of <> username")
Index(
    "ix_users_skeleton_due",
    User.id,
    sqlite_where=SKELETON_DUE,
    postgresql_where=SKELETON_DUE,
)
