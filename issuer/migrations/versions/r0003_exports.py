"""Tables of the exports: status list indices and waiting security events.

Revision 0003, after 0002.
"""

from __future__ import annotations

import secrets

import sqlalchemy as sa
from alembic import op

from issuer.migrations.one_way import refuse_downgrade

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None
downgrade = refuse_downgrade

# SQLite increments only an INTEGER PRIMARY KEY by itself.
_BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create the tables; insert `status_list_head` (1, 0, a new key)."""
    _create_status_lists()
    _create_security_events()


def _create_status_lists() -> None:
    head = op.create_table(
        "status_list_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("allotted", sa.BigInteger(), nullable=False),
        sa.Column("scatter_key", sa.LargeBinary(32), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_status_list_head"),
    )
    row = {"id": 1, "allotted": 0, "scatter_key": secrets.token_bytes(32)}
    op.bulk_insert(head, [row])
    op.create_table(
        "status_indices",
        sa.Column("position", _BIG_ID, autoincrement=False, nullable=False),
        sa.Column("owner", sa.String(256), nullable=False),
        sa.Column("subject", sa.String(256), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.Column("prune_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("position", name="pk_status_indices"),
    )
    # One index in use per owner, also during concurrent allotments.
    op.create_index(
        "ix_status_indices_one_in_use",
        "status_indices",
        ["owner", "generation"],
        unique=True,
        sqlite_where=sa.text("revoked_at IS NULL"),
        postgresql_where=sa.text("revoked_at IS NULL"),
    )
    # The rows of a list.
    op.create_index(
        "ix_status_indices_revoked",
        "status_indices",
        ["position"],
        sqlite_where=sa.text("revoked_at IS NOT NULL"),
        postgresql_where=sa.text("revoked_at IS NOT NULL"),
    )
    op.create_index("ix_status_indices_subject", "status_indices", ["subject"])
    op.create_index("ix_status_indices_prune_at", "status_indices", ["prune_at"])


def _create_security_events() -> None:
    op.create_table(
        "security_events",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("endpoint", sa.String(64), nullable=False),
        sa.Column("sub_id", sa.Text(), nullable=False),
        sa.Column("txn", sa.String(36), nullable=False),
        sa.Column("event_at", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.BigInteger(), nullable=False),
        sa.Column("failed_at", sa.BigInteger(), nullable=True),
        sa.Column("failure", sa.String(256), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_security_events"),
    )
    op.create_index(
        "ix_security_events_due",
        "security_events",
        ["endpoint", "next_attempt_at"],
        sqlite_where=sa.text("failed_at IS NULL"),
        postgresql_where=sa.text("failed_at IS NULL"),
    )
