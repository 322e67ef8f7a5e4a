"""Text inside of list items, indented as the site's Markdown needs it.

GitHub (CommonMark) takes a block for a part of an item if it begins below the item's
text: behind three blanks for `1. `. Python-Markdown, which the site is built with,
wants four blanks, and ends the list otherwise. It also needs a blank line between a
block in an item and the next item, and takes a list of another kind for more items of
the one before.
"""

from __future__ import annotations

import re

_ITEM = re.compile(r"( *)(\d+\.|[-*]) +")
_FENCE = re.compile(r" *(`{3,}|~{3,})")
#: Blanks of a level.
_LEVEL = 4


def widen_lists(text: str) -> str:
    """Return the page with its lists as the site's Markdown needs them."""
    lines: list[str] = []
    # Where the text of each open item begins, the outermost first.
    levels: list[int] = []
    fence = last_kind = ""
    for line in text.splitlines():
        opened = _FENCE.match(line)
        item = None if fence or opened else _ITEM.match(line)
        if not fence:
            levels = _still_open(line, levels)
        if item:
            kind = "1" if item[2][0].isdigit() else "-"
            if not levels and last_kind and kind != last_kind:
                lines += ["", "<!-- -->"]
            last_kind = kind if not levels else last_kind
            if lines and lines[-1].strip() and _needs_blank_line(lines, levels):
                lines.append("")
        elif line.strip() and not levels and not fence:
            last_kind = ""
        lines.append(_indented(line, levels))
        if opened and not fence:
            fence = opened[1]
        elif opened and line.strip() == fence:
            fence = ""
        if item:
            levels = [*levels, item.end()]
    return "\n".join(lines) + "\n"


def _still_open(line: str, levels: list[int]) -> list[int]:
    """Return the items to which a line may belong."""
    if not line.strip():
        return levels
    blanks = len(line) - len(line.lstrip(" "))
    return [level for level in levels if level <= blanks]


def _needs_blank_line(lines: list[str], levels: list[int]) -> bool:
    """Whether an item, which comes next, is not the neighbour of an item.

    Args:
        lines: of the page up to the item, with blanks added; the last is not blank.
        levels: of the items around the item.
    """
    blanks = " " * (_LEVEL * len(levels))
    for line in reversed(lines):
        if not line.strip():
            return True
        if line.startswith(blanks) and _ITEM.match(line[len(blanks) :]):
            return line[len(blanks)] == " "
    return True


def _indented(line: str, levels: list[int]) -> str:
    if not levels or not line.strip():
        return line
    within = line[levels[-1] :] if not line[: levels[-1]].strip() else line.lstrip(" ")
    return " " * (_LEVEL * len(levels)) + within
