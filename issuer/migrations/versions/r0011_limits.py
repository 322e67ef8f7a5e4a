"""Limits of what one user may do; names that look alike.

Revision 0011. It adds nullable columns, indexes and a table: code of revision 0008
keeps working. Its refreshes are not counted, and the skeletons of its names are written
later.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from alembic import op

from issuer.accounts.skeletons import make_skeleton
from issuer.migrations.one_way import refuse_downgrade

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None
downgrade = refuse_downgrade

_BATCH: Final = 1_000
_DUE: Final = sa.text("skeleton_of IS NULL OR skeleton_of <> username")


def upgrade() -> None:
    """Add columns, table and indexes, and write the skeletons of the present names."""
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
    op.add_column("users", sa.Column("name_skeleton", sa.Text(), nullable=True))
    op.add_column("users", sa.Column("skeleton_of", sa.String(64), nullable=True))
    _fill_skeletons()
    op.create_index("ix_users_name_skeleton", "users", ["name_skeleton"])
    op.create_index(
        "ix_users_skeleton_due",
        "users",
        ["id"],
        sqlite_where=_DUE,
        postgresql_where=_DUE,
    )


def _fill_skeletons() -> None:
    users = sa.table(
        "users",
        sa.column("id", sa.String),
        sa.column("username", sa.String),
        sa.column("name_skeleton", sa.Text),
        sa.column("skeleton_of", sa.String),
    )
    write = (
        users.update()
        .where(users.c.id == sa.bindparam("key"))
        .values(name_skeleton=sa.bindparam("skeleton"), skeleton_of=sa.bindparam("of"))
    )
    connection, last = op.get_bind(), ""
    while True:
        rows = connection.execute(
            sa.select(users.c.id, users.c.username)
            .where(users.c.id > last)
            .order_by(users.c.id)
            .limit(_BATCH)
        ).all()
        if not rows:
            return
        last = rows[-1].id
        connection.execute(
            write,
            [
                {
                    "key": row.id,
                    "of": row.username,
                    "skeleton": make_skeleton(row.username),
                }
                for row in rows
            ],
        )
