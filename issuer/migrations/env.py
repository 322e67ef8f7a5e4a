"""Run by Alembic: applies the revisions on the given connection.

The transaction belongs to the caller (`issuer.migrations.upgrade`), so all revisions
are applied, or none.
"""

from __future__ import annotations

from alembic import context
from alembic.util import CommandError

from issuer.migrations.one_way import EXPLANATION
from issuer.storage.tables import Base

if "connection" not in context.config.attributes:
    # Alembic's own command uses neither our settings nor the lock.
    raise CommandError(EXPLANATION)
connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    # SQLite cannot ALTER most things; batch mode copies the table instead.
    render_as_batch=connection.dialect.name == "sqlite",
)
context.run_migrations()
