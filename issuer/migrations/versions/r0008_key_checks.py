"""Check values of the settings' keys; a row for test writes.

Revision 0008, after 0007. It only adds two tables: code of revision 0007 keeps working.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from issuer.migrations.one_way import refuse_downgrade

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None
downgrade = refuse_downgrade


def upgrade() -> None:
    """Create the tables; the check values are written by the next start."""
    op.create_table(
        "key_checks",
        sa.Column("ring", sa.String(32), nullable=False),
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("ring", "key_id", name="pk_key_checks"),
    )
    op.create_table(
        "write_probes",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("filler", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_write_probes"),
    )
