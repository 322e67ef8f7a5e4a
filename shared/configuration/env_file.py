"""The settings file, `.env` or that of `--env-file`: names and values, one a line.

python-dotenv reads the lines. It skips a line that it cannot read, and the last of two
lines with one name wins. In both cases a setting of ours would silently not be in
force, so both are refused here.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from dotenv import dotenv_values
from dotenv.parser import Binding, parse_stream

from shared.configuration.bounded_file import UnreadableFileError, read_text

#: A reference to a variable, as python-dotenv replaces it; with `:-` it has a default.
_REFERENCE: Final = re.compile(r"\$\{([^}:]*)(:-[^}]*)?\}")


class EnvFile(NamedTuple):
    """Where a program reads the settings that its environment lacks.

    Attributes:
        path: relative to the working directory, or absolute.
        must_exist: whether an operator named it. Settings that were meant to be in
            force would otherwise silently be the defaults.
    """

    path: Path = Path(".env")
    must_exist: bool = False

    @classmethod
    def named(cls, name: str | None) -> EnvFile:
        """Return the file of `--env-file`; `.env` where the option is left out."""
        return cls() if name is None else cls(Path(name), must_exist=True)


#: Read unless another file is named, and only if it is there.
DEFAULT_ENV_FILE: Final = EnvFile()


class _Line(NamedTuple):
    """A line with a setting of ours; `name` is in upper case."""

    name: str
    number: int
    value: str


def read_env_file(file: EnvFile, prefix: str) -> dict[str, str]:
    """Return the variables of a file, or none when `.env` is not there.

    Names keep their case. `export` before a name, blanks around `=`, quotes, comments
    and `${NAME}` have the meaning that python-dotenv gives them. A byte order mark and
    Windows line ends are accepted.

    Args:
        file: a file, or a pipe, which some password managers offer.
        prefix: of the names of this program's settings, in upper case. Lines with other
            names are not checked.

    Raises:
        ValueError: naming the file or the setting, the line and the next step.
    """
    path = file.path
    try:
        text = read_text(path, may_be_pipe=True).replace("\r\n", "\n")
    except FileNotFoundError:
        if path.is_symlink():
            raise ValueError(
                f"{path}: is a link to a file that is not there; put the file there or "
                "remove the link"
            ) from None
        if file.must_exist:
            raise ValueError(
                f"--env-file: {path} is not there; name a file of NAME=VALUE lines"
            ) from None
        return {}
    except UnreadableFileError as error:
        remedy = "name another one" if file.must_exist else "remove it"
        raise ValueError(
            f"{path}: {error}; put a readable UTF-8 file there or {remedy}"
        ) from None
    bindings = list(parse_stream(io.StringIO(text)))
    lines = [_read_line(binding, path, prefix) for binding in bindings]
    _refuse_repeated([line for line in lines if line], path)
    _refuse_dangling(bindings, path, prefix)
    values = dotenv_values(stream=io.StringIO(text))
    return {name: value for name, value in values.items() if value is not None}


def _read_line(binding: Binding, path: Path, prefix: str) -> _Line | None:
    """Return the line if it sets a name of ours.

    Raises:
        ValueError: it looks like a setting of ours but is none, or its quotes include
            another such line.
    """
    text = binding.original.string
    blank = len(text) - len(text.lstrip())
    number = binding.original.line + text[:blank].count("\n")
    first, _, rest = text[blank:].partition("\n")
    taken = _find_setting(rest, prefix)
    if taken:
        raise ValueError(
            f"{path}: the quote that opens in line {number} takes in the line of "
            f"{taken}; close it"
        )
    if binding.key is not None and binding.value is not None:
        name = binding.key.upper()
        if name.startswith(prefix):
            return _Line(name, number, binding.value)
    named = _find_setting(binding.key or first, prefix)
    if named:
        raise ValueError(f"{path}: line {number} is not NAME=VALUE; write {named}=...")
    return None


def _find_setting(text: str, prefix: str) -> str | None:
    """Return the name of ours in a line of any form, also that of a shell.

    `export NAME`, `set NAME`, `declare -x NAME`, `$env:NAME`, `NAME` with dashes.
    """
    word = r"(?:export|set|setenv|declare|typeset|readonly|local|env|\$env:|-\w+)"
    start = rf"^[\s'\"-]*(?:{word}[\s'\"]*)*"
    name = prefix.replace("_", "[_-]") + r"[\w-]*"
    found = re.search(rf"{start}({name})", text, re.MULTILINE | re.IGNORECASE)
    return found[1].upper().replace("-", "_") if found else None


def _refuse_repeated(lines: Iterable[_Line], path: Path) -> None:
    """Refuse a second line with the same name.

    The empty lines of `.env.example` may precede appended ones.
    """
    seen: dict[str, _Line] = {}
    for line in lines:
        earlier = seen.setdefault(line.name, line)
        if earlier is not line and earlier.value:
            raise ValueError(
                f"{line.name}: stands in {path} twice, in lines {earlier.number} and "
                f"{line.number}; remove one"
            )
        seen[line.name] = line


def _refuse_dangling(bindings: Iterable[Binding], path: Path, prefix: str) -> None:
    """Refuse a reference to a variable that is not set: python-dotenv drops it."""
    known = set(os.environ)
    for binding in bindings:
        if binding.key is None or binding.value is None:
            continue
        is_ours = binding.key.upper().startswith(prefix)
        for name, default in _REFERENCE.findall(binding.value):
            if is_ours and not default and name not in known:
                raise ValueError(
                    f"{binding.key.upper()}: refers in {path} to a variable with "
                    "${...} that is not set; set it, or put a value that has ${ in it "
                    "into the environment"
                )
        known.add(binding.key)
