"""Compare evaluations image by image: paired differences with intervals per stratum, and cost.

In: folders that `covseg.evaluation.document.write` left. Out: rows. The same images in the same order
are resampled for both, so what images have in common cancels; a measure that an image may lack is taken over
the images that both have.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from covseg.errors import UsageError
from covseg.evaluation.document import read_back
from covseg.metrics.image_results import ImageResults
from covseg.metrics.intervals import DRAWS, Difference, Floats, Statistic, paired
from covseg.metrics.measures import Measure, Name, measures
from covseg.metrics.summary import strata_of
from covseg.pages.labels import tails

COMPARED = (
    Name("infection", "dice", "image", "skip"),
    Name("infection", "iou", "image", "skip"),
    Name("infection", "dice", "image", "one"),
    Name("infection", "dice", "dataset", "one"),
    Name("image level", "sensitivity"),
    Name("image level", "specificity"),
    Name("image level", "auroc"),
    Name("surface", "nsd"),
    Name("fraction", "mae"),
    Name("fraction", "pearson_r"),
    Name("lung", "dice", "image", "one"),
)

LACKING = {"nsd": "nsd", "mae": "fraction", "pearson_r": "fraction", "auroc": "presence"}  # NaN where an image has none


@dataclass(frozen=True)
class Evaluation:
    """One evaluation, read back."""

    label: str
    content: dict[str, Any]
    results: ImageResults


@dataclass(frozen=True)
class Contrast:
    """One paired difference: `label` minus the first evaluation.

    Parameters
    ----------
    label, stratum : str
    name : Name
    first, other : float
        The two values.
    difference : Difference
    """

    label: str
    stratum: str
    name: Name
    first: float
    other: float
    difference: Difference


def open_evaluations(folders: list[Path]) -> list[Evaluation]:
    """Read the folders and check that they can be compared.

    Raises
    ------
    UsageError
        When fewer than two are given, or they hold other images or another lung mask.
    """
    if len(folders) < 2:
        raise UsageError("compare wants at least two folders that covseg evaluate has written")
    read = [Evaluation(name, *read_back(folder)) for name, folder in zip(tails(folders), folders, strict=True)]
    for other in read[1:]:
        _check_same_images(read[0], other)
    return read


def _check_same_images(first: Evaluation, other: Evaluation) -> None:
    for field in ("split", "digest"):
        pair = [one.content["data"][field] for one in (first, other)]
        if pair[0] != pair[1]:
            raise UsageError(
                f"{first.label} and {other.label} judge other images ({field} {pair[0][:16]} and {pair[1][:16]}): "
                "evaluate both on the same data, split, strata and limit"
            )
    if first.content["lung_mask"] != other.content["lung_mask"]:
        raise UsageError(f"{first.label} and {other.label} used other lung masks: evaluate both with the same --lung")
    if differing := sorted(set(first.results.keys) ^ set(other.results.keys)):
        raise UsageError(f"{differing[0]} is judged in only one of {first.label} and {other.label}")


def compare(evaluations: list[Evaluation], draws: int = DRAWS, seed: int = 0) -> list[Contrast]:
    """Contrast every evaluation with the first, per stratum."""
    first, rows = evaluations[0], []
    strata = tuple(first.content["data"]["counts"])
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
        found = [_by_name(results.where(kept)) for results in (first, other)] if kept.any() else [{}, {}]
        for name in (one for one in names if one in found[0] and one in found[1]):
            (a, one), (_, two) = found[0][name], found[1][name]
            whole = np.ones((1, len(a.groups)))
            values = float(one(whole)[0, 0]), float(two(whole)[0, 0])
            if np.isfinite(values).all():
                [difference] = paired(two, one, a.groups, draws, seed)
                n = int(a.n[a.names.index(name)])
                rows.append(Contrast(label, stratum, name, *values, replace(difference, n=n)))
    return sorted(rows, key=lambda row: COMPARED.index(row.name))


def _matched(first: ImageResults, other: ImageResults) -> Iterator[tuple[tuple[Name, ...], NDArray[np.bool_]]]:
    """Yield measures with the images that both evaluations have a value of.

    An image that one of them refused, or left empty, has no distance or fraction: a mean over what each has by
    itself would pay for missing the hard images.
    """
    yield tuple(name for name in COMPARED if name.metric not in LACKING), np.ones(len(first), bool)
    for metric, column in LACKING.items():
        kept = ~np.isnan(first.column(column)) & ~np.isnan(other.column(column))
        yield tuple(name for name in COMPARED if name.metric == metric), kept


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
