"""The evaluation as one offline HTML page: a pure function of its numbers, images and pictures.

The content security policy allows this page's own style, by its digest, and ``data:`` images; there
is no script and no address of anything outside the file.
"""

from __future__ import annotations

import numpy as np

from covseg.evaluation.examples import COLUMNS, MISSED, Strip
from covseg.evaluation.records import Evaluation
from covseg.metrics import published
from covseg.metrics.convention import RATIOS, REDUCTIONS, Empty, pixel_metrics, ratios
from covseg.metrics.image_level import Booleans, reliability, roc_curve
from covseg.metrics.image_results import ImageResults
from covseg.metrics.intervals import Floats
from covseg.metrics.mask_metrics import MASK_METRICS
from covseg.metrics.summary import ALL, NEGATIVES
from covseg.pages import charts
from covseg.pages.environment import render_page


def render(evaluation: Evaluation, results: ImageResults, strips: list[Strip]) -> bytes:
    """Return the evaluation's page, the strips in the order shown."""
    return render_page(
        "covseg.evaluation",
        "evaluation.html.j2",
        content=evaluation,
        rows=[*evaluation.data.strata, NEGATIVES, ALL],
        metrics=pixel_metrics(),
        mask_metrics=MASK_METRICS,
        reductions=[str(reduction) for reduction in REDUCTIONS],
        policies=[str(empty) for empty in Empty],
        charts=_charts(results),
        anchors=[(anchor, _warning(anchor)) for anchor in published.ANCHORS],
        second_reader=published.SECOND_READER,
        columns=COLUMNS,
        examples=_group(strips),
        missed=[strip for strip in strips if strip.group == MISSED],
    )


def _warning(anchor: published.Anchor) -> str | None:
    if anchor.dice is None or anchor.iou is None:
        return None
    return published.impossible_pair(anchor.dice, anchor.iou)


def _group(strips: list[Strip]) -> dict[str, list[Strip]]:
    """Group the grid's strips by stratum and true severity."""
    groups: dict[str, list[Strip]] = {}
    for strip in strips:
        if strip.group != MISSED:
            groups.setdefault(f"{strip.stratum}, truth {strip.grade}", []).append(strip)
    return groups


def _charts(results: ImageResults) -> list[tuple[str, str]]:
    """Draw every chart that these images allow; (URI, words for those who cannot see it)."""
    drawn = []
    positive = results.positive
    dice = ratios(results.counts(), Empty.ZERO, results.refused)[:, list(RATIOS).index("dice")]
    if positive.any():
        named = {str(name): dice[positive & (results.strata == name)] for name in np.unique(results.strata[positive])}
        drawn.append((charts.histogram(named, "Dice per image, images with infection", "Dice"), "Histogram of Dice"))
        area = (results.column("tp") + results.column("fn")) / (results.column("height") * results.column("width"))
        labels = "true infected share of the image, %", "Dice"
        plot = charts.scatter(100 * area[positive], dice[positive], "Dice against lesion size", labels, log=True)
        drawn.append((plot, "Dice against lesion size"))
    predicted, truth = results.column("fraction"), results.column("fraction_truth")
    known = ~np.isnan(predicted) & ~np.isnan(truth)
    if known.sum() > 1:
        labels = "mean of predicted and true fraction", "predicted - true"
        plot = charts.bland_altman(predicted[known], truth[known], "Infected fraction: agreement", labels)
        drawn.append((plot, "Bland-Altman plot of the infected fraction"))
    presence = results.column("presence")
    scored = ~np.isnan(presence)
    if positive[scored].any() and not positive[scored].all():
        drawn += presence_charts(presence[scored], positive[scored])
    return drawn


def presence_charts(presence: Floats, positive: Booleans) -> list[tuple[str, str]]:
    """Draw ROC and reliability of the image-level probability; both classes must be there."""
    roc = charts.lines(
        {"image-level probability": roc_curve(presence, positive)}, "ROC: any infection",
        ("1 - specificity", "sensitivity"), diagonal=True,
    )  # fmt: skip
    predicted, observed, _ = map(np.array, zip(*reliability(presence, positive), strict=True))
    bins = charts.lines(
        {"bins of .1": (predicted, observed)}, "Reliability of the probability", ("predicted", "observed"),
        diagonal=True, markers=True,
    )  # fmt: skip
    return [(roc, "ROC curve"), (bins, "Reliability curve")]
