"""Writes the list of decisions, docs/decisions/README.md, from their titles.

Run `python -m deploy.docs_site.decisions` after adding a decision. A test fails while
the list is out of date.
"""

from __future__ import annotations

import re
from pathlib import Path

from deploy.docs_site.pages import ROOT

FOLDER = ROOT / "docs" / "decisions"
PAGE = FOLDER / "README.md"
_HEAD = """\
# Decisions

Why things are as they are: one page for each choice that is hard to see from the code, with
what was measured and what was given up. A new one takes the next free number, and
`python -m deploy.docs_site.decisions` adds it here. A page is not rewritten when a later
decision changes it; it then names the later one.

"""


def decisions_page(folder: Path = FOLDER) -> str:
    """Return the text of the list.

    Raises:
        ValueError: a page has no title of the form `# 0001: Title`, or the number of
            its title is not that of its name.
    """
    return _HEAD + "".join(_line(page) for page in sorted(folder.glob("0*.md")))


def _line(page: Path) -> str:
    title = re.match(r"# (\d{4}): (.+)\n", page.read_text())
    if title is None or not page.name.startswith(f"{title[1]}-"):
        raise ValueError(f"{page.name}: the first line must be '# NUMBER: Title'")
    return f"- [{title[1]}]({page.name}): {title[2]}\n"


if __name__ == "__main__":
    PAGE.write_text(decisions_page())
