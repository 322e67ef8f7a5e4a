"""Roles get descriptions; lists and clean-ups get indexes.

Revision 0004, after 0003.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from issuer.migrations.one_way import refuse_downgrade

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None
downgrade = refuse_downgrade


def upgrade() -> None:
    """Add `roles.description` and the indexes."""
    # With a default, so that code of revision 0003 can still create roles.
    op.add_column(
        "roles",
        sa.Column("description", sa.String(200), nullable=False, server_default=""),
    )
    op.create_index("ix_users_created_at_id", "users", ["created_at", "id"])
    op.create_index("ix_user_roles_role_name", "user_roles", ["role_name"])
    op.create_index("ix_sessions_created_at", "sessions", ["created_at"])
    op.create_index(
        "ix_sessions_not_ended",
        "sessions",
        ["user_id", "created_at"],
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    )
