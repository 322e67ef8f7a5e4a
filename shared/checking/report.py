"""Prints findings: for people, or as one JSON object (docs/checking.md)."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import IO, Final

from shared.checking.findings import Finding, Level
from shared.distribution import VERSION

#: Raised when a member of the JSON form changes its meaning or goes.
FORM: Final = 1
_WIDTH: Final = 100
_MOST_INDENTED: Final = 32
#: SGR sequences (ECMA-48, 8.3.117).
_COLOURS: Final = {Level.OK: "32", Level.WARNING: "33", Level.ERROR: "31"}


def status_of(findings: Sequence[Finding], *, is_strict: bool) -> int:
    """Return the exit status: 1 for an error, or for a warning if that counts."""
    bad = {Level.ERROR, Level.WARNING} if is_strict else {Level.ERROR}
    return int(any(finding.level in bad for finding in findings))


def write_json(
    program: str, findings: Sequence[Finding], status: int, **further: object
) -> None:
    """Print one JSON object.

    Args:
        program: `issuer` or `verifier`.
        findings: of all checks.
        status: of the exit.
        further: members of one command's own.
    """
    shown = {
        "form": FORM,
        "program": program,
        "version": VERSION,
        "status": status,
        "counts": {level.value: _count(findings, level) for level in Level},
        "findings": [finding._asdict() for finding in findings],
        **further,
    }
    sys.stdout.write(json.dumps(shown) + "\n")


def write_text(findings: Sequence[Finding], *, is_quiet: bool) -> None:
    """Print the findings in columns, and how many there are of each level."""
    is_coloured = _may_colour(sys.stdout)
    shown = [f for f in findings if not (is_quiet and f.level is Level.OK)]
    longest = max((len(finding.concerns) for finding in shown), default=0)
    indented = min(longest, _MOST_INDENTED)
    lines = [line for f in shown for line in _lines(f, indented, is_coloured)]
    counts = ", ".join(f"{level}: {_count(findings, level)}" for level in Level)
    sys.stdout.write("\n".join([*lines, counts]) + "\n")


def _lines(finding: Finding, indented: int, is_coloured: bool) -> Iterator[str]:
    level = f"{finding.level:<8}"
    if is_coloured:
        level = f"\x1b[{_COLOURS[finding.level]}m{level}\x1b[0m"
    margin = " " * (len(Level.WARNING) + 3 + indented)
    yield f"{level}{finding.concerns:<{indented}}  {_one_line(finding.found)}"
    if finding.remedy:
        yield from textwrap.wrap(
            f"-> {_one_line(finding.remedy)}",
            _WIDTH,
            initial_indent=margin,
            subsequent_indent=f"{margin}   ",
            break_long_words=False,
            break_on_hyphens=False,
        )


def _one_line(text: str) -> str:
    """Return the text without what could move a terminal's cursor."""
    return "".join(
        c if c.isprintable() else " " if c == "\n" else ascii(c)[1:-1] for c in text
    )


def _count(findings: Sequence[Finding], level: Level) -> int:
    return sum(finding.level is level for finding in findings)


def _may_colour(stream: IO[str]) -> bool:
    # https://no-color.org, and terminals without a cursor.
    return (
        stream.isatty()
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM") != "dumb"
    )
