"""A day's record as pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from loadtests.day.kinds import REFUSED, WORKED, WRONG
from loadtests.day.shape import DAY, begins

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

_COLOURS = {WORKED: "#2f855a", REFUSED: "#a0aec0", WRONG: "#c53030"}
_REASONS = 8


def draw(record: Mapping[str, Any], path: Path) -> None:
    """Write a PNG: answers by kind, times by phase, refusals by reason.

    Args:
        record: what `Record.write` wrote, read again.
        path: of the picture.
    """
    figure, places = plt.subplots(2, 2, figsize=(16, 10), layout="constrained")
    answers, failures, times, reasons = places.flat
    _draw_answers(answers, record)
    _draw_failures(failures, record)
    _draw_times(times, record)
    _draw_refusals(reasons, record)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def _mark_phases(place: Axes, seconds: float) -> None:
    for share, name in begins():
        place.axvline(share * seconds, color="#cbd5e0", linewidth=0.8, zorder=0)
        place.text(
            share * seconds, 1.0, f" {name}", rotation=25, fontsize=8, va="bottom",
            color="#4a5568", transform=place.get_xaxis_transform(),
        )  # fmt: skip
    place.set_xlim(0, seconds)
    place.set_xlabel("seconds")


def _draw_answers(place: Axes, record: Mapping[str, Any]) -> None:
    """Stack the answers of each second by kind, with the number of users above."""
    seconds = range(int(record["seconds"]))
    kinds = record["kinds"]
    stacked = [
        [kinds.get(str(second), {}).get(kind, 0) for second in seconds]
        for kind in _COLOURS
    ]
    place.stackplot(seconds, stacked, labels=list(_COLOURS), colors=_COLOURS.values())
    place.set_ylabel("answers a second")
    place.margins(y=0.25)
    users = record["users"]
    beside = place.twinx()
    at = sorted(users, key=int)
    beside.plot([int(each) for each in at], [users[each] for each in at], "k--", lw=1)
    beside.set_ylabel("users (dashed)")
    beside.set_ylim(bottom=0)
    place.legend(loc="upper left", fontsize=9)
    place.set_title("answers, by kind", pad=45)
    _mark_phases(place, record["seconds"])


def _draw_failures(place: Axes, record: Mapping[str, Any]) -> None:
    """Show the unexpected answers; their absence is the good result."""
    failures = sorted(record["failures"].items(), key=lambda pair: -pair[1])[:12]
    totals = {
        kind: sum(second.get(kind, 0) for second in record["kinds"].values())
        for kind in _COLOURS
    }
    names = [*totals, *(name[:60] for name, _ in failures)]
    counts = [*totals.values(), *(count for _, count in failures)]
    colours = [*_COLOURS.values(), *("#c53030" for _ in failures)]
    bars = place.barh(names, counts, color=colours)
    place.bar_label(bars, labels=[f"{count:,}" for count in counts], padding=3)
    place.invert_yaxis()
    place.margins(x=0.15)
    place.set_title("all answers; below them, what was not as expected")


def _draw_times(place: Axes, record: Mapping[str, Any]) -> None:
    """Show median and 99th percentile of each kind of work, by phase."""
    works = sorted({each["work"] for each in record["times"]})
    names = [phase.name for phase in DAY]
    for number, work in enumerate(works):
        of = {e["phase"]: e["ms"] for e in record["times"] if e["work"] == work}
        spread = (number - (len(works) - 1) / 2) * 0.12
        seen = [(i, of[name]) for i, name in enumerate(names) if of.get(name)]
        middle = np.array([np.percentile(ms, 50) for _, ms in seen])
        high = np.array([np.percentile(ms, 99) for _, ms in seen])
        place.errorbar(
            [index + spread for index, _ in seen],
            middle,
            yerr=[np.zeros(len(seen)), high - middle],
            fmt="o",
            capsize=3,
            label=work,
        )
    place.set_yscale("log")
    place.set_xticks(range(len(names)), names, rotation=20)
    place.set_ylabel("milliseconds")
    place.legend(fontsize=9, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.12))
    place.grid(axis="y", alpha=0.3)
    place.set_title("time of an answer: median, and up to the 99th percentile")


def _draw_refusals(place: Axes, record: Mapping[str, Any]) -> None:
    """Show what the gate itself counted, by reason, since the day began."""
    looks = {int(at): counts for at, counts in record["refusals"].items()}
    seconds = sorted(looks)
    place.set_title(
        "the gate's refusals since the beginning, by reason (/metrics)", pad=45
    )
    if not seconds:
        place.text(0.5, 0.5, "no VERIFIER_ADMIN_URL in demo.env", ha="center")
        return
    first, last = looks[seconds[0]], looks[seconds[-1]]
    grown = {n: last[n] - first.get(n, 0) for n in last if last[n] > first.get(n, 0)}
    largest = sorted(grown, key=lambda name: -grown[name])[:_REASONS]
    for name in largest:
        counts = [looks[at].get(name, 0) - first.get(name, 0) for at in seconds]
        place.plot(seconds, counts, label=f"{name} ({grown[name]:,.0f})")
    place.legend(loc="upper left", fontsize=9)
    _mark_phases(place, record["seconds"])
