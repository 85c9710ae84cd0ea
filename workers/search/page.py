"""A search as one offline HTML page: what was tried, what decided, and the best recipe with its differences.

In: the records of the trials. It says what Val says, which chose; it knows no other split.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from covseg.pages import charts
from covseg.pages.charts import BLUE, GREY, ORANGE
from covseg.pages.environment import render_page
from covseg.training.run_folder import read_rows
from covseg.training.shifted import CHOSEN_BY
from workers.search.contest import Promotion
from workers.search.cost import milliseconds
from workers.search.explain import described
from workers.search.parameters import Scalar
from workers.search.plan import METRICS, SearchPlan
from workers.search.records import TrialRecord, trial_folder, trial_recipe

COLOURS = {"complete": BLUE, "pruned": GREY, "running": ORANGE}
WORDS = {
    METRICS["covid"]: "COVID-19 Dice at specificity .98", METRICS["robust"]: "the same, mean of Val and its shifts",
}  # fmt: skip
SHIFTED = f"; its mean with that of a third of Val under {len(CHOSEN_BY)} shifts ({', '.join(CHOSEN_BY)})"


def render_search(
    out: Path,
    plan: SearchPlan,
    records: Sequence[TrialRecord],
    best: TrialRecord | None,
    importances: Mapping[str, float],
    promotion: Promotion | None = None,
) -> bytes:
    """Return the page; `importances` are shares of what decided, by parameter, {} where too few trials tell."""
    curves = {
        record.number: [row[plan.metric] for row in read_rows(trial_folder(out, record.number))] for record in records
    }
    spent = sum(len(curves[record.number]) / record.epochs for record in records) * plan.budget
    start = next((record for record in records if record.point == plan.start), None)
    return render_page(
        "workers.search",
        "search.html.j2",
        title=plan.space.title,
        promotion=promotion,
        shifted=SHIFTED if plan.metric == METRICS["robust"] else "",
        recipe=plan.base.label,
        order=plan.space.order,
        metric=plan.metric,
        records=[(record, len(curves[record.number])) for record in records],
        states=dict(Counter(record.state for record in records)),
        spent=spent,
        start=start,
        best=best,
        best_toml=(out / "best.toml").read_text() if best else "",
        parameters=[(", ".join(parameter.names), described(parameter)) for parameter in plan.space.parameters],
        charts=[*_charts(out, plan, records, curves, importances), *_slices(plan, records)],
    )


def _charts(
    out: Path,
    plan: SearchPlan,
    records: Sequence[TrialRecord],
    curves: Mapping[int, Sequence[float]],
    importances: Mapping[str, float],
) -> list[tuple[str, str]]:
    measured = [record for record in records if record.value is not None]
    if not measured:
        return []
    words = WORDS[plan.metric]
    drawings: list[tuple[Callable[[Axes], None], str, str, str]] = [
        (lambda axes: _history(axes, measured), "Every trial, and the best so far", "trial", words),
        (lambda axes: _curves(axes, records, curves), "Learning curves", "share of the budget", words),
        (
            lambda axes: _front(axes, measured, [record.gflop for record in measured]),
            "Value against cost, and its front", "GFLOP an image", words,
        ),
    ]  # fmt: skip
    if done := [record for record in measured if record.state == "complete"]:
        took = [milliseconds(trial_recipe(out, record.number)) for record in done]
        drawings.append((
            lambda axes: _front(axes, done, took), "Value against time, and its front",
            "milliseconds a forward pass of one image, one core here", words,
        ))  # fmt: skip
    if importances:
        drawings.append((lambda axes: _bars(axes, importances), "What decided (PED-ANOVA)", "share", ""))
    return [(charts.chart(*drawing), drawing[1]) for drawing in drawings]


def _points(axes: Axes, records: Sequence[TrialRecord], across: Sequence[float]) -> None:
    for state, colour in COLOURS.items():
        chosen = [number for number, record in enumerate(records) if record.state == state]
        if chosen:
            values = [records[number].value for number in chosen]
            axes.scatter([across[number] for number in chosen], values, s=18, color=colour, label=state)  # type: ignore[arg-type]


def _history(axes: Axes, records: Sequence[TrialRecord]) -> None:
    _points(axes, records, [record.number for record in records])
    done = [record for record in records if record.state == "complete"]
    values = np.array([record.value for record in done], float)
    axes.step(
        [record.number for record in done], np.maximum.accumulate(values), where="post", color=BLUE, linewidth=1.2
    )


def _curves(axes: Axes, records: Sequence[TrialRecord], curves: Mapping[int, Sequence[float]]) -> None:
    for record in records:
        values = curves[record.number]
        shares = (np.arange(len(values)) + 1) / record.epochs
        style = "." if len(values) == 1 else "-"
        axes.plot(shares, values, style, color=COLOURS.get(record.state, GREY), linewidth=0.9, alpha=0.7)


def _front(axes: Axes, records: Sequence[TrialRecord], across: Sequence[float]) -> None:
    _points(axes, records, across)
    done = sorted(
        (cost, record.value or 0.0) for record, cost in zip(records, across, strict=True) if record.state == "complete"
    )
    if done:
        costs, values = zip(*done, strict=True)
        axes.step(costs, np.maximum.accumulate(values), where="post", color=BLUE, linewidth=1.2)


def _bars(axes: Axes, importances: Mapping[str, float]) -> None:
    names = list(importances)[::-1]
    axes.barh(names, [importances[name] for name in names], color=BLUE)


def _slices(plan: SearchPlan, records: Sequence[TrialRecord]) -> list[tuple[str, str]]:
    """Draw the values along each parameter."""
    drawn = []
    for name in plan.space.names:
        there = [record for record in records if name in record.point and record.value is not None]
        if there:
            values = [record.point[name] for record in there]
            logarithmic = any(
                getattr(one, "kind", "") in ("log", "weights") for one in plan.space.parameters if name in one.names
            )
            drawn.append((_slice(name, values, there, logarithmic, WORDS[plan.metric]), f"Along {name}"))
    return drawn


def _slice(name: str, values: Sequence[Scalar], records: Sequence[TrialRecord], logarithmic: bool, words: str) -> str:
    def draw(axes: Axes) -> None:
        if all(isinstance(value, int | float) for value in values):
            _points(axes, records, [float(value) for value in values])
            if logarithmic:
                axes.set_xscale("log")
                axes.xaxis.set_minor_formatter(NullFormatter())  # they would overlap
            return
        names = sorted({str(value) for value in values})
        _points(axes, records, [names.index(str(value)) for value in values])
        axes.set_xticks(range(len(names)), names, rotation=20, ha="right")

    return charts.chart(draw, f"Along {name}", name, words)
