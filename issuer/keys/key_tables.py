"""The table of what verifiers have of our keys; keys themselves are in `issuer.models`."""

from __future__ import annotations

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from issuer.models import Base


class FollowerKeys(Base):
    """Which JWKS a verifier has, by its ETag; goes with the verifier's lease."""

    __tablename__ = "follower_keys"

    follower_id: Mapped[str] = mapped_column(
        ForeignKey("followers.id", ondelete="CASCADE"), primary_key=True
    )
    etag: Mapped[str] = mapped_column(String(64))
