"""The readings of a soak as a picture."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

from loadtests.soak.series import Series

mpl.use("Agg")

from matplotlib import pyplot as plt

_MIB = 1_048_576
#: Title, how the names of its series end, what they are divided by.
_PANELS = (
    ("memory of each program (PSS), MiB", " memory", _MIB),
    ("open descriptors", " descriptors", 1),
    ("threads", " threads", 1),
    ("files besides database and logs", "disk files", 1),
    ("logs, MiB", "disk log_bytes", _MIB),
    ("rows of the largest tables", "rows ", 1),
)
_LARGEST = 8


def draw(series: Series, path: Path) -> None:
    """Write a PNG: all series over the minutes, the warm-up in grey."""
    figure, places = plt.subplots(2, 3, figsize=(16, 8), layout="constrained")
    for place, (title, pattern, unit) in zip(places.flat, _PANELS, strict=True):
        found = {
            name: pairs
            for name, pairs in series.values.items()
            if (
                name.startswith(pattern)
                if pattern.endswith(" ")
                else name.endswith(pattern)
            )
        }
        largest = sorted(found, key=lambda name: found[name][-1][1])[-_LARGEST:]
        for name in reversed(largest):
            times = [at / 60 for at, _ in found[name]]
            values = [value / unit for _, value in found[name]]
            label = name.removesuffix(pattern).removeprefix(pattern) or None
            place.plot(times, values, label=label)
        place.axvspan(0, series.warm_up / 60, color="#e2e8f0", zorder=0)
        place.set_title(title)
        place.set_ylim(bottom=0)
        place.set_xlabel("minutes (grey: warm-up)")
        if len(found) > 1:
            place.legend(fontsize="small")
        place.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    plt.close(figure)
