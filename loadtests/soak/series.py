"""The readings of a run, in order, and what became of each series."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from loadtests.soak.growth import LEAST_READINGS, Growth, measure
from loadtests.soak.readings import Files, Usage

#: Whose memory is judged; the other programs are not Gatehouse's, and PostgreSQL's
#: buffers fill for hours.
_OURS = ("issuer", "verifier")
#: Whose descriptors are judged: a connection that is never closed is seen at both ends.
_CONNECTED = (*_OURS, "gateway", "app")
#: What of the files is judged: logs grow with what is logged, and are rotated.
_JUDGED_FILES = ("files", "file_bytes")


@dataclass
class Series:
    """Readings by name, each with its time.

    Attributes:
        warm_up: seconds at the beginning that do not count.
        values: of each series pairs of seconds since the beginning and reading.
    """

    warm_up: float
    values: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def note_usage(self, at: float, program: str, usage: Usage) -> None:
        """Add what a program takes at this moment."""
        for name, value in usage._asdict().items():
            self._note(at, f"{program} {name}", value)

    def note_files(self, at: float, files: Files) -> None:
        """Add what is on the disk."""
        for name, value in files._asdict().items():
            self._note(at, f"disk {name}", value)

    def note_rows(self, at: float, rows: Mapping[str, int]) -> None:
        """Add how many rows the tables have."""
        for name, value in rows.items():
            self._note(at, f"rows {name}", value)

    def _note(self, at: float, name: str, value: float) -> None:
        self.values.setdefault(name, []).append((round(at, 1), value))

    @property
    def is_short(self) -> bool:
        """Whether a series has too few readings after the warm-up to be measured."""
        return any(
            sum(at >= self.warm_up for at, _ in pairs) < LEAST_READINGS
            for pairs in self.values.values()
        )

    def growths(self) -> list[Growth]:
        """Return the growth of each series after the warm-up."""
        found = []
        for name, pairs in self.values.items():
            after = [(at, value) for at, value in pairs if at >= self.warm_up]
            times, values = zip(*after, strict=True)
            found.append(measure(name, times, values, judged=_is_judged(name)))
        return found


def _is_judged(name: str) -> bool:
    program, _, what = name.partition(" ")
    if program == "disk":
        return what in _JUDGED_FILES
    if what == "memory":
        return program in _OURS
    return what == "descriptors" and program in _CONNECTED
