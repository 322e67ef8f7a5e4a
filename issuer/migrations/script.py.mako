"""${message}.

Revision ${up_revision}, after ${down_revision or "nothing"}.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from issuer.migrations.one_way import refuse_downgrade

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None
downgrade = refuse_downgrade


def upgrade() -> None:
    """Apply; the code before this revision must still work afterwards."""
    ${upgrades if upgrades else "pass"}
