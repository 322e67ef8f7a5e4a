"""The tables. Times are Unix seconds (integers), ids are text.

Time as an integer is the same on SQLite and PostgreSQL, has no zone to forget, and is
what the token carries anyway.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

#: Constraint names, so that migrations can name what they change on both databases.
_NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
# SQLite counts only an INTEGER PRIMARY KEY up by itself.
_BigId = BigInteger().with_variant(Integer, "sqlite")


class Base(DeclarativeBase):
    """Base of all tables."""

    metadata = MetaData(naming_convention=_NAMING)


class Role(Base):
    """A named set of scopes that users hold. `scopes` is space-delimited text."""

    __tablename__ = "roles"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    scopes: Mapped[str] = mapped_column(Text)
    created_at: Mapped[int] = mapped_column(BigInteger)


class User(Base):
    """A person. `username` is the normal form, the only key (requirement R36).

    `generation` is the least `gen` a token of this user may carry: raising it logs the
    user out everywhere. `version` counts changes, for ETag and If-Match.
    """

    __tablename__ = "users"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    username: Mapped[str] = mapped_column(String(64), unique=True)
    password_hash: Mapped[str] = mapped_column(Text)
    generation: Mapped[int] = mapped_column(BigInteger, default=0)
    version: Mapped[int] = mapped_column(BigInteger, default=1)
    created_at: Mapped[int] = mapped_column(BigInteger)
    updated_at: Mapped[int] = mapped_column(BigInteger)
    disabled_at: Mapped[int | None] = mapped_column(BigInteger)
    password_changed_at: Mapped[int] = mapped_column(BigInteger)


class UserRole(Base):
    """That a user holds a role."""

    __tablename__ = "user_roles"

    user_id: Mapped[str] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    role_name: Mapped[str] = mapped_column(
        ForeignKey("roles.name", ondelete="RESTRICT"), primary_key=True
    )


class Session(Base):
    """One sign-in of a user. Its `sid` stands in every token of it."""

    __tablename__ = "sessions"

    sid: Mapped[str] = mapped_column(String(36), primary_key=True)
    user_id: Mapped[str] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), index=True
    )
    client_id: Mapped[str] = mapped_column(String(64))
    device_label: Mapped[str] = mapped_column(String(200), default="")
    address: Mapped[str] = mapped_column(String(64), default="")
    created_at: Mapped[int] = mapped_column(BigInteger)
    last_used_at: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[int] = mapped_column(BigInteger)
    ended_at: Mapped[int | None] = mapped_column(BigInteger)


class RefreshFamily(Base):
    """All refresh tokens descended from one sign-in, in one row (DESIGN.md, section 3).

    `generation` and `current_digest` name the one token that may rotate next; rotation
    compares and swaps `current_digest`. Earlier tokens of the family are known by their
    MAC and a smaller generation, so no row is kept for them.
    """

    __tablename__ = "refresh_families"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    sid: Mapped[str] = mapped_column(
        ForeignKey("sessions.sid", ondelete="CASCADE"), index=True
    )
    client_id: Mapped[str] = mapped_column(String(64))
    scope: Mapped[str] = mapped_column(Text)
    generation: Mapped[int] = mapped_column(BigInteger)
    current_digest: Mapped[bytes] = mapped_column(LargeBinary(32))
    created_at: Mapped[int] = mapped_column(BigInteger)
    rotated_at: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[int] = mapped_column(BigInteger)
    revoked_at: Mapped[int | None] = mapped_column(BigInteger)
    revoked_reason: Mapped[str | None] = mapped_column(String(32))


class SigningKey(Base):
    """An RSA key. The private half is encrypted; `kek_id` names the key that did it.

    `state` is one of next, active, retiring, gone; a partial unique index lets at most
    one row be active, whoever rotates at the same time.
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


class FeedHead(Base):
    """The feed's counter: one row, id 1. Its row lock orders all revocations."""

    __tablename__ = "feed_head"
    __table_args__ = (CheckConstraint("id = 1", name="single_row"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    epoch: Mapped[str] = mapped_column(String(36))
    seq: Mapped[int] = mapped_column(BigInteger)


class FeedEntryRow(Base):
    """One revocation, under its gapless position."""

    __tablename__ = "feed_entries"
    # The issuer asks by kind and key whether a token of its own was revoked.
    __table_args__ = (Index(None, "kind", "key"),)

    seq: Mapped[int] = mapped_column(_BigId, primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(8))
    key: Mapped[str] = mapped_column(String(256))
    minimum_generation: Mapped[int] = mapped_column(BigInteger)
    prune_at: Mapped[int] = mapped_column(BigInteger, index=True)


class Client(Base):
    """A program that authenticates by itself. `scopes` is space-delimited text."""

    __tablename__ = "clients"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    scopes: Mapped[str] = mapped_column(Text)
    generation: Mapped[int] = mapped_column(BigInteger, default=0)
    version: Mapped[int] = mapped_column(BigInteger, default=1)
    created_at: Mapped[int] = mapped_column(BigInteger)
    disabled_at: Mapped[int | None] = mapped_column(BigInteger)


class ClientSecret(Base):
    """A live secret of a client, as its SHA-256 digest; two at most, for rotation.

    A plain digest is enough here: the secret is 256 random bits, not a password.
    """

    __tablename__ = "client_secrets"

    digest: Mapped[bytes] = mapped_column(LargeBinary(32), primary_key=True)
    client_id: Mapped[str] = mapped_column(
        ForeignKey("clients.id", ondelete="CASCADE"), index=True
    )
    created_at: Mapped[int] = mapped_column(BigInteger)


class AuditEvent(Base):
    """What happened, who did it, to whom, from where; written with the act itself."""

    __tablename__ = "audit_events"

    id: Mapped[int] = mapped_column(_BigId, primary_key=True)
    at: Mapped[int] = mapped_column(BigInteger, index=True)
    event: Mapped[str] = mapped_column(String(64), index=True)
    actor: Mapped[str] = mapped_column(String(256))
    subject: Mapped[str] = mapped_column(String(256), index=True)
    address: Mapped[str] = mapped_column(String(64))
    correlation_id: Mapped[str] = mapped_column(String(64))
    facts: Mapped[str] = mapped_column(Text)
