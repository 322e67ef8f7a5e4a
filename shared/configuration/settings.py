"""How both programs read their settings, and how they refuse bad ones.

A bad value stops the start: the message names the setting, the fault and what to
write. It does not repeat a value that may be a secret.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeVar, get_origin

from pydantic import PrivateAttr, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from shared.configuration.addresses import check_bind
from shared.configuration.env_file import DEFAULT_ENV_FILE, EnvFile, read_env_file
from shared.configuration.secret_files import (
    FILE_SUFFIX,
    Secret,
    read_secret_file,
    secrets_of,
)
from shared.configuration.service_links import is_service_link
from shared.configuration.urls import check_url

__all__ = [
    "ProgramSettings",
    "Secret",
    "SettingsError",
    "check_bind",
    "check_url",
    "describe",
    "load",
    "load_again",
    "name_of",
]

#: Control characters, and Unicode's line and paragraph separators.
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_SCALARS: Final = frozenset({str, int, float, bool, SecretStr})
_NUMBERS: Final[Mapping[Any, tuple[re.Pattern[str], str]]] = {
    int: (
        re.compile(r"[+-]?[0-9]{1,18}"),
        "must be a whole number in digits, such as 600; no unit, blank or underscore",
    ),
    float: (
        re.compile(r"[+-]?[0-9]{1,18}(\.[0-9]{1,9})?"),
        "must be a number in digits, such as 2.5; no unit, blank or underscore",
    ),
}
#: Messages for pydantic's types of errors.
_RULES: Final = {
    "greater_than_equal": "must be {ge} or more",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be {le} or less",
    "less_than": "must be less than {lt}",
    "string_too_short": "must have {min_length} characters or more",
    "string_too_long": "must have {max_length} characters or fewer",
    "bool_parsing": "must be true or false",
}

S = TypeVar("S", bound="ProgramSettings")


class SettingsError(Exception):
    """The settings cannot be used; each line of the message names one of them."""


class ProgramSettings(BaseSettings):
    """The settings of one program, which `load` reads."""

    _secret_files: Mapping[str, Path] = PrivateAttr(default_factory=dict)
    _env_file: EnvFile | None = PrivateAttr(default=DEFAULT_ENV_FILE)

    @property
    def secret_files(self) -> Mapping[str, Path]:
        """The absolute path of each file that held a secret, by the field's name."""
        return self._secret_files

    @property
    def env_file(self) -> EnvFile | None:
        """The file that `load` read besides the environment; None: no file."""
        return self._env_file

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Use only the constructor's arguments; `load` reads the environment."""
        return (init_settings,)


class _Given(NamedTuple):
    """The text of a setting, and the name of the setting that it came from."""

    text: str
    label: str


def load(settings_class: type[S], env_file: EnvFile | None) -> S:
    """Read the settings from the environment, then from `env_file`.

    A secret may be in a file that NAME_FILE names. The variables that Kubernetes makes
    for a Service are ignored.

    Raises:
        SettingsError: with one line per setting that is missing, wrong or unknown. An
            unknown name with our prefix is refused, because a misspelt limit would not
            be in force.
    """
    texts = _read_texts(_prefix_of(settings_class), env_file)
    unknown = _find_unknown(settings_class, texts)
    given, files, problems = _read_given(settings_class, texts)
    for name, value in given.items():
        problem = _find_bad_form(settings_class.model_fields[name], value.text)
        if problem:
            problems[name] = f"{value.label}: {problem}"
    values: dict[str, Any] = {name: value.text for name, value in given.items()}
    try:
        settings = settings_class(_env_file=None, **values)
    except ValidationError as error:
        for found in error.errors():
            if found["loc"]:
                name = str(found["loc"][0])
                problems.setdefault(name, _explain(settings_class, given, dict(found)))
            elif not problems:  # between values of good form
                problems[""] = _explain(settings_class, given, dict(found))
    if unknown or problems:
        raise SettingsError("\n".join([*unknown, *problems.values()]))
    settings._secret_files = files
    settings._env_file = env_file
    return settings


def load_again(settings: S) -> S:
    """Read the settings from the environment and the file that these came from.

    Raises:
        SettingsError: as `load`.
    """
    return load(type(settings), settings.env_file)


def describe(settings: ProgramSettings) -> Iterator[str]:
    """Yield one NAME=VALUE line per setting in force, without secrets (R35)."""
    secrets = secrets_of(type(settings))
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        label = name_of(type(settings), name)
        if name in secrets:
            yield f"{label}={_hide(value, secrets[name])}"
        else:
            yield f"{label}={_write(value)}"
        if name in settings.secret_files:
            yield f"{label}{FILE_SUFFIX}={settings.secret_files[name]}"


def _hide(value: object, secret: Secret) -> str:
    if not (value.get_secret_value() if isinstance(value, SecretStr) else value):
        return ""
    return secret.show(value) if secret.show else "(set)"


def _write(value: object) -> str:
    """Return a value in the form of a settings file."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _prefix_of(settings_class: type[BaseSettings]) -> str:
    return str(settings_class.model_config.get("env_prefix", "")).upper()


def name_of(settings_class: type[BaseSettings], field: str) -> str:
    """Return the name of a field's setting, with prefix and in upper case."""
    return f"{_prefix_of(settings_class)}{field.upper()}"


