"""Runs Alembic. No `alembic.ini` is needed: the package finds its own path."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection


def upgrade_to_newest(connection: Connection) -> None:
    """Run every missing revision on this connection, in its transaction."""
    config = make_config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def make_config() -> Config:
    """Return what Alembic must know: the folder of the revisions."""
    config = Config()
    # Alembic keeps options in a ConfigParser, which reads `%` as interpolation.
    here = str(Path(__file__).parent).replace("%", "%%")
    config.set_main_option("script_location", here)
    config.set_main_option("path_separator", "os")
    return config
