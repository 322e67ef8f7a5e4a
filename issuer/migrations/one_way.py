"""Refuses a downgrade, and migrations without our command."""

from __future__ import annotations

from typing import Final, NoReturn

from alembic.util import CommandError

#: For operators who run Alembic directly, or want the schema of an older version.
EXPLANATION: Final = (
    "Migrate with `python -m issuer migrate`, which reads ISSUER_DATABASE_URL. A "
    "downgrade is not supported. To run an older version, start it as it is: every "
    "migration keeps the version before it working. To have the older schema back, "
    "restore a backup made before the migration."
)


def refuse_downgrade() -> NoReturn:
    """Refuse; each revision has this as its `downgrade`.

    Raises:
        CommandError: always. Dropping tables would lose revocations and audit events,
            which no upgrade restores.
    """
    raise CommandError(EXPLANATION)
