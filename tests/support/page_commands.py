"""The commands of README.md and docs/*.md: blocks of shell, and commands in a sentence.

A comment in front of a block says which test types it, or why none can:

    <!-- commands: tests/integration/test_wheel.py -->
    <!-- commands: not run by a test: needs a container engine -->

A block without one is typed by tests/docs/test_commands.py, with all others of its
page.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[2]
#: Languages of blocks that are typed.
SHELLS: Final = ("sh", "bash", "shell", "console")
NOT_RUN: Final = "not run by a test: "
_FENCE = re.compile(r"^( *)```([\w-]*)[^\n]*\n(.*?)^\1``` *$", re.M | re.S)
_MARK = re.compile(r"<!-- commands: ([^\n]+?) -->\s*\Z")
_INLINE = re.compile(r"`([^`\n]+)`")
#: Words with which a line of commands begins.
PROGRAMS: Final = (
    *("apt-get", "bash", "cat", "cd", "cp", "createdb", "curl", "docker", "echo"),
    *("gatehouse-issuer", "gatehouse-verifier", "git", "install", "journalctl"),
    *("make", "mkdir", "mv", "openssl", "pg_dump", "pg_restore", "pip", "psql"),
    *("pytest", "python", "python3", "rm", "sed", "sh", "sqlite3", "sudo"),
    *("systemctl", "systemd-run", "tar", "umask"),
)


class Block(NamedTuple):
    """A block of commands.

    Attributes:
        page: its path from the root.
        line: of the page on which it begins.
        text: what is typed.
        mark: what the comment in front of it says; empty without one.
    """

    page: str
    line: int
    text: str
    mark: str

    @property
    def is_exempt(self) -> bool:
        """Whether no test types it; the mark has the reason."""
        return self.mark.startswith(NOT_RUN)

    @property
    def tests(self) -> list[str]:
        """The tests that type it in place of the common one."""
        return [] if self.is_exempt else re.findall(r"tests/[\w/.-]+\.py", self.mark)

    def with_words(self, words: Mapping[str, str]) -> str:
        """Return the text with other words in place of some, in one pass."""
        return replace_words(self.text, words)


def replace_words(text: str, words: Mapping[str, str]) -> str:
    """Return a text with other words in place of some, in one pass."""
    longest_first = sorted(words, key=len, reverse=True)
    pattern = "|".join(map(re.escape, longest_first))
    return re.sub(pattern, lambda hit: words[hit[0]], text)


def pages() -> list[str]:
    """Return README.md and all pages of docs/, but for the decisions."""
    docs = sorted((ROOT / "docs").glob("*.md"))
    return ["README.md", *(str(path.relative_to(ROOT)) for path in docs)]


def read_blocks(page: str) -> list[Block]:
    """Return the blocks of commands of a page, in their order."""
    text = (ROOT / page).read_text()
    blocks = []
    for match in _FENCE.finditer(text):
        if match[2] not in SHELLS:
            continue
        mark = _MARK.search(text[: match.start()])
        line = text.count("\n", 0, match.start()) + 1
        commands = textwrap.dedent(match[3])
        blocks.append(Block(page, line, commands, mark[1] if mark else ""))
    return blocks


def untagged_commands(page: str) -> list[str]:
    """Return lines that look like commands, in blocks that have no language."""
    text = (ROOT / page).read_text()
    return [
        line
        for match in _FENCE.finditer(text)
        if match[2] in {"", "text"}
        for line in textwrap.dedent(match[3]).splitlines()
        if line.removeprefix("$ ").split(" ")[0] in PROGRAMS
    ]


def inline_commands(page: str) -> list[str]:
    """Return the commands that stand in sentences: a program with arguments."""
    text = _FENCE.sub("", (ROOT / page).read_text())
    return [
        words
        for words in _INLINE.findall(text)
        if words.split(" ")[0] in PROGRAMS and " " in words
    ]
