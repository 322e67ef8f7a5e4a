"""What verifiers have of our keys, and check values of the settings' keys.

The signing keys themselves are in `issuer.storage.tables.models`.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, ForeignKey, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from issuer.storage.tables.models import Base


class FollowerKeys(Base):
    """Which JWKS a verifier has, by its ETag; goes with the verifier's lease."""

    __tablename__ = "follower_keys"

    follower_id: Mapped[str] = mapped_column(
        ForeignKey("followers.id", ondelete="CASCADE"), primary_key=True
    )
    etag: Mapped[str] = mapped_column(String(64))


class KeyCheck(Base):
    """That a key of the settings has been in use, and a digest by which to know it again.

    `ring` is the setting's name without its prefix, in lower case.
    """

    __tablename__ = "key_checks"

    ring: Mapped[str] = mapped_column(String(32), primary_key=True)
    key_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary(32))
    created_at: Mapped[int] = mapped_column(BigInteger)
