"""Secrets that come from files: NAME_FILE holds the path of a file with NAME (R57).

An orchestrator can mount such files (Docker and Kubernetes secrets, systemd
credentials). The secrets are then in no environment that other programs can read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic import SecretStr
from pydantic_settings import BaseSettings

from shared.configuration.bounded_file import UnreadableFileError, read_text

#: Appended to a secret's name: the setting with the path of a file that holds it.
FILE_SUFFIX: Final = "_FILE"


class Secret:
    """Marks a setting as a secret, in its `Annotated` type.

    A `SecretStr` needs no mark.

    Attributes:
        show: returns the part of a value that operators may see; None: only that it
            is set.
        may_name_file: whether `@PATH` as the value means what NAME_FILE=PATH means.
    """

    def __init__(
        self,
        show: Callable[[Any], str] | None = None,
        *,
        may_name_file: bool = False,
    ) -> None:
        self.show = show
        self.may_name_file = may_name_file


class SecretFile(NamedTuple):
    """A file that a secret was read from.

    Attributes:
        label: the setting that names the file.
        path: its absolute path.
        text: its content.
    """

    label: str
    path: Path
    text: str


def secrets_of(settings_class: type[BaseSettings]) -> dict[str, Secret]:
    """Return the mark of each secret by its field's name, in the order of the class."""
    found = {}
    for name, field in settings_class.model_fields.items():
        marks = [mark for mark in field.metadata if isinstance(mark, Secret)]
        if marks or field.annotation is SecretStr:
            found[name] = marks[0] if marks else Secret()
    return found


def read_secret_file(
    name: str, secret: Secret, texts: Mapping[str, str]
) -> SecretFile | None:
    """Return the file of a secret, or None when the settings name none.

    An empty NAME beside NAME_FILE does not count, because `.env.example` has such
    lines.

    Args:
        name: the secret's setting, as NAME.
        secret: its mark.
        texts: all settings by name.

    Raises:
        ValueError: both are set, or the file cannot be used; the message names the
            setting.
    """
    text, label = texts.get(name, ""), f"{name}{FILE_SUFFIX}"
    path = texts.get(label)
    if path is not None and text:
        raise ValueError(f"{name}: {label} is set as well; remove one of the two")
    if path is None and secret.may_name_file and text.startswith("@"):
        path, label = text[1:], name
    if path is None:
        return None
    try:
        return SecretFile(label, Path(path).absolute(), _read(path))
    except ValueError as error:
        raise ValueError(f"{label}: {error}") from None


def _read(path: str) -> str:
    """Return a file's text without its last newline, LF or CR LF.

    Any other blank stays, and is refused when the value is checked.

    Raises:
        ValueError: the file is missing, unusable or empty. A path without a file is not
            repeated, because it may be the secret itself (R35).
    """
    if not path or not path.isprintable():
        raise ValueError("must be the path of a file; write one, or remove the setting")
    try:
        text = read_text(path)
    except FileNotFoundError:
        raise ValueError(
            "there is no file at this path; it takes the path of a file that holds the "
            "secret, not the secret"
        ) from None
    except UnreadableFileError as error:
        raise ValueError(
            f"the file {error}; write the secret into a UTF-8 text file that the "
            "program's user may read"
        ) from None
    if text.endswith("\n"):
        text = text[:-1].removesuffix("\r")
    if not text:
        raise ValueError("the file is empty; write the secret into it")
    return text
