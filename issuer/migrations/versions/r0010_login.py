"""Stored hashes' work, device debts, makers of reset tokens, how sessions began.

Revision 0010, after 0009. It adds a table, and columns with defaults: code of revision
0007 keeps working.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from issuer.migrations.one_way import refuse_downgrade

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None
downgrade = refuse_downgrade


def upgrade() -> None:
    """Create the table, which the first start fills, and the columns."""
    op.add_column(
        "login_throttles",
        sa.Column("debt", sa.Integer(), server_default=sa.text("0"), nullable=False),
    )
    op.add_column("sessions", sa.Column("amr", sa.String(64), nullable=True))
    op.add_column("login_challenges", sa.Column("scope", sa.Text(), nullable=True))
    for name, kind in (
        ("user_generation", sa.BigInteger()),
        ("made_by", sa.String(64)),
        ("made_by_generation", sa.BigInteger()),
    ):
        op.add_column("password_resets", sa.Column(name, kind, nullable=True))
    op.create_table(
        "stored_hash_work",
        sa.Column("family", sa.String(16), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("counted_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("family", name="pk_stored_hash_work"),
    )
