"""Indices of the status lists."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Index,
    Integer,
    LargeBinary,
    String,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from issuer.storage.tables.base import Base, BigId


class StatusListHead(Base):
    """The number of allotted status list indices: one row, id 1.

    `scatter_key` makes their order look random: two indices do not show which was
    allotted first.
    """

    __tablename__ = "status_list_head"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    allotted: Mapped[int] = mapped_column(BigInteger)
    scatter_key: Mapped[bytes] = mapped_column(LargeBinary(32))


class StatusIndex(Base):
    """The bit of a session's tokens, or of a client's own, in the status lists.

    `position` counts through all lists; `owner` is the sid or the client_id. Once
    `revoked_at` is set, the owner's next token gets another row.
    """

    __tablename__ = "status_indices"
    __table_args__ = (
        Index(
            "ix_status_indices_one_in_use",
            "owner",
            "generation",
            unique=True,
            sqlite_where=text("revoked_at IS NULL"),
            postgresql_where=text("revoked_at IS NULL"),
        ),
        Index(
            "ix_status_indices_revoked",
            "position",
            sqlite_where=text("revoked_at IS NOT NULL"),
            postgresql_where=text("revoked_at IS NOT NULL"),
        ),
    )

    position: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    owner: Mapped[str] = mapped_column(String(256))
    subject: Mapped[str] = mapped_column(String(256), index=True)
    generation: Mapped[int] = mapped_column(BigInteger)
    revoked_at: Mapped[int | None] = mapped_column(BigInteger)
    prune_at: Mapped[int] = mapped_column(BigInteger, index=True)
