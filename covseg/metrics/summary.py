"""The whole table of one evaluation: every convention, every stratum, with intervals.

In: `ImageResults`. Out: `Line` records and counts; `metrics.json` is made of them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from covseg.metrics.image_results import ImageResults
from covseg.metrics.intervals import DRAWS, Estimate, estimates
from covseg.metrics.measures import Name, measures
from covseg.metrics.surface import Surface

ALL, NEGATIVES, COVID = "all", "negatives", "COVID-19"
HEADLINE = {
    "covid_dice": (COVID, Name("infection", "dice", "image", "skip")),
    "covid_iou": (COVID, Name("infection", "iou", "image", "skip")),
    "negative_specificity": (NEGATIVES, Name("image level", "specificity")),
}


@dataclass(frozen=True)
class Line:
    """One number of the table, with stratum, name, interval and n."""

    stratum: str
    name: Name
    estimate: Estimate


def strata_of(results: ImageResults, strata: tuple[str, ...]) -> dict[str, NDArray[np.bool_]]:
    """Return which images each row group holds: every stratum, negatives (empty truth), all."""
    named = results.strata
    groups = {stratum: named == stratum for stratum in strata}
    return groups | {NEGATIVES: ~results.positive, ALL: np.ones(len(results), bool)}


def summarise(results: ImageResults, strata: tuple[str, ...], draws: int = DRAWS, seed: int = 0) -> list[Line]:
    """Compute every measure of every stratum; a stratum without images gives no line (its count says 0).

    The strata stand in the order of the table; `draws` and `seed` are the bootstrap's.
    """
    lines = []
    for stratum, kept in strata_of(results, strata).items():
        for measure in measures(results.where(kept)):
            values = estimates(measure.statistic, measure.groups, measure.n, draws, seed)
            lines += [Line(stratum, name, value) for name, value in zip(measure.names, values, strict=True)]
    return lines


def find(lines: list[Line], stratum: str, name: Name) -> Estimate:
    """Return one estimate; NaN with n 0 when the stratum has no image."""
    matches = (line.estimate for line in lines if line.stratum == stratum and line.name == name)
    return next(matches, Estimate(float("nan"), float("nan"), float("nan"), 0))


def headline(lines: list[Line]) -> dict[str, Estimate]:
    """Return COVID-19-only Dice and IoU per image, and image-level specificity on negatives."""
    return {label: find(lines, *where) for label, where in HEADLINE.items()}


def status_counts(results: ImageResults, strata: tuple[str, ...]) -> dict[str, dict[str, int]]:
    """Count surface statuses per stratum: a miss stands beside the mean that it has no part in."""
    state = results.column("surface").astype(int)
    return {
        stratum: {status.name.lower(): int((state[kept] == status).sum()) for status in Surface}
        for stratum, kept in strata_of(results, strata).items()
    }


def refusal_counts(results: ImageResults) -> dict[str, dict[str, int]]:
    """Count refused images by stratum and reason."""
    counted = Counter(zip(results.strata.tolist(), results.reasons, strict=True))
    refusals: dict[str, dict[str, int]] = {}
    for (stratum, reason), count in sorted(counted.items()):
        if reason:
            refusals.setdefault(stratum, {})[reason] = count
    return refusals


def lesion_counts(results: ImageResults) -> dict[str, int]:
    """Count small lesions and the missed ones over all images."""
    return {name: int(results.column(name).sum()) for name in ("small_lesions", "small_missed")}
