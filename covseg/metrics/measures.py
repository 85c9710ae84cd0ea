"""Every measure of a group of images as a statistic, so that one bootstrap serves tables and comparisons.

In: `ImageResults` of one stratum (or of all). Out: `Measure` records: names, and a function from resampling
weights to values. How a refused image counts: its 0/0 is 0, all of its truth is missed, and it is wrong
at image level; distances, fractions and AUROC are over scored images, with their n.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from covseg.metrics.convention import (
    DATASET,
    IMAGE,
    RATIOS,
    REDUCTIONS,
    Counts,
    Empty,
    Reduction,
    f1,
    pixel_metrics,
    pool,
    ratios,
)
from covseg.metrics.image_level import auroc
from covseg.metrics.image_results import ImageResults
from covseg.metrics.intervals import Floats, Statistic, weighted_mean
from covseg.metrics.mask_metrics import MASK_METRICS

_PRECISION, _RECALL = (list(RATIOS).index(name) for name in ("precision", "recall"))
AGREEMENT = ("mae", "bias", "pearson_r", "limit_low", "limit_high")


@dataclass(frozen=True)
class Name:
    """What a value is called.

    Parameters
    ----------
    part : str
        ``infection``, ``lung``, ``image level``, ``error``, ``fraction``, or the part of a mask metric.
    reduction : str
        ``image``, ``batch(8)`` or ``dataset``.
    empty : str
        ``one``, ``zero``, ``skip``, or empty where no 0/0 can occur.
    """

    part: str
    metric: str
    reduction: str = "image"
    empty: str = ""


@dataclass(frozen=True)
class Measure:
    """Some values that one statistic gives.

    Parameters
    ----------
    names : tuple of Name, length M
    statistic : Statistic
        Weights ``(B, U)`` to values ``(B, M)``.
    groups : ndarray of int64, shape (U,)
        Resampled within.
    n : ndarray of int64, shape (M,)
        Units behind each value.
    """

    names: tuple[Name, ...]
    statistic: Statistic
    groups: NDArray[np.int64]
    n: NDArray[np.int64]


def measures(results: ImageResults) -> Iterator[Measure]:
    """Yield every measure of these images; nothing for no images."""
    if not len(results):
        return
    groups = np.unique(results.strata, return_inverse=True)[1].astype(np.int64)
    for reduction in REDUCTIONS:
        yield pixel_measure("infection", results.counts(), results.refused, reduction, groups)
    if (results.column("lung_tp") >= 0).all():
        yield pixel_measure("lung", results.counts("lung_"), results.refused, IMAGE, groups)
    yield from _image_level(results, groups)
    yield from _continuous(results, groups)


def pixel_measure(
    part: str, counts: Counts, refused: NDArray[np.bool_], reduction: Reduction, groups: NDArray[np.int64]
) -> Measure:
    """Build all metrics under all empty policies for one reduction.

    Parameters
    ----------
    part : str
        ``infection`` or ``lung``.
    counts : ndarray of int64, shape (N, 4)
        tp, fp, fn, tn of each image.
    refused : ndarray of bool, shape (N,)
    groups : ndarray of int64, shape (N,)
    """
    names = tuple(Name(part, metric, str(reduction), str(empty)) for empty in Empty for metric in pixel_metrics())
    if reduction == DATASET:
        return Measure(names, _pooled(counts, bool(refused.any())), groups, np.full(len(names), len(counts)))
    units = reduction.units(len(counts))
    pooled, unit_refused = pool(counts, units), np.bincount(units, refused) > 0
    values = np.concatenate([ratios(pooled, empty, unit_refused) for empty in Empty], axis=1)
    n = np.array([_with_f1_count((~np.isnan(block)).sum(axis=0)) for block in np.split(values, len(Empty), axis=1)])
    mean = weighted_mean(values)
    unit_groups = groups if reduction == IMAGE else np.zeros(len(pooled), np.int64)
    return Measure(names, lambda weights: _add_f1(mean(weights)), unit_groups, n.ravel())


def _pooled(counts: Counts, refused: bool) -> Statistic:
    def statistic(weights: Floats) -> Floats:
        drawn = np.rint(weights @ counts).astype(np.int64)
        flags = np.full(len(drawn), refused)
        return _add_f1(np.concatenate([ratios(drawn, empty, flags) for empty in Empty], axis=1))

    return statistic


def _add_f1(values: Floats) -> Floats:
    """Append F1 to each policy's block of M ratios; ``(B, 3 M)`` to ``(B, 3 (M + 1))``."""
    blocks = np.split(values, len(Empty), axis=1)
    return np.concatenate([np.c_[block, f1(block[:, _PRECISION], block[:, _RECALL])] for block in blocks], axis=1)


