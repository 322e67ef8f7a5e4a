"""The files that belong to a program: gateway configs, rules for Prometheus, systemd
unit, all settings.

A wheel has them in this package (`setup.py`), a checkout has them in `deploy/`.
`configs DIRECTORY` writes them to a directory, to be copied and changed.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Final

from shared.distribution import invoked_as

NAME: Final = "configs"
_SETTINGS: Final = {".env.example": "env.example"}
#: One Prometheus watches both programs, so both have its files.
_MONITORING: Final = {"deploy/grafana": "grafana", "deploy/prometheus": "prometheus"}
#: Each file or folder of a program in the tree, and its name when it is written out.
_PLACES: Final = {
    "issuer": {
        **_MONITORING,
        "deploy/systemd/gatehouse-issuer.service": "systemd/gatehouse-issuer.service",
        **_SETTINGS,
    },
    "verifier": {
        "deploy/gateways": "gateways",
        **_MONITORING,
        "deploy/systemd/gatehouse-verifier.service": "systemd/gatehouse-verifier.service",
        **_SETTINGS,
    },
}
#: The Python that the shipped units name; it is replaced by the one that runs.
_UNIT_PYTHON: Final = "/opt/gatehouse/.venv/bin/python"
_PACKAGED: Final = Path(__file__).with_name("configs")
_CHECKOUT: Final = Path(__file__).parents[1]
_DESCRIPTION: Final = """\
Lists the files that go with this program, or writes them below a directory. A systemd
unit that is written starts the Python that runs this command. A file that is there
already and differs is left alone; nothing is written then, and the status is 1."""


class ConfigsError(Exception):
    """The files cannot be read or written; the message names them and a remedy."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to a program's parser."""
    parser = commands.add_parser(
        NAME,
        help="list or write out gateway configs, alerts, systemd unit and settings",
        description=_DESCRIPTION,
    )
    parser.add_argument(
        "directory",
        metavar="DIRECTORY",
        nargs="?",
        type=Path,
        help="where to write them; made when it is not there",
    )


def run(program: str, directory: Path | None) -> int:
    """Run the command; return the exit status.

    Args:
        program: `issuer` or `verifier`.
        directory: where to write the files; None: print their names.
    """
    try:
        files = read_files(program)
        if directory is None:
            shown = [*files]
            sys.stderr.write(
                f"Write them out: {invoked_as(program)} {NAME} DIRECTORY\n"
            )
        else:
            shown = [str(path) for path in write_files(files, directory)]
        sys.stdout.write("".join(f"{line}\n" for line in shown))
    except ConfigsError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def read_files(program: str) -> dict[str, str]:
    """Return the text of each file that belongs to a program, by its name.

    Raises:
        ConfigsError: only the packages are installed, as in an image.
    """
    base = _PACKAGED if _PACKAGED.is_dir() else _CHECKOUT
    files: dict[str, str] = {}
    for place, name in _PLACES[program].items():
        source = base / place
        for path in sorted(source.rglob("*")) if source.is_dir() else [source]:
            if path.is_file():
                written = (Path(name) / path.relative_to(source)).as_posix()
                files[written] = path.read_text("utf-8")
    if not files:
        raise ConfigsError(
            "The configs are not a part of this installation. They are in the wheel "
            "(pip install gatehouse-auth) and in deploy/ of the source."
        )
    return {name: _for_this_python(name, text) for name, text in files.items()}


def write_files(files: dict[str, str], directory: Path) -> list[Path]:
    """Write the files below a directory and return their paths.

    Raises:
        ConfigsError: a file exists with another text, or cannot be written.
    """
    paths = {directory / name: text for name, text in files.items()}
    try:
        changed = [
            path
            for path, text in paths.items()
            if path.exists() and path.read_bytes() != text.encode()
        ]
        if changed:
            raise ConfigsError(
                f"{changed[0]} is there already and differs; nothing was written. "
                "Name another directory, and compare."
            )
        for path, text in paths.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
    except OSError as error:
        raise ConfigsError(f"{directory} cannot be written: {error}") from None
    return list(paths)


def _for_this_python(name: str, text: str) -> str:
    if not name.endswith(".service"):
        return text
    # systemd.service(5): `%` begins a specifier, and blanks need quotes.
    python = sys.executable.replace("%", "%%")
    if re.search(r"[^\w@%+=:,./-]", python):
        python = '"' + python.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return text.replace(_UNIT_PYTHON, python)
