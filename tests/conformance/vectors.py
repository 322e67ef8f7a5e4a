"""Where the foreign vectors are, and where a run without them is a failure.

A clone of the project alone has none, and its tests pass without them. Where they are
expected, a run that cannot find them fails: a lost folder must not look like success.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

#: Set to anything but 0 or nothing: the vectors must be there.
REQUIRED = "GATEHOUSE_REQUIRE_VECTORS"
#: The project's papers, beside its clone; the vectors are in a folder of theirs.
PAPERS = Path(__file__).resolve().parents[3] / "shared"
DEFAULT = PAPERS / "vectors"
CORPUS = "corpus.jsonl.gz"


def why_required(
    named: Path | None, environment: Mapping[str, str], papers: Path
) -> str:
    """Return the reason why the vectors must be there; empty: they may be missing.

    Args:
        named: the folder given with `--vectors`, if one was given.
        environment: of this process.
        papers: the folder beside the clone that holds them in the project's own place.
    """
    if named is not None:
        return "--vectors names their folder"
    if environment.get(REQUIRED, "0") not in {"", "0"}:
        return f"{REQUIRED} is set"
    if environment.get("CI") and (papers / "DESIGN.md").is_file():
        return f"this is CI, and {papers} holds the project's papers"
    return ""
