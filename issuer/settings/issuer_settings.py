"""Settings of the issuer, from the environment and `.env`, prefix `ISSUER_`.

The command builds them once and passes them down. A bad value stops the start: the
message names the setting and the rule, and never repeats the value, which may be a
secret. Each group of settings has a file of its own; this one joins them.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from issuer.settings.credential_settings import CredentialSettings
from issuer.settings.database_password import add_password
from issuer.settings.database_settings import DatabaseSettings
from issuer.settings.database_url import is_sqlite, parse_postgres_url
from issuer.settings.export_settings import ExportSettings
from issuer.settings.key_ring import KEY_BYTES, KeyRing
from issuer.settings.limit_settings import LimitSettings
from issuer.settings.secret_settings import SecretSettings
from issuer.settings.serving_settings import ServingSettings
from issuer.settings.token_settings import TokenSettings
from shared.configuration.addresses import check_binds_differ
from shared.configuration.env_file import DEFAULT_ENV_FILE, EnvFile
from shared.configuration.settings import (
    ProgramSettings,
    SettingsError,
    check_url,
    load,
)

__all__ = [
    "KEY_BYTES",
    "IssuerSettings",
    "KeyRing",
    "SettingsError",
    "load_settings",
]

PREFIX = "ISSUER_"


class IdentitySettings(ProgramSettings):
    """The names that every token carries."""

    url: str = Field(
        description="The issuer's own URL: the `iss` of every token. https, or http to "
        "loopback; no user name, trailing slash, query or fragment."
    )
    audience: str = Field(
        min_length=1,
        max_length=256,
        description="The `aud` of every token: the name of your API.",
    )

    _check_url = field_validator("url")(check_url)


# Pydantic collects the fields of the last base first; the reference has this order.
class IssuerSettings(
    ExportSettings,
    LimitSettings,
    CredentialSettings,
    TokenSettings,
    ServingSettings,
    SecretSettings,
    DatabaseSettings,
    IdentitySettings,
):
    """Every setting of the issuer; durations are in seconds."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=".env", extra="ignore", hide_input_in_errors=True
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level of the JSON log lines."
    )

    @model_validator(mode="after")
    def _check_together(self) -> IssuerSettings:
        if self.listen_url and is_sqlite(self.database_url):
            raise ValueError(
                "ISSUER_LISTEN_URL: is for PostgreSQL; leave it empty with SQLite"
            )
        if self.workers > 1 and is_sqlite(self.database_url):
            raise ValueError(
                "ISSUER_WORKERS: more than one process needs PostgreSQL; set "
                "ISSUER_DATABASE_URL=postgresql+asyncpg://... or ISSUER_WORKERS=1"
            )
        if self.refresh_idle_ttl > self.refresh_ttl:
            raise ValueError(
                "ISSUER_REFRESH_IDLE_TTL: must not exceed ISSUER_REFRESH_TTL"
            )
        return self

    @model_validator(mode="after")
    def _check_binds(self) -> IssuerSettings:
        check_binds_differ(PREFIX, self.bind, self.admin_bind)
        return self

    @model_validator(mode="after")
    def _fill_password(self) -> IssuerSettings:
        password = self.database_password.get_secret_value()
        if password:
            self.database_url = add_password(self.database_url, password)
            if self.listen_url and not parse_postgres_url(self.listen_url).password:
                self.listen_url = add_password(self.listen_url, password)
        return self


def load_settings(env_file: EnvFile | None = DEFAULT_ENV_FILE) -> IssuerSettings:
    """Read the settings from the environment, then from `env_file`.

    Raises:
        SettingsError: with one line per setting that is missing, wrong or unknown.
    """
    return load(IssuerSettings, env_file)
