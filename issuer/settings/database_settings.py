"""Settings of the database connections."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr, field_validator

from issuer.settings.database_url import check_database_url, parse_postgres_url
from issuer.settings.database_url_text import describe_database_url
from shared.configuration.settings import ProgramSettings, Secret


class DatabaseSettings(ProgramSettings):
    """The database: URLs, pool, limits of time."""

    database_url: Annotated[str, Secret(describe_database_url)] = Field(
        default="sqlite+aiosqlite:///var/issuer.db",
        repr=False,
        description="sqlite+aiosqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME, "
        "with several hosts, TLS and other parameters as docs/database.md says.",
    )
    listen_url: Annotated[str, Secret(describe_database_url)] = Field(
        default="",
        repr=False,
        description="A direct connection to the same PostgreSQL database, for LISTEN, "
        "when ISSUER_DATABASE_URL leads through a pooler such as PgBouncer; empty: "
        "ISSUER_DATABASE_URL, or polling behind a pooler.",
    )
    database_pool_size: int = Field(
        default=10, ge=1, le=200, description="Connections kept per worker."
    )
    database_pool_timeout: float = Field(
        default=2.0,
        gt=0,
        le=30,
        description="Seconds to wait for a free connection before answering 503.",
    )
    database_statement_timeout: float = Field(
        default=15.0,
        ge=0,
        le=3_600,
        description="Seconds a statement on PostgreSQL may take before the answer is "
        "503; 0: no limit. Commands have none.",
    )
    database_password: SecretStr = Field(
        default=SecretStr(""),
        description="The password of the user that ISSUER_DATABASE_URL names, where the "
        "URL holds none; likewise for ISSUER_LISTEN_URL.",
    )

    _check_database_url = field_validator("database_url")(check_database_url)

    @field_validator("listen_url")
    @classmethod
    def _check_listen_url(cls, value: str) -> str:
        if value:
            parse_postgres_url(value)
        return value
