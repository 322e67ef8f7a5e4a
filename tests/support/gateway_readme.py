"""Follows the README of a gateway's folder, step by step, as a new user does.

Every README has the same steps below "Try it, without root": commands to copy and to
change files, a table of the lines with addresses, and commands to start and to check.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

#: What all READMEs have for these; each test has its own.
SOCKETS: Final = "/run/gatehouse/"
_SECOND_VERIFIERS: Final = (9001, 9201)
_ROW: Final = re.compile(r"^\| *`([^`|]+)` *\| *`([^`]+)` *\|.*\|$", re.M)
_BLOCK: Final = re.compile(r"^```sh\n(.*?)^```$", re.M | re.S)
#: Begins the comments of every config: of shell, YAML, Caddy, and of Lua.
_COMMENTS: Final = ("#", "--")
#: Root's programs become another user by themselves, and could then not read the folder
#: of the test. Without root they cannot become another.
AS_ONE_USER: Final = ("setpriv", "--securebits=+no_setuid_fixup")


Env = Mapping[str, str]


class Line(NamedTuple):
    """One row of the table: a text of a file, with an address in it."""

    file: str
    text: str


class Readme(NamedTuple):
    """The steps.

    Attributes:
        copy: commands that bring the files.
        adapt: commands that change more than an address; may be empty.
        lines: those to change.
        start: commands that run the gateway, in the foreground.
        check: commands with the output that they must have (`walk_through`).
    """

    copy: str
    adapt: str
    lines: tuple[Line, ...]
    start: str
    check: str


class Places(NamedTuple):
    """Where everything is in place of the addresses that ship.

    Attributes:
        ports: by the port that ships. There is no second verifier, so that the steps
            must remove its ports.
        sockets: the folder of unix sockets, with a slash at its end.
    """

    ports: Mapping[int, int]
    sockets: str

    def put_into(self, text: str) -> str:
        """Return the text with these addresses."""
        text = text.replace(SOCKETS, self.sockets)
        return re.sub(
            r"\d+", lambda hit: str(self.ports.get(int(hit[0]), hit[0])), text
        )

    def left_in(self, folder: Path) -> list[str]:
        """Return the lines of the configs that still have an address that ships."""
        ports = "|".join(map(str, {*self.ports, *_SECOND_VERIFIERS}))
        written = re.compile(rf"{SOCKETS}|(?<!\d)(?:{ports})(?!\d)")
        return [
            f"{config.name}: {line.strip()}"
            for config in sorted(folder.iterdir())
            if config.is_file() and config.suffix != ".md"
            for line in config.read_text().splitlines()
            if written.search(line) and not line.strip().startswith(_COMMENTS)
        ]


def read_readme(page: Path) -> Readme:
    """Return the steps of a README.

    Raises:
        AssertionError: it lacks a step, or has two blocks of commands in one.
    """
    _, begun, rest = page.read_text().partition("\n## Try it, without root\n")
    assert begun, f"{page} has no part that needs no root"
    # A comment of a shell is no heading.
    steps = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", rest, re.M | re.S))
    commands = {}
    for step in ("Copy", "Change", "Start", "Check"):
        found = _BLOCK.findall(steps.get(step, ""))
        # A config may need no change but that of addresses.
        few = (0, 1) if step == "Change" else (1,)
        assert len(found) in few, f"{page}: {step} has {len(found)} blocks of commands"
        commands[step] = "".join(found)
    rows = _ROW.findall(steps["Change"])
    lines = tuple(Line(file, text.replace("\\|", "|")) for file, text in rows)
    assert lines, f"{page} has no line to change"
    return Readme(
        commands["Copy"],
        commands["Change"],
        lines,
        commands["Start"],
        commands["Check"],
    )


def follow(readme: Readme, folder: Path, places: Places, environment: Env) -> None:
    """Copy and change the files as the README says, in an empty folder.

    Raises:
        AssertionError: a command failed, a file lacks a line of the table, or an
            address is left that the table does not have.
    """
    _run(readme.copy, folder, environment)
    missing = [n for n in readme.lines if n.text not in (folder / n.file).read_text()]
    assert not missing, f"the file has no such line: {missing}"
    _run(readme.adapt, folder, environment)
    for file in {line.file for line in readme.lines}:
        # In one pass: a port that was put in may look like one that ships.
        texts = sorted((n.text for n in readme.lines if n.file == file), key=len)
        written = re.compile("|".join(re.escape(text) for text in reversed(texts)))
        config = folder / file
        text = config.read_text()
        config.write_text(written.sub(lambda hit: places.put_into(hit[0]), text))
    left = places.left_in(folder)
    assert not left, f"the table does not have: {left}"


def _run(commands: str, folder: Path, environment: Env) -> None:
    done = subprocess.run(
        ["sh", "-eu", "-c", commands],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), (commands, done.stderr)


def start_command(readme: Readme) -> tuple[str, ...]:
    """Return what runs the start of a README, with the rights of one user."""
    rights = AS_ONE_USER if os.geteuid() == 0 else ()
    return (*rights, "sh", "-eu", "-c", readme.start)
