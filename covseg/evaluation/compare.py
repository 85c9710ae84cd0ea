"""Compare evaluations image by image: paired differences with intervals per stratum, and cost.

In: folders that `covseg.evaluation.document.write` left. Out: rows. The same images in the same order
are resampled for both, so what images have in common cancels; a measure that an image may lack is taken over
the images that both have.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from covseg.errors import UsageError
from covseg.evaluation.document import read_back
from covseg.evaluation.records import Evaluation
from covseg.metrics.convention import RATIOS
from covseg.metrics.image_results import ImageResults
from covseg.metrics.intervals import DRAWS, Difference, Floats, Statistic, paired
from covseg.metrics.mask_metrics import MASK_METRICS
from covseg.metrics.measures import Measure, Name, measures
from covseg.metrics.summary import strata_of
from covseg.pages.formats import tails

# the other ratios of counts move with Dice and IoU, and a mean HD95 is made by a few images
NOT_COMPARED = ("precision", "recall", "specificity", "accuracy", "hd95")


def compared() -> dict[Name, str]:
    """Name what is compared, in the order of the rows, with the column of it that an image may lack (or nothing)."""
    overlap = {Name("infection", metric, "image", "skip"): "" for metric in RATIOS if metric not in NOT_COMPARED}
    masks = {Name(metric.part, name): name for name, metric in MASK_METRICS.items() if name not in NOT_COMPARED}
    return {
        **overlap,
        Name("infection", "dice", "image", "one"): "",
        Name("infection", "dice", "dataset", "one"): "",
        Name("image level", "sensitivity"): "",
        Name("image level", "specificity"): "",
        Name("image level", "auroc"): "presence",
        **masks,
        Name("fraction", "mae"): "fraction",
        Name("fraction", "pearson_r"): "fraction",
        Name("lung", "dice", "image", "one"): "",
    }


@dataclass(frozen=True)
class Labelled:
    """One evaluation, read back, and what it is called beside others."""

    label: str
    evaluation: Evaluation
    results: ImageResults


@dataclass(frozen=True)
class Contrast:
    """One paired difference of the values `first` and `other`: `label` minus the first evaluation."""

    label: str
    stratum: str
    name: Name
    first: float
    other: float
    difference: Difference


def open_evaluations(folders: list[Path]) -> list[Labelled]:
    """Read the folders and check that they can be compared.

    Raises
    ------
    UsageError
        When fewer than two are given, or they hold other images or another lung mask.
    """
    if len(folders) < 2:
        raise UsageError("compare wants at least two folders that covseg evaluate has written")
    read = [Labelled(name, *read_back(folder)) for name, folder in zip(tails(folders), folders, strict=True)]
    for other in read[1:]:
        _check_same_images(read[0], other)
    return read


def _check_same_images(first: Labelled, other: Labelled) -> None:
    for field in ("split", "digest"):
        pair = [getattr(side.evaluation.data, field) for side in (first, other)]
        if pair[0] != pair[1]:
            raise UsageError(
                f"{first.label} and {other.label} judge other images ({field} {pair[0][:16]} and {pair[1][:16]}): "
                "evaluate both on the same data, split, strata and limit"
            )
    if first.evaluation.lung_mask != other.evaluation.lung_mask:
        raise UsageError(f"{first.label} and {other.label} used other lung masks: evaluate both with the same --lung")
    if differing := sorted(set(first.results.keys) ^ set(other.results.keys)):
        raise UsageError(f"{differing[0]} is judged in only one of {first.label} and {other.label}")


def compare(evaluations: list[Labelled], draws: int = DRAWS, seed: int = 0) -> list[Contrast]:
    """Contrast every evaluation with the first, per stratum."""
    first, rows = evaluations[0], []
    strata = tuple(first.evaluation.data.counts)
    for other in evaluations[1:]:
        for stratum, kept in strata_of(first.results, strata).items():
            rows += _contrasts(other.label, stratum, first.results.where(kept), other.results.where(kept), draws, seed)
    return rows


def _contrasts(
    label: str, stratum: str, first: ImageResults, other: ImageResults, draws: int, seed: int
) -> list[Contrast]:
    if not len(first):
        return []
    rows = []
    for names, kept in _matched(first, other):
        if not kept.any():
            continue
        ours, theirs = (_by_name(results.where(kept)) for results in (first, other))
        for name in (name for name in names if name in ours and name in theirs):
            (measure, statistic), (_, other_statistic) = ours[name], theirs[name]
            whole = np.ones((1, len(measure.groups)))
            values = float(statistic(whole)[0, 0]), float(other_statistic(whole)[0, 0])
            if np.isfinite(values).all():
                [difference] = paired(other_statistic, statistic, measure.groups, draws, seed)
                n = int(measure.n[measure.names.index(name)])
                rows.append(Contrast(label, stratum, name, *values, replace(difference, n=n)))
    order = list(compared())
    return sorted(rows, key=lambda row: order.index(row.name))


def _matched(first: ImageResults, other: ImageResults) -> Iterator[tuple[tuple[Name, ...], NDArray[np.bool_]]]:
    """Yield measures with the images that both evaluations have a value of.

    An image that one of them refused, or left empty, has no distance or fraction: a mean over what each has by
    itself would pay for missing the hard images.
    """
    columns = compared()
    for lacked in dict.fromkeys(columns.values()):
        both = np.ones(len(first), bool)
        for results in (first, other):
            both &= ~np.isnan(results.column(lacked)) if lacked else True
        yield tuple(name for name, column in columns.items() if column == lacked), both


def _by_name(results: ImageResults) -> dict[Name, tuple[Measure, Statistic]]:
    """Return each named value as a statistic of its own."""
    return {
        name: (measure, _pick(measure, place))
        for measure in measures(results)
        for place, name in enumerate(measure.names)
    }


def _pick(measure: Measure, place: int) -> Statistic:
    """Restrict a measure to one of its values."""

    def statistic(weights: Floats) -> Floats:
        return measure.statistic(weights)[:, place : place + 1]

    return statistic
