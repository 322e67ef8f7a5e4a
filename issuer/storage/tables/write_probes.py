"""Rows that test whether the database accepts writes."""

from __future__ import annotations

from sqlalchemy import (
    Integer,
    LargeBinary,
)
from sqlalchemy.orm import Mapped, mapped_column

from issuer.storage.tables.base import Base


class WriteProbe(Base):
    """Written after a refused write, to test whether writing works again."""

    __tablename__ = "write_probes"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    filler: Mapped[bytes] = mapped_column(LargeBinary)
