"""The outcome of a run: medians of the rounds, ratios within each round."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from loadtests.bench.load import KEPT_BUSY, Sample
from loadtests.bench.measures import GOALS, MEASURES, Goal


@dataclass(frozen=True, slots=True)
class Reached:
    """A goal and its measured values.

    Attributes:
        goal: the goal.
        value: the median of the rounds' ratios, or the size; None: not measured.
        least: the smallest of them.
        most: the largest of them.
    """

    goal: Goal
    value: float | None = None
    least: float = 0.0
    most: float = 0.0

    @property
    def verdict(self) -> str:
        """The verdict: `aim`, `must`, `MISSED`, `not measured`, or `-` without a
        bound.
        """
        if self.value is None:
            return "not measured"
        if self.goal.must is None:
            return "-"
        if self.goal.is_within(self.value, self.goal.aim):
            return "aim"
        return "must" if self.goal.is_within(self.value, self.goal.must) else "MISSED"


@dataclass(slots=True)
class Outcome:
    """One run.

    Attributes:
        samples: by measure, one sample a round.
        memory: figures in bytes.
        missing: by program not installed, the package that brings it.
        versions: by program or library.
        method: how it was measured.
        retaken: how many samples were taken again since the server had idled.
    """

    samples: dict[str, list[Sample]] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    method: dict[str, object] = field(default_factory=dict)
    retaken: int = 0

    @property
    def wrong(self) -> int:
        """Wrong answers of all measures and rounds."""
        return sum(s.wrong for samples in self.samples.values() for s in samples)

    @property
    def idled(self) -> list[str]:
        """The measures with a server that had too little to do in most rounds."""
        middles = {name: self.middle(name) for name in self.samples}
        return [
            n for n, middle in middles.items() if middle and middle.busy < KEPT_BUSY
        ]

    def middle(self, name: str) -> Sample | None:
        """Return the medians of a measure, None without one; wrong answers add up."""
        samples = self.samples.get(name)
        if not samples:
            return None
        return Sample(
            cpu_us=median(s.cpu_us for s in samples),
            rate=median(s.rate for s in samples),
            p50_us=median(s.p50_us for s in samples),
            p99_us=median(s.p99_us for s in samples),
            wrong=sum(s.wrong for s in samples),
            busy=median(s.busy for s in samples),
        )

    def reached(self) -> list[Reached]:
        """Return every goal with its measured values."""
        return [self._reach(goal) for goal in GOALS]

    def _reach(self, goal: Goal) -> Reached:
        if goal.quantity == "memory":
            if goal.over not in self.memory:
                return Reached(goal)
            size = self.memory[goal.over] / 1e6
            return Reached(goal, size, size, size)
        over, under = self.samples.get(goal.over), self.samples.get(goal.under)
        if not over or not under:
            return Reached(goal)
        # Within a round: a disturbance of a minute affects both.
        ratios = [
            getattr(a, goal.quantity) / getattr(b, goal.quantity)
            for a, b in zip(over, under, strict=False)
        ]
        return Reached(goal, median(ratios), min(ratios), max(ratios))

    def relative(self, name: str) -> float | None:
        """Return a measure's processor time over that of nginx's fixed answer."""
        samples, base = self.samples.get(name), self.samples.get("nginx")
        if not samples or not base:
            return None
        pairs = zip(samples, base, strict=False)
        return median(a.cpu_us / b.cpu_us for a, b in pairs)

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON takes it; times in microseconds, sizes in bytes."""
        measures = {}
        for measure in MEASURES:
            middle = self.middle(measure.name)
            if middle is not None:
                measures[measure.name] = {
                    "title": measure.title,
                    "median": asdict(middle),
                    "rounds": [asdict(s) for s in self.samples[measure.name]],
                }
        goals = [
            asdict(reached.goal)
            | {
                "value": reached.value,
                "least": reached.least,
                "most": reached.most,
                "verdict": reached.verdict,
            }
            for reached in self.reached()
        ]
        return {
            "method": self.method,
            "versions": self.versions,
            "missing": self.missing,
            "measures": measures,
            "goals": goals,
            "memory_bytes": self.memory,
            "wrong_answers": self.wrong,
            "idled": self.idled,
            "retaken": self.retaken,
        }
