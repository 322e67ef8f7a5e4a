"""OAuth clients and their secrets."""

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


class Client(Base):
    """A program that authenticates by itself.

    `scopes` and `audiences` are space-delimited text; no audience means the issuer's
    own. `secrets_made` counts its secrets, so that no number is used twice.
    """

    __tablename__ = "clients"
    # The order of the list of clients.
    __table_args__ = (Index(None, "created_at", "id"),)

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    scopes: Mapped[str] = mapped_column(Text)
    audiences: Mapped[str] = mapped_column(Text, default="", server_default=text("''"))
    generation: Mapped[int] = mapped_column(BigInteger, default=0)
    version: Mapped[int] = mapped_column(BigInteger, default=1)
    secrets_made: Mapped[int] = mapped_column(BigInteger, default=1, server_default="1")
    created_at: Mapped[int] = mapped_column(BigInteger)
    disabled_at: Mapped[int | None] = mapped_column(BigInteger)


class ClientSecret(Base):
    """A live secret of a client, as its SHA-256 digest; two at most, for rotation.

    A plain digest is enough here: the secret is 256 random bits, not a password.
    """

    __tablename__ = "client_secrets"
    __table_args__ = (
        Index("ix_client_secrets_one_of_a_number", "client_id", "number", unique=True),
    )

    digest: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    client_id: Mapped[str] = mapped_column(
        ForeignKey("clients.id", ondelete="CASCADE"), index=True
    )
    number: Mapped[int] = mapped_column(BigInteger, default=1, server_default="1")
    created_at: Mapped[int] = mapped_column(BigInteger)
