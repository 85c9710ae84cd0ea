"""A comparison as one offline HTML page: every paired difference with its interval drawn, then the numbers."""

from __future__ import annotations

from dataclasses import dataclass

from covseg.evaluation.compare import Contrast, Labelled
from covseg.evaluation.compare_words import direction, verdicts, words_of, worth_showing
from covseg.pages.environment import render_page

SAYS = {1: "better", -1: "worse", 0: ""}
WIDTH = 200  # of a bar's drawing, in its own units; 0 lies in the middle


@dataclass(frozen=True)
class Bar:
    """One difference: its words, where its interval lies, 0 to `WIDTH`, and what it says of the model."""

    row: Contrast
    name: str
    low: float
    value: float
    high: float
    says: str


def render_comparison(evaluations: list[Labelled], rows: list[Contrast]) -> bytes:
    """Return the page; the first evaluation is the base, and all bars share one scale."""
    ends = [abs(end) for row in rows for end in (row.difference.low, row.difference.high)]
    reach = max(ends, default=0) or 1.0
    groups: dict[str, dict[str, list[Bar]]] = {}
    for row in filter(worth_showing, rows):
        groups.setdefault(row.label, {}).setdefault(row.stratum, []).append(_bar(row, reach))
    return render_page(
        "covseg.evaluation", "compare.html.j2",
        evaluations=evaluations, base=evaluations[0].label, groups=groups, reach=reach, width=WIDTH,
        verdicts=verdicts(rows, evaluations[0].label),
    )  # fmt: skip


def _bar(row: Contrast, reach: float) -> Bar:
    low, value, high = (
        round(WIDTH / 2 * (1 + end / reach), 1)
        for end in (row.difference.low, row.difference.value, row.difference.high)
    )
    return Bar(row, words_of(row.name), low, value, high, SAYS[direction(row)])
