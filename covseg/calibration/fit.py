"""Choose cleaning settings and a temperature by a stated objective, with a cross-fitted estimate.

Objective: the highest mean Dice over images with infection, subject to a least image-level
specificity on images without. The gain on the images that chose it is optimistic; so every image is
also judged by settings that were chosen without its fold, and that number is the one to quote.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import exp

import numpy as np
from numpy.typing import NDArray

from covseg.calibration.threshold_grid import Grid, Table, outcomes
from covseg.metrics.image_level import log_loss
from covseg.metrics.intervals import Difference, Estimate, Floats, estimates, paired, weighted_mean
from covseg.settings.model import Thresholds

FOLDS, REPEATS = 5, 4


@dataclass(frozen=True)
class Sums:
    """Totals of each fold under every setting, ``(F, T, A, M, G)``.

    Parameters
    ----------
    dice, alarms : ndarray
        Sum of Dice over positives; negatives that keep a mask, of those whose specificity is demanded.
    positives, negatives : ndarray, shape (F,)
    """

    dice: Floats
    alarms: Floats
    positives: Floats
    negatives: Floats


def fold_sums(table: Table, grid: Grid, folds: NDArray[np.int64], count: int = FOLDS) -> Sums:
    """Add up every setting in each of `count` folds, empty ones too.

    Emptying a mask is a product, so this is matrix products.
    """
    passes = (table.presence[:, None] >= np.array(grid.presence)).astype(np.float64)
    settings = (grid.infection, grid.min_component_share, grid.min_infection_share, grid.presence)
    shape = (count, *map(len, settings))
    dice, alarms = np.zeros(shape), np.zeros(shape)
    for t, a in np.ndindex(*shape[1:3]):
        place = table.place(grid.infection[t], grid.min_component_share[a])
        area, marked, scores = table.area[:, *place, None], table.marked[:, *place, None], table.dice[:, *place, None]
        large = area >= np.array(grid.min_infection_share)
        for fold in range(shape[0]):
            here, there = (folds == fold) & table.positive, (folds == fold) & table.negative
            dice[fold, t, a] = (scores[here] * large[here]).T @ passes[here]
            alarms[fold, t, a] = (marked[there] & large[there]).T.astype(np.float64) @ passes[there]
    positives, negatives = (np.bincount(folds, images, shape[0]) for images in (table.positive, table.negative))
    return Sums(dice, alarms, positives.astype(np.float64), negatives.astype(np.float64))


def choose(sums: Sums, kept: list[int], grid: Grid, least: float) -> Thresholds:
    """Return the best setting on some folds: the objective, else the highest specificity there is."""
    dice = sums.dice[kept].sum(axis=0) / max(sums.positives[kept].sum(), 1)
    specificity = 1 - sums.alarms[kept].sum(axis=0) / max(sums.negatives[kept].sum(), 1)
    allowed = specificity >= least - 1e-12
    ranked = np.where(allowed, dice, -np.inf) if allowed.any() else specificity + dice / 1e6
    t, a, m, g = np.unravel_index(int(ranked.argmax()), ranked.shape)
    return Thresholds(
        infection=grid.infection[t], min_component_share=grid.min_component_share[a],
        min_infection_share=grid.min_infection_share[m], presence=grid.presence[g],
    )  # fmt: skip


@dataclass(frozen=True)
class Fit:
    """One family of settings, chosen on all images, and judged.

    `dice` and `specificity` are on the images that chose them: optimistic. For the cross-fitted ones every image is
    judged by settings chosen without its fold: the interval is over images, for the settings that were chosen; it does
    not contain the chance of the choice. The gains are cross-fitted minus the starting settings, paired.
    """

    name: str
    thresholds: Thresholds
    dice: Estimate
    specificity: Estimate
    crossfit_dice: Estimate
    crossfit_specificity: Estimate
    gain: Difference
    specificity_gain: Difference
    crossfit_by_stratum: dict[int, Estimate]


def fit(name: str, table: Table, grid: Grid, least: float, start: tuple[Floats, NDArray[np.bool_]]) -> Fit:
    """Choose on all images, and cross-fit in `FOLDS` folds, `REPEATS` times.

    Parameters
    ----------
    name : str
        Of the family of settings.
    grid : Grid
        Settings that may be chosen.
    least : float
        Specificity that must be kept.
    start : tuple
        Dice ``(N,)`` and kept masks ``(N,)`` under the starting settings.
    """
    chosen = choose(fold_sums(table, grid, np.zeros(len(table.positive), np.int64)), [0], grid, least)
    apparent = _values(table, *outcomes(table, chosen))
    held_out = np.mean([_cross_fit(table, grid, least, seed) for seed in range(REPEATS)], axis=0)
    groups = table.strata
    judged = [values[:, :2] for values in (apparent, _values(table, *start), held_out)]
    mean, before, after = map(weighted_mean, judged)
    n = (~np.isnan(judged[0])).sum(axis=0)
    (dice, clean), (held_dice, held_clean) = estimates(mean, groups, n), estimates(after, groups, n)
    gain, clean_gain = paired(after, before, groups)
    by_stratum = _by_stratum(table, held_out)
    return Fit(name, chosen, dice, clean, held_dice, held_clean, gain, clean_gain, by_stratum)


def _by_stratum(table: Table, held_out: Floats) -> dict[int, Estimate]:
    """Return the specificity of each stratum without infection, demanded or not."""
    found = {}
    for stratum in np.unique(table.strata[~table.positive]).tolist():
        clean = held_out[(table.strata == stratum) & ~table.positive, 2:]
        groups, n = np.zeros(len(clean), np.int64), np.array([len(clean)])
        (found[stratum],) = estimates(weighted_mean(clean), groups, n)
    return found


def _values(table: Table, dice: Floats, kept: NDArray[np.bool_]) -> Floats:
    """Return Dice of positives, and cleanness of negatives: those demanded, and all; ``(N, 3)``, NaN for the others."""
    columns = [(table.positive, dice), (table.negative, ~kept), (~table.positive, ~kept)]
    return np.stack([np.where(images, values, np.nan) for images, values in columns], axis=1)


def _cross_fit(table: Table, grid: Grid, least: float, seed: int) -> Floats:
    """Score every image by the setting that was chosen without its fold."""
    values = np.full((len(table.positive), 3), np.nan)
    for here, chosen in held_out_choices(table, grid, least, seed):
        values[here] = _values(table, *outcomes(table, chosen))[here]
    return values


def held_out_choices(
    table: Table, grid: Grid, least: float, seed: int
) -> Iterator[tuple[NDArray[np.bool_], Thresholds]]:
    """Yield each fold's images ``(N,)`` and the setting that was chosen without them."""
    folds = folds_of(table.strata, seed)
    sums = fold_sums(table, grid, folds)
    for fold in range(FOLDS):
        yield folds == fold, choose(sums, [other for other in range(FOLDS) if other != fold], grid, least)