def _with_f1_count(n: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.r_[n, min(n[_PRECISION], n[_RECALL])]


def _image_level(results: ImageResults, groups: NDArray[np.int64]) -> Iterator[Measure]:
    marked = (results.column("tp") + results.column("fp")) > 0
    return image_level(results.positive, marked, results.refused, results.column("presence"), groups)


def image_level(
    positive: NDArray[np.bool_],
    marked: NDArray[np.bool_],
    refused: NDArray[np.bool_],
    presence: Floats,
    groups: NDArray[np.int64],
) -> Iterator[Measure]:
    """Yield sensitivity and specificity of "the mask is not empty", and the AUROC of the probability; all ``(N,)``."""
    right = np.where(positive, marked, ~marked) & ~refused
    values = np.stack([np.where(positive, right, np.nan), np.where(positive, np.nan, right)], axis=1)
    names = Name("image level", "sensitivity"), Name("image level", "specificity")
    yield Measure(names, weighted_mean(values), groups, (~np.isnan(values)).sum(axis=0))
    scored = ~refused & ~np.isnan(presence)
    if positive[scored].any() and not positive[scored].all():
        statistic = _of(scored, auroc(presence[scored], positive[scored]))
        yield Measure((Name("image level", "auroc"),), statistic, groups, np.array([scored.sum()]))


def _continuous(results: ImageResults, groups: NDArray[np.int64]) -> Iterator[Measure]:
    """Yield the means over images of what every image has one number of, and the fraction's agreement."""
    columns = {Name(metric.part, name): results.column(name) for name, metric in MASK_METRICS.items()}
    columns |= {Name("error", name): share(results) for name, share in ERRORS.items()}
    values = np.stack(list(columns.values()), axis=1)
    yield Measure(tuple(columns), weighted_mean(values), groups, (~np.isnan(values)).sum(axis=0))
    predicted, truth = results.column("fraction"), results.column("fraction_truth")
    known = ~np.isnan(predicted) & ~np.isnan(truth)
    if known.sum() > 1:
        names = tuple(Name("fraction", name) for name in AGREEMENT)
        statistic = _of(known, agreement(predicted[known], truth[known]))
        yield Measure(names, statistic, groups, np.full(len(names), known.sum()))


def agreement(predicted: Floats, truth: Floats) -> Statistic:
    """Return mean absolute error, bias, Pearson r and both 95 % limits of agreement, in `AGREEMENT` order.

    The limits are after Bland and Altman 1986. Both are infected fractions ``(U,)`` in [0, 1], without NaN. Bias is
    predicted minus truth.
    """
    difference = predicted - truth
    # centred first: the moments of a weighted sum lose digits when the mean is far from 0
    x, y = predicted - predicted.mean() if len(predicted) else predicted, truth - truth.mean() if len(truth) else truth
    columns = np.stack([np.abs(difference), difference, difference**2, x, y, x * x, y * y, x * y], axis=1)

    def statistic(weights: Floats) -> Floats:
        total = weights.sum(axis=1, keepdims=True)
        error, bias, squared, mx, my, xx, yy, xy = (weights @ columns / total).T
        spreads = np.sqrt(np.maximum(xx - mx**2, 0) * np.maximum(yy - my**2, 0))
        # a stratum whose truth is constant (all negatives) has no correlation
        pearson = np.divide(xy - mx * my, spreads, out=np.full_like(spreads, np.nan), where=spreads > 1e-12)
        n = total[:, 0]
        spread = 1.96 * np.sqrt(np.maximum(squared - bias**2, 0) * n / np.maximum(n - 1, 1))
        return np.stack([error, bias, pearson, bias - spread, bias + spread], axis=1)

    return statistic


def _false_positive_area(results: ImageResults) -> Floats:
    """Share of the image; of scored images without infection."""
    pixels = results.column("height") * results.column("width")
    return np.where(results.positive | results.refused, np.nan, results.column("fp") / pixels)


def _share_near_lung_border(results: ImageResults) -> Floats:
    """Share of the wrong pixels; of scored images that have any."""
    wrong = results.column("fp") + results.column("fn")
    return np.where((wrong > 0) & ~results.refused, results.column("border_error") / np.maximum(wrong, 1), np.nan)


def _small_lesions_missed(results: ImageResults) -> Floats:
    """Share of the small lesions; of images that have any."""
    lesions = results.column("small_lesions")
    return np.where(lesions > 0, results.column("small_missed") / np.maximum(lesions, 1), np.nan)


ERRORS: dict[str, Callable[[ImageResults], Floats]] = {
    "false_positive_area": _false_positive_area,
    "share_near_lung_border": _share_near_lung_border,
    "small_lesions_missed": _small_lesions_missed,
}


def _of(kept: NDArray[np.bool_], statistic: Statistic) -> Statistic:
    """Restrict a statistic to some units."""
    return lambda weights: statistic(weights[:, kept])
