"""Which pages the site has, in which groups, and what they link to."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
NAVIGATION = ROOT / "docs" / "navigation.toml"
#: The group of pages that no group names.
REST = "More"
_CODE = re.compile(r"^( *)(`{3,})[^\n]*\n.*?^\1\2 *$", re.M | re.S)
_LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)(?:#[^)\s]*)?\)")
_PICTURE = re.compile(r'(?:src|srcset)="(?!https?:|data:)([^"]+)"')


class Group(NamedTuple):
    """A part of the navigation: its title, and its pages as paths from the root."""

    title: str
    pages: tuple[str, ...]


def read_groups(root: Path = ROOT) -> list[Group]:
    """Return the groups of the navigation, every page once.

    Args:
        root: of the repository.

    Raises:
        FileNotFoundError: a group names a page, or a pattern, that is not there.
    """
    wanted = tomllib.loads((root / "docs" / "navigation.toml").read_text())["group"]
    named = {page for group in wanted for page in group["pages"] if "*" not in page}
    seen: set[str] = set()
    groups = []
    for group in wanted:
        pages: list[str] = []
        for entry in group["pages"]:
            found = sorted(str(path.relative_to(root)) for path in root.glob(entry))
            if not found:
                raise FileNotFoundError(f"docs/navigation.toml: {entry} is not there")
            if "*" in entry:
                found = [page for page in found if page not in named]
            pages += [page for page in found if page not in seen]
            seen.update(pages)
        groups.append(Group(group["title"], tuple(pages)))
    all_docs = (str(path.relative_to(root)) for path in root.glob("docs/**/*.md"))
    rest = tuple(sorted(page for page in all_docs if page not in seen))
    return [*groups, Group(REST, rest)] if rest else groups


def linked_files(page: Path) -> set[Path]:
    """Return the files of the repository that a page links to or shows, absolute."""
    text = _CODE.sub("", page.read_text())
    names = [*_LINK.findall(text), *_PICTURE.findall(text)]
    return {(page.parent / name).resolve() for name in names}
