"""A comparison as one offline HTML page: every paired difference with its interval drawn, then the numbers."""

from __future__ import annotations

from dataclasses import dataclass

from covseg.evaluation.compare import Contrast, Labelled
from covseg.pages.environment import render_page

WIDTH = 200  # of a bar's drawing, in its own units; 0 lies in the middle


@dataclass(frozen=True)
class Bar:
    """One difference: its words, where its interval lies, 0 to `WIDTH`, and whether 0 is outside of it."""

    row: Contrast
    name: str
    low: float
    value: float
    high: float
    clear: bool


def render_comparison(evaluations: list[Labelled], rows: list[Contrast]) -> bytes:
    """Return the page; the first evaluation is the base, and all bars share one scale."""
    ends = [abs(end) for row in rows for end in (row.difference.low, row.difference.high)]
    reach = max(ends, default=0) or 1.0
    groups: dict[str, dict[str, list[Bar]]] = {}
    for row in rows:
        groups.setdefault(row.label, {}).setdefault(row.stratum, []).append(_bar(row, reach))
    return render_page(
        "covseg.evaluation", "compare.html.j2",
        evaluations=evaluations, base=evaluations[0].label, groups=groups, reach=reach, width=WIDTH,
    )  # fmt: skip


def _bar(row: Contrast, reach: float) -> Bar:
    low, value, high = (
        round(WIDTH / 2 * (1 + end / reach), 1)
        for end in (row.difference.low, row.difference.value, row.difference.high)
    )
    name = " ".join(filter(None, (row.name.part, row.name.metric, row.name.reduction, row.name.empty)))
    return Bar(row, name, low, value, high, row.difference.low > 0 or row.difference.high < 0)
