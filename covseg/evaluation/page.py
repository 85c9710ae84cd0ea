"""The evaluation as one offline HTML page: a pure function of its numbers, images and pictures.

The content security policy allows this page's own style, by its digest, and ``data:`` images; there
is no script and no address of anything outside the file.
"""

from __future__ import annotations

from covseg.data.published import OWN
from covseg.evaluation.examples import COLUMNS, MISSED, UNKNOWN, Strip
from covseg.evaluation.figures import EVERY, infected_dice, quality, same_image
from covseg.evaluation.records import Evaluation
from covseg.evaluation.verdict import verdict
from covseg.metrics import published
from covseg.metrics.convention import REDUCTIONS, Empty, pixel_metrics
from covseg.metrics.image_results import ImageResults
from covseg.metrics.mask_metrics import MASK_METRICS
from covseg.metrics.summary import ALL, NEGATIVES
from covseg.pages.environment import render_page


def render(evaluation: Evaluation, results: ImageResults, strips: list[Strip]) -> bytes:
    """Return the evaluation's page, the strips in the order shown."""
    infected = infected_dice(results)
    return render_page(
        "covseg.evaluation",
        "evaluation.html.j2",
        content=evaluation,
        rows=[*evaluation.data.strata, NEGATIVES, ALL],
        metrics=pixel_metrics(),
        mask_metrics=MASK_METRICS,
        reductions=[str(reduction) for reduction in REDUCTIONS],
        policies=[str(empty) for empty in Empty],
        verdict=verdict(evaluation, infected[EVERY]),
        infected=infected[EVERY],
        charts=quality(evaluation, results, infected),
        same_image=same_image(evaluation.robustness),
        anchors=[(anchor, _warning(anchor)) for anchor in published.ANCHORS],
        own_set=evaluation.data.name in OWN,
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
            truth = "" if strip.grade == UNKNOWN else f", truth {strip.grade}"
            groups.setdefault(strip.stratum + truth, []).append(strip)
    return groups
