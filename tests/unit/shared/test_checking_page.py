"""docs/checking.md names every check there is, and no other."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = ("shared/checking", "issuer/checking", "verifier/checking")
#: Words of checks in the code: in a call that adds a finding, or of a constant.
GROUPS = (
    "settings|files|ports|limits|database|keys|policies|copies|peers|issuer|issuers|check"
    "|native"
)


def test_every_check_is_in_the_table() -> None:
    code = "\n".join(
        path.read_text()
        for folder in FOLDERS
        for path in sorted((ROOT / folder).glob("*.py"))
    )
    used = set(re.findall(rf'"((?:{GROUPS})\.[a-z_]+)"', code))
    page = (ROOT / "docs/checking.md").read_text()
    table = page.partition("## What is checked")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    named = set(
        re.findall(r"`([a-z]+\.[a-z_]+)`", " ".join(r.split("|")[1] for r in rows))
    )
    assert len(used) > 20
    assert used == named
