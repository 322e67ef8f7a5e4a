"""The files that docs/issuers/*.md show, by the name in their first line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).resolve().parents[2] / "docs" / "issuers"
ISSUERS_FILE, POLICIES_FILE = "issuers.toml", "policies.toml"
_BLOCK: Final = re.compile(r"^( *)```toml\n(.*?)^\1```$", re.M | re.S)
_ISSUER: Final = re.compile(r'^issuer = "(.+)"$', re.M)


def pages() -> list[Path]:
    """Return the pages, in the order of their names."""
    return sorted(FOLDER.glob("*.md"))


def shown(page: Path, file: str) -> list[str]:
    """Return what a page shows of a file.

    Args:
        page: one of `pages`.
        file: `ISSUERS_FILE` or `POLICIES_FILE`.
    """
    return [text for name, text in _files(page) if name == file]


def names_of(page: Path) -> set[str]:
    """Return the names in the first line of the page's blocks of TOML."""
    return {name for name, _ in _files(page)}


def entry(name: str, issuer: str) -> str:
    """Return the entry of docs/issuers/NAME.md, for the issuer that runs here.

    Raises:
        ValueError: the page does not show exactly one.
    """
    (text,) = shown(FOLDER / f"{name}.md", ISSUERS_FILE)
    (written,) = _ISSUER.findall(text)
    # The address of the keys, where the page has one, is below that of the issuer.
    return text.replace(written, issuer)


def _files(page: Path) -> list[tuple[str, str]]:
    found = []
    for match in _BLOCK.finditer(page.read_text()):
        lines = [line.removeprefix(match[1]) for line in match[2].splitlines()]
        found.append((lines[0].removeprefix("# "), "\n".join(lines) + "\n"))
    return found
