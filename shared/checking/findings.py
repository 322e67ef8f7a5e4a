"""What a check found: each finding has a level, what it concerns, and a remedy."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Final, NamedTuple

#: Findings of one run at most: a broken installation must not print without an end.
MAX_FINDINGS: Final = 500


class Level(StrEnum):
    """How bad a finding is; the words are part of the form of `--json`."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


class Finding(NamedTuple):
    """One finding.

    Attributes:
        level: `error` when the program would not start, or would not do its work.
        check: the word for the check, such as `database.clock`; programs rely on it.
        concerns: the setting, the file or the address.
        found: what was found, without a secret.
        remedy: what to do; empty for `ok`.
    """

    level: Level
    check: str
    concerns: str
    found: str
    remedy: str = ""


class Findings:
    """Collects findings in the order in which they are made."""

    def __init__(self) -> None:
        self._found: list[Finding] = []

    def __iter__(self) -> Iterator[Finding]:
        return iter(self._found)

    def ok(self, check: str, concerns: str, found: str) -> None:
        """Append a finding that asks for nothing."""
        self._append(Finding(Level.OK, check, concerns, found))

    def warn(self, check: str, concerns: str, found: str, remedy: str) -> None:
        """Append what should be looked at."""
        self._append(Finding(Level.WARNING, check, concerns, found, remedy))

    def error(self, check: str, concerns: str, found: str, remedy: str) -> None:
        """Append what keeps the program from its work."""
        self._append(Finding(Level.ERROR, check, concerns, found, remedy))

    def count(self, level: Level) -> int:
        """Return the number of findings of one level."""
        return sum(finding.level is level for finding in self._found)

    def _append(self, finding: Finding) -> None:
        if len(self._found) < MAX_FINDINGS:
            self._found.append(finding)
        # The last one stands for all that follow.
        if len(self._found) == MAX_FINDINGS:
            self._found[-1] = Finding(
                Level.ERROR,
                "check.findings",
                "check",
                f"there are {MAX_FINDINGS} findings or more",
                "mend the first ones, and check again",
            )
