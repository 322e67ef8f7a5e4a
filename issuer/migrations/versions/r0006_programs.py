"""Clients get audiences and numbered secrets; users get personal keys.

Revision 0006, after 0005.

`upgrade` is over 40 lines: it is a list of changes.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from issuer.migrations.one_way import refuse_downgrade

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None
downgrade = refuse_downgrade


def upgrade() -> None:
    """Add the columns and create `personal_keys`."""
    # With defaults, so that code of revision 0005 can still create clients.
    op.add_column(
        "clients", sa.Column("audiences", sa.Text(), nullable=False, server_default="")
    )
    op.add_column(
        "clients",
        sa.Column("secrets_made", sa.BigInteger(), nullable=False, server_default="1"),
    )
    op.add_column(
        "client_secrets",
        sa.Column("number", sa.BigInteger(), nullable=False, server_default="1"),
    )
    op.create_index(
        "ix_client_secrets_one_of_a_number",
        "client_secrets",
        ["client_id", "number"],
        unique=True,
    )
    op.create_index("ix_clients_created_at_id", "clients", ["created_at", "id"])
    op.create_table(
        "personal_keys",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("user_id", sa.String(36), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("last_used_at", sa.BigInteger(), nullable=True),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_personal_keys"),
        sa.UniqueConstraint("digest", name="uq_personal_keys_digest"),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users.id"],
            name="fk_personal_keys_user_id_users",
            ondelete="CASCADE",
        ),
    )
    op.create_index(
        "ix_personal_keys_user_id_created_at",
        "personal_keys",
        ["user_id", "created_at"],
    )
