"""How both programs read their settings, and how they refuse bad ones.

A bad value stops the start: the message names the setting and what would be right, and
never repeats the value, which may be a secret.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import ValidationError
from pydantic_settings import BaseSettings

_MAX_PORT: Final = 65_535

S = TypeVar("S", bound=BaseSettings)


class SettingsError(Exception):
    """The settings cannot be used; each line of the message names one of them."""


def load(settings_class: type[S], env_file: Path | None) -> S:
    """Read the settings from the environment, then from `env_file` when it is there.

    Raises:
        SettingsError: with one line per setting that is missing, wrong or unknown. An
            unknown name with our prefix is refused: a misspelt limit would be no limit.
    """
    prefix = settings_class.model_config["env_prefix"]
    known = {f"{prefix}{name}".upper() for name in settings_class.model_fields}
    given = {name.upper() for name in os.environ}
    if env_file is not None and env_file.is_file():
        given |= {name.upper() for name in dotenv_values(env_file)}
    unknown = sorted(n for n in given if n.startswith(prefix) and n not in known)
    if unknown:
        raise SettingsError(
            "\n".join(
                f"{n}: there is no such setting (see .env.example)" for n in unknown
            )
        )
    try:
        return settings_class(_env_file=env_file)
    except ValidationError as error:
        lines = (_explain(settings_class, dict(e)) for e in error.errors())
        raise SettingsError("\n".join(lines)) from None


def check_bind(value: str) -> str:
    """Return an address to listen on, `HOST:PORT` or `unix:/PATH`, as it is.

    Raises:
        ValueError: for anything else.
    """
    host, _, port = value.rpartition(":")
    is_port = port.isascii() and port.isdecimal() and int(port) <= _MAX_PORT
    if not value.startswith("unix:/") and not (host and is_port):
        raise ValueError("must be HOST:PORT or unix:/PATH")
    return value


def check_url(value: str) -> str:
    """Return a URL that secrets may travel to: https, or http to loopback (R21).

    Raises:
        ValueError: for anything else, or with a query, a fragment or a trailing slash.
    """
    try:
        parts = urlsplit(value)
    except ValueError:  # whose message may repeat the value
        raise ValueError("must be a URL") from None
    is_local = parts.hostname in {"localhost", "127.0.0.1", "::1"}
    if parts.scheme != "https" and not (parts.scheme == "http" and is_local):
        raise ValueError("must be https://..., or http:// to loopback")
    if not parts.hostname or parts.query or parts.fragment or value.endswith("/"):
        raise ValueError("must have a host, and no query, fragment or trailing slash")
    return value


def _explain(settings_class: type[BaseSettings], problem: dict[str, Any]) -> str:
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not problem["loc"]:
        return message
    field = str(problem["loc"][0])
    name = f"{settings_class.model_config['env_prefix']}{field}".upper()
    if problem["type"] == "missing":
        return f"{name}: is not set. {settings_class.model_fields[field].description}"
    return f"{name}: {message}"
