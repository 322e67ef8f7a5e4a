"""The costliest stored password hashes.

Revision 0010, after 0008. One table more and no change to the others: code of revision
0007 goes on working beside.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from issuer.migrations.one_way import refuse_downgrade

revision = "0010"
down_revision = "0008"
branch_labels = None
depends_on = None
downgrade = refuse_downgrade


def upgrade() -> None:
    """Create the table; the first start counts what is stored and fills it."""
    op.create_table(
        "stored_hash_work",
        sa.Column("family", sa.String(16), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("counted_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("family", name="pk_stored_hash_work"),
    )
