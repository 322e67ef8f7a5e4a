"""The followers of the feed, and the value that detects a restored database.

Revision 0002, after 0001.
"""

from __future__ import annotations

import uuid

import sqlalchemy as sa
from alembic import op

from issuer.feed.continuity import POSTGRES_FOUND, Witness, make_word
from issuer.migrations.one_way import refuse_downgrade

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None
downgrade = refuse_downgrade


def upgrade() -> None:
    """Create `followers`; store the continuity of this database in `feed_head`.

    If the database has never had a signing key, no verifier can accept a token, and its
    epoch is settled. Any other database begins a new epoch: verifiers of an issuer
    without this table may answer 200 and have no row.
    """
    op.create_table(
        "followers",
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("epoch", sa.String(36), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("staleness_seconds", sa.Integer(), nullable=False),
        sa.Column("renewal", sa.BigInteger(), nullable=False),
        sa.Column("allows_stale", sa.Boolean(), nullable=False),
        sa.Column("lapsed_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_followers"),
    )
    # Defaults, so that code of revision 0001 keeps working.
    op.add_column(
        "feed_head",
        sa.Column("continuity", sa.Text(), nullable=False, server_default="unknown"),
    )
    op.add_column(
        "feed_head",
        sa.Column("settled", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    _note_continuity()


def _note_continuity() -> None:
    connection = op.get_bind()
    head = sa.table(
        "feed_head",
        sa.column("epoch"),
        sa.column("continuity"),
        sa.column("settled", sa.Boolean),
    )
    is_fresh = not connection.scalar(sa.text("SELECT count(*) FROM signing_keys"))
    change = head.update().values(settled=is_fresh)
    if not is_fresh:
        change = change.values(epoch=str(uuid.uuid4()))
    connection.execute(change)
    if connection.dialect.name == "sqlite":
        word = make_word()
        connection.execute(head.update().values(continuity=word))
        Witness.beside(connection.engine.url).write(word)
    else:
        found = sa.literal_column(POSTGRES_FOUND, sa.Text)
        connection.execute(head.update().values(continuity=found))
