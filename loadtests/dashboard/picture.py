"""Panels in the dashboard's own grid, as one picture."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import matplotlib as mpl

from loadtests.dashboard.panels import Line, Panel

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image

#: Inches of a column and of a line of the grid; 24 columns.
_COLUMN, _LINE = 0.72, 0.36
_COLUMNS = 24
_DPI = 90
#: Of a picture on a page.
_COLOURS = 128
_BEHIND, _PAPER, _INK, _FAINT = "#f4f5f5", "#ffffff", "#24292e", "#8e8e93"
_NAMED = {"green": "#73bf69", "red": "#f2495c", "blue": "#5794f2"}
#: Lines that a legend names; more would take the panel.
_LEGEND = 8
_BYTES = ("B", "KiB", "MiB", "GiB")
_MIB = 1024**2


def draw(panels: Sequence[Panel], path: Path) -> None:
    """Write a PNG of all panels."""
    lines = max(y + height for _, y, _, height in (panel.place for panel in panels))
    size = (_COLUMNS * _COLUMN, lines * _LINE)
    figure = plt.figure(figsize=size, facecolor=_BEHIND)
    for panel in panels:
        _draw_panel(figure, panel, lines)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=_DPI, format="png", facecolor=_BEHIND)
    plt.close(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.open(drawn).convert("RGB")
    picture.quantize(_COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)


def _draw_panel(figure: Figure, panel: Panel, lines: int) -> None:
    x, y, width, height = panel.place
    left, bottom = x / _COLUMNS, 1 - (y + height) / lines
    wide, high = width / _COLUMNS, height / lines
    if panel.kind == "row":
        figure.text(
            left + 0.006, bottom + high * 0.25, panel.title, fontsize=13,
            fontweight="bold", color=_INK,
        )  # fmt: skip
        return
    # Margins of the same width in inches around every panel.
    gap_x, gap_y = 0.08 / (_COLUMNS * _COLUMN), 0.06 / (lines * _LINE)
    card = figure.add_axes(
        (left + gap_x, bottom + gap_y, wide - 2 * gap_x, high - 2 * gap_y)
    )
    card.set_xticks([])
    card.set_yticks([])
    card.set_facecolor(_PAPER)
    for spine in card.spines.values():
        spine.set_color("#e1e4e8")
    if panel.kind == "stat":
        _draw_stat(card, panel)
        return
    title = 1 - 0.2 / (height * _LINE)
    card.text(0.015, title, panel.title, fontsize=10.5, fontweight="bold", va="center",
              color=_INK)  # fmt: skip
    # Room for the title, the times and the legend, in inches.
    place = card.inset_axes(
        (
            0.62 / (width * _COLUMN),
            0.62 / (height * _LINE),
            1 - 0.8 / (width * _COLUMN),
            1 - 1.02 / (height * _LINE),
        )
    )
    _draw_lines(place, panel)


def _draw_stat(card: Axes, panel: Panel) -> None:
    last = _last(panel.lines)
    colour = _NAMED["green"]
    for value, name in panel.thresholds:
        if last is not None and last >= value:
            colour = _NAMED.get(name, name)
    card.set_facecolor(colour)
    card.text(0.04, 0.86, panel.title, fontsize=10.5, color="white", fontweight="bold")
    shown = "no data" if last is None else write(last, panel.unit)
    card.text(0.5, 0.4, shown, fontsize=26, color="white", ha="center", va="center")


def _last(lines: Sequence[Line]) -> float | None:
    values = [v for line in lines for v in line.values if not math.isnan(v)]
    return values[-1] if values else None


def _draw_lines(place: Axes, panel: Panel) -> None:
    place.tick_params(labelsize=8, colors=_FAINT, length=0)
    for side, spine in place.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color("#d8dadd")
    place.grid(alpha=0.35, linewidth=0.6)
    seen = [line for line in panel.lines if any(not math.isnan(v) for v in line.values)]
    if not seen:
        place.set_xticks([])
        place.set_yticks([])
        reason = textwrap.fill(panel.description or "no data", 44)
        place.text(0.5, 0.55, reason, ha="center", va="center", fontsize=9,
                   color=_FAINT, style="italic", transform=place.transAxes)  # fmt: skip
        return
    scale = _MIB if panel.unit == "bytes" else 1
    for line in sorted(seen, key=lambda line: -line.values[-1]):
        values = [value / scale for value in line.values]
        # Another value of the label is empty: a refusal before a policy was found.
        place.plot(line.times, values, linewidth=1.3, label=line.name or "(none)")
    place.set_ylim(bottom=0)
    place.margins(x=0, y=0.12)
    if all(value == 0 for line in seen for value in line.values):
        place.set_ylim(0, 1)
    place.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    place.yaxis.set_major_formatter(
        FuncFormatter(lambda value, _: write(value * scale, panel.unit))
    )
    place.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 3, 6, 10]))
    place.xaxis.set_major_formatter(FuncFormatter(_write_time))
    longest = max(len(line.name) for line in seen)
    columns = max(1, min(4, int(panel.place[2] * _COLUMN * 14) // (longest + 6)))
    place.legend(
        *(each[:_LEGEND] for each in place.get_legend_handles_labels()),
        loc="upper center", bbox_to_anchor=(0.48, -0.09), ncols=columns, fontsize=7.5,
        frameon=False, handlelength=1.0, columnspacing=1.0, labelcolor=_INK,
        borderpad=0.1, labelspacing=0.25,
    )  # fmt: skip


def _write_time(value: float, _: int | None) -> str:
    return datetime.fromtimestamp(value, UTC).strftime("%H:%M:%S")


def write(value: float, unit: str) -> str:
    """Return a value with its unit, as Grafana writes it."""
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "bytes":
        power = min(3, int(math.log(value, 1024))) if value >= 1 else 0
        return f"{value / 1024**power:.3g} {_BYTES[power]}"
    if unit == "s" and value and abs(value) < 1:
        thousandths = abs(value) >= 1e-3
        return f"{value * 1e3:.3g} ms" if thousandths else f"{value * 1e6:.3g} µs"
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return {"s": f"{text} s", "reqps": f"{text}/s", "ops": f"{text}/s"}.get(unit, text)
