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
    false,
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
    description: Mapped[str] = mapped_column(String(200), server_default=text("''"))
    created_at: Mapped[int] = mapped_column(BigInteger)


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


class UserRole(Base):
    """That a user holds a role."""

    __tablename__ = "user_roles"

    user_id: Mapped[str] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    role_name: Mapped[str] = mapped_column(
        ForeignKey("roles.name", ondelete="RESTRICT"), primary_key=True, index=True
    )


class Session(Base):
    """One sign-in of a user. Its `sid` stands in every token of it.

    `refreshes_until` is when all refreshes of its limit are given back, Unix milliseconds
    (`rate_limits.py`); NULL before the first. `amr` holds the methods of the login,
    space-delimited; NULL in older sessions.
    """

    __tablename__ = "sessions"
    __table_args__ = (
        # No index holds what a refresh changes: PostgreSQL then writes no index at all.
        Index(None, "created_at"),
        Index(
            "ix_sessions_not_ended",
            "user_id",
            "created_at",
            sqlite_where=text("ended_at IS NULL"),
            postgresql_where=text("ended_at IS NULL"),
        ),
    )

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
    refreshes_until: Mapped[int | None] = mapped_column(BigInteger)
    amr: Mapped[str | None] = mapped_column(String(64))


class RefreshFamily(Base):
    """All refresh tokens descended from one sign-in, in one row.

    Why one row: docs/design.md, "Refresh tokens".

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
    """The feed's counter: one row, id 1. Its row lock orders all revocations.

    `continuity` tells a restored database from the one we left; `settled` is false from
    the begin of an epoch after such a change until no verifier that stands in no row of
    `followers` can still answer 200 (docs/revocation.md).
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

    `renewal` is a random number, another after every renewal of the lease, so that
    neither a row made again nor a restored one shows one seen before. `lapsed_at` is
    set, in Unix seconds, when the lease of one that allows stale answers has run out.
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
    """A program that authenticates by itself.

    `scopes` and `audiences` are space-delimited text; no audience means the issuer's
    own. `secrets_made` numbers its secrets, so that no number is given twice.
    """

    __tablename__ = "clients"
    # The order of their list.
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


class PersonalKey(Base):
    """A personal access key of a user, as its SHA-256 digest.

    `id` is also the `sid` of every token it is exchanged for, so that one entry of the
    feed ends them all. `last_used_at` is only written once an hour. `address` is where
    it was made from.
    """

    __tablename__ = "personal_keys"
    __table_args__ = (
        Index(None, "user_id", "created_at"),
        # What is deleted once it has ended long ago.
        Index(None, "expires_at"),
        Index(
            "ix_personal_keys_revoked",
            "revoked_at",
            sqlite_where=text("revoked_at IS NOT NULL"),
            postgresql_where=text("revoked_at IS NOT NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    digest: Mapped[bytes] = mapped_column(LargeBinary(32), unique=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(100))
    scopes: Mapped[str] = mapped_column(Text)
    address: Mapped[str] = mapped_column(
        String(64), default="", server_default=text("''")
    )
    created_at: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[int] = mapped_column(BigInteger)
    last_used_at: Mapped[int | None] = mapped_column(BigInteger)
    revoked_at: Mapped[int | None] = mapped_column(BigInteger)


class AuditEvent(Base):
    """What happened, who did it, to whom, from where; written with the act itself.

    Never changed, and deleted only up to a checkpoint: triggers see to both. `seal`
    proves that an issuer wrote it (`audit/seals.py`); empty in rows of older programs.
    """

    __tablename__ = "audit_events"

    id: Mapped[int] = mapped_column(_BigId, primary_key=True)
    at: Mapped[int] = mapped_column(BigInteger, index=True)
    event: Mapped[str] = mapped_column(String(64), index=True)
    actor: Mapped[str] = mapped_column(String(256), index=True)
    subject: Mapped[str] = mapped_column(String(256), index=True)
    address: Mapped[str] = mapped_column(String(64))
    correlation_id: Mapped[str] = mapped_column(String(64), index=True)
    facts: Mapped[str] = mapped_column(Text)
    seal: Mapped[str] = mapped_column(String(160), server_default=text("''"))


class StatusListHead(Base):
    """How many status list indices were given out: one row, id 1.

    `scatter_key` makes their order look random: who sees two must not learn which was
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

    position: Mapped[int] = mapped_column(_BigId, primary_key=True, autoincrement=False)
    owner: Mapped[str] = mapped_column(String(256))
    subject: Mapped[str] = mapped_column(String(256), index=True)
    generation: Mapped[int] = mapped_column(BigInteger)
    revoked_at: Mapped[int | None] = mapped_column(BigInteger)
    prune_at: Mapped[int] = mapped_column(BigInteger, index=True)


class SecurityEvent(Base):
    """A security event that waits to be delivered to one endpoint, or was refused there.

    `id` is the `jti` of the event's token, the same at every attempt. A delivered one
    is deleted.
    """

    __tablename__ = "security_events"
    __table_args__ = (
        Index(
            "ix_security_events_due",
            "endpoint",
            "next_attempt_at",
            sqlite_where=text("failed_at IS NULL"),
            postgresql_where=text("failed_at IS NULL"),
        ),
    )

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    endpoint: Mapped[str] = mapped_column(String(64))
    sub_id: Mapped[str] = mapped_column(Text)
    txn: Mapped[str] = mapped_column(String(36))
    event_at: Mapped[int] = mapped_column(BigInteger)
    attempts: Mapped[int] = mapped_column(Integer)
    next_attempt_at: Mapped[int] = mapped_column(BigInteger)
    failed_at: Mapped[int | None] = mapped_column(BigInteger)
    failure: Mapped[str | None] = mapped_column(String(256))


class WriteProbe(Base):
    """Is written, after a write was refused, to find out whether writing works again."""

    __tablename__ = "write_probes"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    filler: Mapped[bytes] = mapped_column(LargeBinary)
