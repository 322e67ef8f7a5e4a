"""Throttles, known sources, second factors and one-time tokens.

Revision 0005, after 0004.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from issuer.migrations.one_way import refuse_downgrade

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None
downgrade = refuse_downgrade


def upgrade() -> None:
    """Create the tables."""
    _create_throttles()
    _create_second_factors()
    op.create_table(
        "password_resets",
        _user_id(),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name="pk_password_resets"),
        sa.UniqueConstraint("digest", name="uq_password_resets_digest"),
        _owner("password_resets"),
    )
    op.create_index("ix_password_resets_expires_at", "password_resets", ["expires_at"])


def _create_throttles() -> None:
    op.create_table(
        "login_throttles",
        sa.Column("key", sa.LargeBinary(32), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("blocked_until", sa.BigInteger(), nullable=False),
        sa.Column("prune_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_login_throttles"),
    )
    op.create_index("ix_login_throttles_prune_at", "login_throttles", ["prune_at"])
    op.create_table(
        "known_sources",
        _user_id(),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("last_used_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "source", name="pk_known_sources"),
        _owner("known_sources"),
    )
    op.create_index("ix_known_sources_last_used_at", "known_sources", ["last_used_at"])


def _create_second_factors() -> None:
    op.create_table(
        "login_challenges",
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        _user_id(),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("attempts_left", sa.Integer(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_login_challenges"),
        _owner("login_challenges"),
    )
    op.create_index("ix_login_challenges_user_id", "login_challenges", ["user_id"])
    op.create_index(
        "ix_login_challenges_expires_at", "login_challenges", ["expires_at"]
    )
    op.create_table(
        "second_factors",
        _user_id(),
        sa.Column("secret_encrypted", sa.LargeBinary(), nullable=False),
        sa.Column("kek_id", sa.String(64), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("confirmed_at", sa.BigInteger(), nullable=True),
        sa.Column("last_step", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name="pk_second_factors"),
        _owner("second_factors"),
    )
    op.create_table(
        "recovery_codes",
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        _user_id(),
        sa.PrimaryKeyConstraint("digest", name="pk_recovery_codes"),
        _owner("recovery_codes"),
    )
    op.create_index("ix_recovery_codes_user_id", "recovery_codes", ["user_id"])


def _user_id() -> sa.Column[str]:
    return sa.Column("user_id", sa.String(36), nullable=False)


def _owner(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["user_id"], ["users.id"], name=f"fk_{table}_user_id_users", ondelete="CASCADE"
    )
