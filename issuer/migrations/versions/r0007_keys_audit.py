"""The keys of each verifier; the audit chain, and triggers that make it append-only.

Revision 0007, after 0006.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from issuer.migrations.one_way import refuse_downgrade

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None
downgrade = refuse_downgrade

_REFUSAL = "audit rows are append-only"
#: Rows that a checkpoint covers may be deleted, by table.
_DELETABLE = {
    "audit_events": "EXISTS (SELECT 1 FROM audit_links AS l WHERE l.event_id = OLD.id"
    " AND l.seq <= (SELECT max(seq) FROM audit_checkpoints))",
    "audit_links": "OLD.seq <= (SELECT max(seq) FROM audit_checkpoints)",
    "audit_checkpoints": "1 = 0",
}


def upgrade() -> None:
    """Create the tables and the triggers; mark every present event for linking."""
    op.create_table(
        "follower_keys",
        sa.Column("follower_id", sa.String(36), nullable=False),
        sa.Column("etag", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("follower_id", name="pk_follower_keys"),
        sa.ForeignKeyConstraint(
            ["follower_id"],
            ["followers.id"],
            name="fk_follower_keys_follower_id_followers",
            ondelete="CASCADE",
        ),
    )
    _create_chain()
    op.execute("INSERT INTO audit_unlinked (event_id) SELECT id FROM audit_events")
    if op.get_bind().dialect.name == "sqlite":
        _create_sqlite_triggers()
    else:
        _create_postgres_triggers()


def _create_chain() -> None:
    # With a default, so that code of revision 0006 can still write events.
    op.add_column(
        "audit_events",
        sa.Column("seal", sa.String(160), nullable=False, server_default=""),
    )
    op.create_index("ix_audit_events_actor", "audit_events", ["actor"])
    op.create_index(
        "ix_audit_events_correlation_id", "audit_events", ["correlation_id"]
    )
    op.create_table(
        "audit_unlinked",
        sa.Column("event_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("event_id", name="pk_audit_unlinked"),
    )
    op.create_table(
        "audit_links",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("event_id", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("seal", sa.String(160), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_audit_links"),
        sa.UniqueConstraint("event_id", name="uq_audit_links_event_id"),
    )
    op.create_table(
        "audit_checkpoints",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False),
        sa.Column("made_at", sa.BigInteger(), nullable=False),
        sa.Column("seal", sa.String(160), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_audit_checkpoints"),
    )


def _create_sqlite_triggers() -> None:
    op.execute(
        "CREATE TRIGGER audit_events_queue AFTER INSERT ON audit_events BEGIN"
        " INSERT INTO audit_unlinked (event_id) VALUES (NEW.id); END"
    )
    refuse = f"SELECT RAISE(ABORT, '{_REFUSAL}');"
    for table, deletable in _DELETABLE.items():
        key = "id" if table == "audit_events" else "seq"
        op.execute(
            f"CREATE TRIGGER {table}_no_update BEFORE UPDATE ON {table}"
            f" BEGIN {refuse} END"
        )
        op.execute(
            f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table}"
            f" WHEN NOT ({deletable}) BEGIN {refuse} END"
        )
        # INSERT OR REPLACE deletes without a DELETE trigger.
        is_there = (
            f"EXISTS (SELECT 1 FROM {table} WHERE {key} = NEW.{key})"  # noqa: S608
        )
        op.execute(
            f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table}"
            f" WHEN {is_there} BEGIN {refuse} END"
        )


def _create_postgres_triggers() -> None:
    op.execute(
        "CREATE FUNCTION audit_queue() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO audit_unlinked (event_id) VALUES (NEW.id); RETURN NULL; END $$"
    )
    op.execute(
        "CREATE TRIGGER audit_events_queue AFTER INSERT ON audit_events"
        " FOR EACH ROW EXECUTE FUNCTION audit_queue()"
    )
    refuse = (
        f"RAISE EXCEPTION '{_REFUSAL}' USING ERRCODE = 'restrict_violation';"
        " RETURN NULL;"
    )
    op.execute(
        "CREATE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" {refuse} END $$"
    )
    for table, deletable in _DELETABLE.items():
        op.execute(
            f"CREATE TRIGGER {table}_no_update BEFORE UPDATE OR TRUNCATE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()"
        )
        op.execute(
            f"CREATE FUNCTION {table}_keep() RETURNS trigger LANGUAGE plpgsql AS $$"
            f" BEGIN IF {deletable} THEN RETURN OLD; END IF; {refuse} END $$"
        )
        op.execute(
            f"CREATE TRIGGER {table}_no_delete BEFORE DELETE ON {table}"
            f" FOR EACH ROW EXECUTE FUNCTION {table}_keep()"
        )
