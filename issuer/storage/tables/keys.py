"""Signing keys, the JWKS of each verifier, check values of the settings' keys."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    Text,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from issuer.storage.tables.base import Base


class SigningKey(Base):
    """An RSA key. The private half is encrypted under the key `kek_id`.

    `state` is one of next, active, retiring, gone; a partial unique index allows one
    active row, also during concurrent rotations.
    """

    __tablename__ = "signing_keys"
    __table_args__ = (
        CheckConstraint(
            "state IN ('next', 'active', 'retiring', 'gone')", name="state"
        ),
        Index(
            "ix_signing_keys_one_active",
            "state",
            unique=True,
            sqlite_where=text("state = 'active'"),
            postgresql_where=text("state = 'active'"),
        ),
    )

    kid: Mapped[str] = mapped_column(String(64), primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    public_jwk: Mapped[str] = mapped_column(Text)
    private_encrypted: Mapped[bytes | None] = mapped_column(LargeBinary)
    kek_id: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[int] = mapped_column(BigInteger)
    activated_at: Mapped[int | None] = mapped_column(BigInteger)
    retired_at: Mapped[int | None] = mapped_column(BigInteger)
    gone_at: Mapped[int | None] = mapped_column(BigInteger)


class FollowerKeys(Base):
    """The ETag of the JWKS that a verifier has; deleted with the verifier's lease."""

    __tablename__ = "follower_keys"

    follower_id: Mapped[str] = mapped_column(
        ForeignKey("followers.id", ondelete="CASCADE"), primary_key=True
    )
    etag: Mapped[str] = mapped_column(String(64))


class KeyCheck(Base):
    """A key of the settings that has been in use, with a digest to recognise it.

    `ring` is the setting's name without its prefix, in lower case.
    """

    __tablename__ = "key_checks"

    ring: Mapped[str] = mapped_column(String(32), primary_key=True)
    key_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary(32))
    created_at: Mapped[int] = mapped_column(BigInteger)
