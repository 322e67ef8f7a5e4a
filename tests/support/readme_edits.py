"""The lines that a gateway's README says to change, as blocks of `diff`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from deploy.gateway_programs.program import CONFIGS

_SECTION = re.compile(r"^## (.+)\n((?:(?!^## ).*\n?)*)", re.M)
_BLOCK = re.compile(r"^```diff\n(.*?)^```$", re.M | re.S)


@dataclass(frozen=True, slots=True)
class LineEdit:
    """One line to change.

    Attributes:
        file: the config's name.
        written: what stands there, once or more.
        wanted: what is to stand there.
    """

    file: str
    written: str
    wanted: str

    def apply(self, folder: Path) -> None:
        """Change the config in a folder."""
        config = folder / self.file
        text = config.read_text()
        assert self.written in text, f"{self.file} has no line {self.written!r}"
        config.write_text(text.replace(self.written, self.wanted))


def read_edits(configs: str, heading: str) -> list[LineEdit]:
    """Return the lines to change below a heading of a README.

    A block is about the config that the text before it names last.

    Args:
        configs: the folder below deploy/gateways/.
        heading: of the section.
    """
    folder = CONFIGS / configs
    sections = dict(_SECTION.findall((folder / "README.md").read_text()))
    section = sections[heading]
    edits = []
    for block in _BLOCK.finditer(section):
        names = re.findall(r"`([\w.]+)`", section[: block.start()])
        file = [name for name in names if (folder / name).is_file()][-1]
        lines = block[1].splitlines()
        for written, wanted in zip(lines[::2], lines[1::2], strict=True):
            assert (written[0], wanted[0]) == ("-", "+"), block[0]
            edits.append(LineEdit(file, written[1:], wanted[1:]))
    assert edits, f"{configs}: {heading} has no lines"
    return edits
