"""Users."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Index, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from issuer.storage.tables.base import Base


class User(Base):
    """A person. `username` is the normal form, the only key (requirement R36).

    `generation` is the least `gen` a token of this user may carry: raising it logs the
    user out everywhere. `version` counts changes. An empty `password_hash` means that
    there is no password, and no login by one. `name_skeleton` is that of the name
    `skeleton_of` (`accounts/look_alikes.py`); an older program writes neither.
    """

    __tablename__ = "users"
    # The order of a list by date.
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


#: Whether the skeleton of a user's name is still to be written.
SKELETON_DUE: Final = text("skeleton_of IS NULL OR skeleton_of <> username")
Index(
    "ix_users_skeleton_due",
    User.id,
    sqlite_where=SKELETON_DUE,
    postgresql_where=SKELETON_DUE,
)