def folds_of(strata: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Put images into folds, each stratum evenly."""
    generator = np.random.default_rng(seed)
    folds = np.zeros(len(strata), np.int64)
    for stratum in np.unique(strata):
        members = generator.permutation(np.flatnonzero(strata == stratum))
        folds[members] = np.arange(len(members)) % FOLDS
    return folds


def families(grid: Grid, start: Thresholds) -> dict[str, Grid]:
    """Return the settings to choose among, from one at a time to all together."""
    fixed = Grid((start.infection,), (0.0,), (0.0,), (0.0,))
    return {
        "threshold alone": replace(fixed, infection=grid.infection),
        "image-level threshold alone": replace(fixed, presence=grid.presence),
        "minimum infection alone": replace(fixed, min_infection_share=grid.min_infection_share),
        "minimum component alone": replace(fixed, min_component_share=grid.min_component_share),
        "all but the threshold": replace(grid, infection=(start.infection,)),
        "everything": grid,
    }


def temper_all(probability: Floats, temperature: float) -> Floats:
    """Divide logits by a temperature; as `covseg.stages.postprocess.temper`, on arrays."""
    clipped = np.clip(probability, 1e-7, 1 - 1e-7)
    return np.asarray(1 / (1 + ((1 - clipped) / clipped) ** (1 / temperature)))


def fit_temperature(probability: Floats, positive: NDArray[np.bool_]) -> float:
    """Return the temperature with the least negative log likelihood, by golden section on its logarithm.

    The likelihood is convex in 1 / T, so there is one minimum; the search runs from 1/20 to 20.
    """
    low, high, ratio = np.log(0.05), np.log(20.0), (5**0.5 - 1) / 2

    def loss(logarithm: float) -> float:
        return float(log_loss(temper_all(probability, exp(logarithm)), positive).mean())

    for _ in range(60):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if loss(left) <= loss(right) else (left, high)
    return round(exp((low + high) / 2), 4)


def cross_fit_temperature(probability: Floats, positive: NDArray[np.bool_], strata: NDArray[np.int64]) -> Floats:
    """Return each image's probability under the temperature that was fitted without its fold."""
    folds, tempered = folds_of(strata, 0), np.empty(len(probability))
    for fold in range(FOLDS):
        away, here = folds != fold, folds == fold
        tempered[here] = temper_all(probability[here], fit_temperature(probability[away], positive[away]))
    return tempered
