"""The examples of docs/policies.md, by the heading above them."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "policies.md"
_HEADING = re.compile(r"^#+ (.+)$", re.M)
_BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.M | re.S)


def blocks(heading: str, language: str) -> list[str]:
    """Return the code blocks of one language below a heading, up to the next one."""
    text = PAGE.read_text()
    # A comment of an example looks like a heading.
    code = [(match.start(), match.end()) for match in _BLOCK.finditer(text)]
    headings = [
        match
        for match in _HEADING.finditer(text)
        if not any(start < match.start() < end for start, end in code)
    ]
    (place,) = [n for n, match in enumerate(headings) if match[1] == heading]
    end = headings[place + 1].start() if place + 1 < len(headings) else len(text)
    section = text[headings[place].end() : end]
    return [
        textwrap.dedent(match[3])
        for match in _BLOCK.finditer(section)
        if match[2] == language
    ]


def first_policies() -> str:
    """Return the policy file with which the page begins."""
    (text,) = blocks("Write the first policy", "toml")
    return text


def every_field() -> str:
    """Return the policy file that shows every field."""
    (text,) = blocks("Every field", "toml")
    return text


def cases() -> tuple[str, str]:
    """Return the cases for `first_policies`, and those for `every_field`."""
    first, other = blocks("Test a policy file", "toml")
    return first, other


def of_other_issuers() -> tuple[str, str, str]:
    """Return the issuers file, the policy file and the cases of other issuers."""
    issuers, policies, cases = blocks("Accept tokens of other issuers", "toml")
    return issuers, policies, cases
