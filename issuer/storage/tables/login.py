"""The tables of logging in: throttles, known sources, second factors, one-time tokens.

Times are Unix seconds. None of them stores a name, password, code or token.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    ForeignKey,
    Integer,
    LargeBinary,
    String,
    Text,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from issuer.storage.tables.base import Base


class LoginThrottle(Base):
    """Failures counted together, under a keyed digest of their common property.

    Not the typed name: people type passwords there. `debt` counts failures of known
    devices that use up attempts of others (`throttle.py`).
    """

    __tablename__ = "login_throttles"

    key: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    failures: Mapped[int] = mapped_column(Integer)
    blocked_until: Mapped[int] = mapped_column(BigInteger)
    prune_at: Mapped[int] = mapped_column(BigInteger, index=True)
    debt: Mapped[int] = mapped_column(Integer, default=0, server_default=text("0"))


class KnownSource(Base):
    """A network from which a user has logged in successfully."""

    __tablename__ = "known_sources"

    user_id: Mapped[str] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    source: Mapped[str] = mapped_column(String(64), primary_key=True)
    last_used_at: Mapped[int] = mapped_column(BigInteger, index=True)


class LoginChallenge(Base):
    """A login with a right password that waits for its second factor.

    `scope` is the scope of its future session; null in rows of older programs.
    """

    __tablename__ = "login_challenges"

    digest: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    user_id: Mapped[str] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), index=True
    )
    generation: Mapped[int] = mapped_column(BigInteger)
    attempts_left: Mapped[int] = mapped_column(Integer)
    expires_at: Mapped[int] = mapped_column(BigInteger, index=True)
    scope: Mapped[str | None] = mapped_column(Text)


class SecondFactorRow(Base):
    """A user's encrypted TOTP secret; in force once `confirmed_at` is set.

    `last_step` is the time step of the last accepted code: no code is accepted twice.
    """

    __tablename__ = "second_factors"

    user_id: Mapped[str] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    secret_encrypted: Mapped[bytes] = mapped_column(LargeBinary)
    kek_id: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[int] = mapped_column(BigInteger)
    confirmed_at: Mapped[int | None] = mapped_column(BigInteger)
    last_step: Mapped[int] = mapped_column(BigInteger)


class RecoveryCode(Base):
    """An unused recovery code, stored as a digest of the code and its owner."""

    __tablename__ = "recovery_codes"

    digest: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    user_id: Mapped[str] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), index=True
    )


class PasswordResetRow(Base):
    """An unused reset token of a user, stored as its digest; one at most.

    It is valid while the generations of the user and of its maker have not changed.
    `made_by` is a user's or a client's id. Rows of older programs have neither and are
    not valid.
    """

    __tablename__ = "password_resets"

    user_id: Mapped[str] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    digest: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    expires_at: Mapped[int] = mapped_column(BigInteger, index=True)
    user_generation: Mapped[int | None] = mapped_column(BigInteger)
    made_by: Mapped[str | None] = mapped_column(String(64))
    made_by_generation: Mapped[int | None] = mapped_column(BigInteger)


class StoredWork(Base):
    """The costliest password hash of one family in the database (`stored_work.py`).

    `amount` counts as `hash_work.py` says; `counted_at` is 0 before the first count.
    """

    __tablename__ = "stored_hash_work"

    family: Mapped[str] = mapped_column(String(16), primary_key=True)
    amount: Mapped[int] = mapped_column(BigInteger)
    version: Mapped[int] = mapped_column(BigInteger)
    counted_at: Mapped[int] = mapped_column(BigInteger)