def _read_texts(prefix: str, env_file: EnvFile | None) -> dict[str, str]:
    """Return the texts of all names with our prefix; names are in upper case.

    Raises:
        SettingsError: when the file cannot be used, or a name is set in two cases.
    """
    try:
        texts = read_env_file(env_file, prefix) if env_file is not None else {}
    except ValueError as error:
        raise SettingsError(str(error)) from None
    _refuse_misplaced(texts, env_file)
    found = {n.upper(): t for n, t in texts.items() if n.upper().startswith(prefix)}
    written: dict[str, str] = {}
    for name, text in os.environ.items():
        upper = name.upper()
        if not upper.startswith(prefix) or is_service_link(name, text):
            continue
        other = written.setdefault(upper, name)
        if other != name:
            both = " and as ".join(sorted((other, name)))
            raise SettingsError(f"{upper}: is set as {both}; remove one")
        found[upper] = text
    return found


def _refuse_misplaced(texts: Mapping[str, str], env_file: EnvFile | None) -> None:
    """Refuse a variable of OpenTelemetry that would not be in force.

    Raises:
        SettingsError: it stands in the file alone; the SDK reads the environment.
    """
    place = env_file.path if env_file is not None else ""
    for name in texts:
        if name.startswith("OTEL_") and name not in os.environ:
            raise SettingsError(
                f"{name}: stands in {place}, where OpenTelemetry does not look; set "
                "it in the environment of the process, or remove it"
            )


def _find_unknown(
    settings_class: type[BaseSettings], texts: Mapping[str, str]
) -> list[str]:
    """Return one line for each name with our prefix that is no setting."""
    prefix = _prefix_of(settings_class)
    fields = [*settings_class.model_fields]
    fields += [f"{name}{FILE_SUFFIX}" for name in secrets_of(settings_class)]
    # Compared without the prefix, which would make all of them alike.
    known = [field.upper() for field in fields]
    lines = []
    for name in sorted(name.removeprefix(prefix) for name in texts):
        if name in known:
            continue
        line = f"{prefix}{name}: there is no such setting"
        near = difflib.get_close_matches(name, known, n=1)
        if near:
            line += f"; did you mean {prefix}{near[0]}? (.env.example has them all)"
        else:
            line += " (.env.example has them all); remove it"
        lines.append(line)
    return lines


def _read_given(
    settings_class: type[BaseSettings], texts: Mapping[str, str]
) -> tuple[dict[str, _Given], dict[str, Path], dict[str, str]]:
    """Return the settings by field name, the files that held secrets, and problems.

    A problem is the line for a setting whose file cannot be used.
    """
    labels = {
        name: name_of(settings_class, name) for name in settings_class.model_fields
    }
    given = {
        n: _Given(texts[label], label) for n, label in labels.items() if label in texts
    }
    files: dict[str, Path] = {}
    problems: dict[str, str] = {}
    for name, secret in secrets_of(settings_class).items():
        try:
            file = read_secret_file(labels[name], secret, texts)
        except ValueError as error:
            problems[name] = str(error)
            continue
        if file is not None:
            given[name] = _Given(file.text, file.label)
            files[name] = file.path
    return given, files, problems


def _find_bad_form(field: FieldInfo, text: str) -> str | None:
    """Return the problem of a value's form, or None.

    Lists and JSON may have blanks around them and line breaks, because their entries
    are checked one by one.
    """
    if not _is_utf8(text):
        return "is not UTF-8; write it as UTF-8"
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        return (
            "has quotes around it, which are taken as a part of the value (docker's "
            "--env-file leaves them); remove them"
        )
    kind = field.annotation
    if kind not in _SCALARS and get_origin(kind) is not Literal:
        return None
    if text != text.strip():
        return "begins or ends with a blank or a line break; remove it"
    if _CONTROL.search(text):
        return "has a line break or another control character in it; remove it"
    form, rule = _NUMBERS.get(kind, (None, ""))
    return rule if form is not None and not form.fullmatch(text) else None


def _is_utf8(text: str) -> bool:
    """Return whether the environment's bytes were UTF-8; others become surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _explain(
    settings_class: type[BaseSettings],
    given: Mapping[str, _Given],
    problem: Mapping[str, Any],
) -> str:
    """Return the line for an error that pydantic found, without the value."""
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not problem["loc"]:
        return message
    name = str(problem["loc"][0])
    label = given[name].label if name in given else name_of(settings_class, name)
    if problem["type"] == "missing":
        line = f"{label}: is not set. {settings_class.model_fields[name].description}"
        is_secret = name in secrets_of(settings_class)
        return f"{line} Or set {label}{FILE_SUFFIX}." if is_secret else line
    if problem["type"] == "literal_error":
        words = str(problem["ctx"]["expected"]).replace("'", "")
        return f"{label}: must be {words}"
    rule = _RULES.get(str(problem["type"]))
    return f"{label}: {rule.format(**problem.get('ctx', {})) if rule else message}"
