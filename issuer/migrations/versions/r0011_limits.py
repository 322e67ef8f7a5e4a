"""How often a session may be refreshed, and a user may do what leaves rows behind.

Revision 0011. A column that may be NULL and a table more: code of revision 0008 goes on
working beside, and what it refreshes counts for nothing.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from issuer.migrations.one_way import refuse_downgrade

revision = "0011"
down_revision = "0008"
branch_labels = None
depends_on = None
downgrade = refuse_downgrade


def upgrade() -> None:
    """Add the column and create the table."""
    op.add_column(
        "sessions", sa.Column("refreshes_until", sa.BigInteger(), nullable=True)
    )
    op.create_table(
        "rate_limits",
        sa.Column("bucket", sa.String(64), nullable=False),
        sa.Column("spent_until", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("bucket", name="pk_rate_limits"),
    )
    op.create_index("ix_rate_limits_spent_until", "rate_limits", ["spent_until"])
