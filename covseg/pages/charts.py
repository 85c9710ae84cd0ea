"""Charts as SVG ``data:`` URIs, the same bytes for the same numbers.

In: arrays. Out: URIs for an ``<img>``. Figures are made without pyplot: no global state, no display.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from covseg.metrics.intervals import Floats
from covseg.pages.drawing import data_uri

BLUE, ORANGE, PINK, GREY = "#2b6cb0", "#dd6b20", "#b83280", "#718096"
CYCLE = (BLUE, ORANGE, PINK, "#2f855a", GREY)
_STYLE: Any = {
    "svg.hashsalt": "covseg", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e2e8f0",
    "axes.axisbelow": True, "figure.dpi": 110,
}  # fmt: skip
Series = dict[str, Floats]


@dataclass(frozen=True)
class Dot:
    """One row of `dots`: its words, a value with its interval, and the group that colours it, if any."""

    words: str
    value: float
    low: float
    high: float
    group: str = ""


def chart(draw: Callable[[Axes], None], title: str, x: str, y: str, size: tuple[float, float] = (4.6, 3.2)) -> str:
    """Draw one axes and return it as a ``data:`` URI.

    Parameters
    ----------
    draw : callable
        Draws on the axes.
    title, x, y : str
        Words.
    size : tuple of float
        Inches.
    """
    with rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        figure.suptitle(title, fontsize=10)
        axes.set(xlabel=x, ylabel=y)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(frameon=False, fontsize=8)
        sink = io.BytesIO()
        figure.savefig(sink, format="svg", metadata={"Date": None, "Creator": None})
    return data_uri("svg+xml", sink.getvalue())


def histogram(groups: Series, title: str, x: str, limits: tuple[float, float] = (0.0, 1.0), bins: int = 20) -> str:
    """Draw stepped histograms, one per group; groups without a value are left to the tables."""
    edges = np.linspace(*limits, bins + 1).tolist()

    def draw(axes: Axes) -> None:
        for colour, (name, values) in zip(CYCLE * len(groups), groups.items(), strict=False):
            if len(values):
                axes.hist(
                    values, edges, histtype="stepfilled", alpha=0.35, color=colour, label=f"{name} (n {len(values)})"
                )
                axes.hist(values, edges, histtype="step", color=colour)

    return chart(draw, title, x, "images")


def scatter(
    x: Floats,
    y: Floats,
    title: str,
    labels: tuple[str, str],
    levels: Series | None = None,
    log: bool = False,
    diagonal: bool = False,
) -> str:
    """Draw points (as pixels inside the SVG, so that size does not grow with images), levels and the line x = y."""

    def draw(axes: Axes) -> None:
        axes.scatter(x, y, s=9, alpha=0.45, color=BLUE, linewidths=0, rasterized=True)
        for name, level in (levels or {}).items():
            axes.axhline(float(level), color=ORANGE if name == "bias" else GREY, linestyle="--", linewidth=1)
            axes.annotate(f"{name} {float(level):+.3f}", (1, float(level)), xycoords=("axes fraction", "data"),
                          ha="right", va="bottom", fontsize=8)  # fmt: skip
        if log:
            axes.set_xscale("log")
        if diagonal:
            axes.axline((0, 0), slope=1, color=GREY, linestyle=":", linewidth=1)

    return chart(draw, title, *labels)


def bland_altman(found: Floats, reference: Floats, title: str, labels: tuple[str, str]) -> str:
    """Draw differences against means, with bias and 95 % limits of agreement, of two or more aligned values."""
    difference = found - reference
    bias, spread = difference.mean(), 1.96 * difference.std(ddof=1)
    levels = {"bias": bias, "upper limit": bias + spread, "lower limit": bias - spread}
    return scatter((found + reference) / 2, difference, title, labels, levels)


def lines(
    curves: dict[str, tuple[Floats, Floats]],
    title: str,
    labels: tuple[str, str],
    marks: Sequence[tuple[float, float, str]] = (),
    diagonal: bool = False,
    markers: bool = False,
) -> str:
    """Draw curves, marked points and, if asked, the diagonal."""

    def draw(axes: Axes) -> None:
        if diagonal:
            axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1)
        for colour, (name, (x, y)) in zip(CYCLE * len(curves), curves.items(), strict=False):
            axes.plot(x, y, color=colour, linewidth=1.6, label=name, marker="o" if markers else None, markersize=4)
        for across, up, words in marks:
            axes.plot([across], [up], marker="D", color=ORANGE, markersize=6, linestyle="none")
            axes.annotate(words, (across, up), textcoords="offset points", xytext=(6, -10), fontsize=8)

    return chart(draw, title, *labels)


def dots(rows: Sequence[Dot], title: str, x: str, reference: float | None = None) -> str:
    """Draw values with their intervals, a row each, the first on top; `reference` is a line to hold them against."""
    colours = dict(zip(sorted({row.group for row in rows if row.group}), CYCLE * len(rows), strict=False))
    named: set[str] = set()
    words = [row.words if place == 0 or rows[place - 1].words != row.words else "" for place, row in enumerate(rows)]

    def draw(axes: Axes) -> None:
        if reference is not None:
            axes.axvline(reference, color=GREY, linewidth=1)
        for place, row in enumerate(rows):
            colour, label = colours.get(row.group, BLUE), None if row.group in named else row.group or None
            axes.hlines(place, row.low, row.high, color=colour, linewidth=2)
            axes.plot([row.value], [place], marker="o", markersize=5, color=colour, linestyle="none", label=label)
            named.add(row.group)
        axes.set_yticks(range(len(rows)), words)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")

    return chart(draw, title, x, "", (4.6, max(2.2, 1.1 + 0.19 * len(rows))))


def bars(groups: dict[str, dict[str, int]], title: str) -> str:
    """Draw counts as bars: one cluster per outer name, one bar per inner name."""
    inner = list(dict.fromkeys(name for counts in groups.values() for name in counts))

    def draw(axes: Axes) -> None:
        width = 0.8 / max(len(inner), 1)
        for number, name in enumerate(inner):
            places = np.arange(len(groups)) + (number - (len(inner) - 1) / 2) * width
            drawn = axes.bar(
                places, [counts.get(name, 0) for counts in groups.values()], width, color=CYCLE[number % 5], label=name
            )
            axes.bar_label(drawn, fontsize=7)
        axes.set_xticks(range(len(groups)), list(groups))

    return chart(draw, title, "", "images")
