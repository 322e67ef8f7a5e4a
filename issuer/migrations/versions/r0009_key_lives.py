"""Personal keys get the address of their creation and indexes for their end.

Revision 0009, after 0008. It adds a column with a default and two indexes: code of
revision 0008 keeps working.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from issuer.migrations.one_way import refuse_downgrade

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None
downgrade = refuse_downgrade

#: The remaining audit log has the addresses of the present keys.
_FILL = """
    UPDATE personal_keys SET address = COALESCE((
        SELECT event.address FROM audit_events AS event
        WHERE event.subject = personal_keys.user_id
        AND event.event = 'personal_key.created'
        AND event.facts LIKE '%"key_id":"' || personal_keys.id || '"%'
        ORDER BY event.id LIMIT 1
    ), '')
    """


def upgrade() -> None:
    """Add the column, fill it, and create the indexes."""
    op.add_column(
        "personal_keys",
        sa.Column("address", sa.String(64), nullable=False, server_default=""),
    )
    op.execute(_FILL)
    op.create_index("ix_personal_keys_expires_at", "personal_keys", ["expires_at"])
    is_revoked = sa.text("revoked_at IS NOT NULL")
    op.create_index(
        "ix_personal_keys_revoked",
        "personal_keys",
        ["revoked_at"],
        sqlite_where=is_revoked,
        postgresql_where=is_revoked,
    )
