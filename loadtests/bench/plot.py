"""The outcome as a picture."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

from loadtests.bench.measures import MEASURES
from loadtests.bench.outcome import Outcome

mpl.use("Agg")

from matplotlib import pyplot as plt


def draw(outcome: Outcome, path: Path) -> None:
    """Write a PNG: processor time of each measure, and how far each goal is."""
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(15, 6), layout="constrained", width_ratios=(4, 3)
    )
    shown = [(m, outcome.middle(m.name)) for m in reversed(MEASURES)]
    costs = [(m.title, s.cpu_us) for m, s in shown if s is not None]
    colours = ["#2b6cb0" if "ours" in t else "#a0aec0" for t, _ in costs]
    bars = left.barh([t for t, _ in costs], [c for _, c in costs], color=colours)
    left.bar_label(bars, fmt="%.1f", padding=3)
    # The tutorial's app would press all others against the axis.
    left.set_xscale("log")
    left.margins(x=0.15)
    left.set_xlabel("CPU per request, microseconds (logarithmic)")

    goals = [
        (
            r.goal.title,
            r.goal.must / r.value if r.goal.at_least else r.value / r.goal.must,
        )
        for r in reversed(outcome.reached())
        if r.value and r.goal.must
    ]
    shares = [share for _, share in goals]
    colours = ["#2f855a" if share <= 1 else "#c53030" for share in shares]
    bars = right.barh([title for title, _ in goals], shares, color=colours)
    right.bar_label(bars, fmt="%.2f", padding=3)
    right.axvline(1.0, color="black", linewidth=1)
    right.margins(x=0.15)
    right.set_xlabel("measured / bound (up to the line: kept)")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)
