"""The revocation feed: its head, its entries and the verifiers that follow it."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Index,
    Integer,
    String,
    Text,
    false,
)
from sqlalchemy.orm import Mapped, mapped_column

from issuer.storage.tables.base import Base, BigId


class FeedHead(Base):
    """The feed's counter: one row, id 1. Its row lock orders all revocations.

    `continuity` distinguishes a restored database from the one before. After such a
    change `settled` is false from the start of the epoch until no verifier without a
    row in `followers` can still answer 200 (docs/revocation.md).
    """

    __tablename__ = "feed_head"
    __table_args__ = (CheckConstraint("id = 1", name="single_row"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    epoch: Mapped[str] = mapped_column(String(36))
    seq: Mapped[int] = mapped_column(BigInteger)
    continuity: Mapped[str] = mapped_column(Text, server_default="unknown")
    settled: Mapped[bool] = mapped_column(server_default=false())


class FollowerRow(Base):
    """A verifier process that may be answering 200, and what it has acknowledged.

    `renewal` is a new random number at every renewal of the lease, so that a row that
    was inserted again or restored never shows an earlier number. `lapsed_at`, in Unix
    seconds, is set when the lease of a verifier that allows stale answers has run out.
    """

    __tablename__ = "followers"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    epoch: Mapped[str] = mapped_column(String(36))
    position: Mapped[int] = mapped_column(BigInteger)
    staleness_seconds: Mapped[int] = mapped_column(Integer)
    renewal: Mapped[int] = mapped_column(BigInteger)
    allows_stale: Mapped[bool]
    lapsed_at: Mapped[int | None] = mapped_column(BigInteger)


class FeedEntryRow(Base):
    """One revocation at its position; positions have no gaps."""

    __tablename__ = "feed_entries"
    # The issuer searches by kind and key whether one of its tokens was revoked.
    __table_args__ = (Index(None, "kind", "key"),)

    seq: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(8))
    key: Mapped[str] = mapped_column(String(256))
    minimum_generation: Mapped[int] = mapped_column(BigInteger)
    prune_at: Mapped[int] = mapped_column(BigInteger, index=True)
