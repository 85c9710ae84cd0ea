"""Intervals of the infected fraction: split-conformal in bins, with their cross-fitted coverage.

In: a `Table` and the settings chosen on it. Out: `FractionIntervals` for the model's JSON, and how often such
intervals held the truth of images that chose neither the settings nor the intervals. Method: Vovk et al. 2003
(Mondrian), Papadopoulos et al. 2002 (split); residuals are true fraction - predicted fraction, each of its own lung.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from covseg.calibration.fit import REPEATS, held_out_choices
from covseg.calibration.threshold_grid import Grid, Table, fractions
from covseg.evaluation.records import Record
from covseg.metrics.intervals import Estimate, Floats, estimates, weighted_mean
from covseg.settings.model import FractionIntervals, Thresholds
from covseg.stages.postprocess import temper
from covseg.stages.severity import fraction_interval, interval_bin

LEVEL = 0.9
EDGES = (0.25, 0.5, 0.75)  # those of the grades
DOUBTFUL = 0.05  # of the empty masks: the part with the highest presence


class Coverage(Record):
    """How often the intervals held the truth, cross-fitted, and the median width of those that were fitted to all."""

    level: float
    coverage: dict[str, Estimate]
    median_width: dict[str, float]


@dataclass(frozen=True)
class IntervalFit:
    """Intervals for the model's JSON, and what they are worth by stratum, and on empty and on marked masks."""

    intervals: FractionIntervals
    quality: Coverage


def conformal_ends(residuals: Floats, below: float, above: float) -> tuple[float, float]:
    """Return what to add to a prediction, so that a new residual lies under or over it at most so often.

    With n residuals that is the floor((n + 1) below)-th and the ceil((n + 1) (1 - above))-th smallest, which are
    -1 and 1, the whole range of a fraction, where n is too small to say. Rounded outwards to four decimals, and 0
    always lies between.

    Parameters
    ----------
    residuals : ndarray of float64, shape (n,)
        Truth - prediction, in [-1, 1].
    below, above : float
        Share of images allowed on each side; 0 below leaves the lower end at 0, for a prediction that is 0.

    Examples
    --------
    >>> conformal_ends(np.arange(-9, 10) / 100, 0.05, 0.05), conformal_ends(np.array([0.1]), 0.05, 0.05)
    ((-0.09, 0.09), (-1.0, 1.0))
    """
    ordered, n = np.sort(residuals), len(residuals)
    # rounded first: (n + 1) * 0.05 is 0.9999999 for some n
    first, last = floor(round((n + 1) * below, 9)), ceil(round((n + 1) * (1 - above), 9))
    low = 0.0 if not below else ordered[first - 1] if first else -1.0
    high = ordered[last - 1] if last <= n else 1.0
    return floor(round(min(low, 0.0) * 1e4, 6)) / 1e4, ceil(round(max(high, 0.0) * 1e4, 6)) / 1e4


def fit_intervals(fraction: Floats, truth: Floats, presence: Floats, level: float = LEVEL) -> FractionIntervals:
    """Fit the bins to images whose true fraction is known; all arrays have shape ``(N,)``."""
    doubtful = _doubtful(presence[fraction == 0])
    places = np.array([interval_bin(*image, doubtful, EDGES) for image in zip(fraction, presence, strict=True)])
    members = [(truth - fraction)[places == place] for place in range(len(EDGES) + 3)]
    missed = 1 - level
    # no truth lies under an empty mask's 0: all that may be missed is above
    sides = [(0.0, missed)] * 2 + [(missed / 2, missed / 2)] * (len(EDGES) + 1)
    low, high = zip(*(conformal_ends(one, *side) for one, side in zip(members, sides, strict=True)), strict=True)
    return FractionIntervals(
        level=level, doubtful_presence=doubtful, edges=EDGES, low=low, high=high, n=tuple(map(len, members))
    )


def _doubtful(presence: Floats) -> float:
    """Return the presence that parts the doubtful `DOUBTFUL` of empty masks from the rest; no truth is used."""
    ranked = np.sort(presence)[::-1]
    count = max(1, round(DOUBTFUL * len(ranked)))
    return float(ranked[count - 1 : count + 1].mean()) if count < len(ranked) else 0.0


def ends_of(fraction: Floats, presence: Floats, intervals: FractionIntervals) -> Floats:
    """Return low and high of each image ``(N, 2)``."""
    images = zip(fraction, presence, strict=True)
    return np.array([fraction_interval(*image, intervals) for image in images], np.float64).reshape(-1, 2)


def fit_and_judge(
    table: Table, grid: Grid, chosen: Thresholds, least: float, temperature: float, strata: tuple[str, ...]
) -> IntervalFit | None:
    """Fit intervals to the chosen settings; None where no image has both a true and a predicted fraction.

    Parameters
    ----------
    grid : Grid
        Settings that are chosen again without each fold.
    chosen : Thresholds
        On the network's own scale.
    least : float
        Specificity that the choice must keep.
    temperature : float
        Brings the edge between empty masks to the scale of the rows.
    strata : tuple of str
        Names of `table.strata`.
    """
    fraction = fractions(table, chosen)
    known = np.isfinite(fraction) & np.isfinite(table.fraction_truth)
    if not known.any():
        return None
    fraction, presence = fraction[known], table.presence[known]
    intervals = fit_intervals(fraction, table.fraction_truth[known], presence)
    width = np.diff(ends_of(fraction, presence, intervals))[:, 0]
    groups = _groups(fraction, table.strata[known], strata)
    held = np.mean([_held_out(table, grid, least, seed) for seed in range(REPEATS)], axis=0)[known]
    members = np.stack(list(groups.values()), axis=1)
    coverage = estimates(
        weighted_mean(np.where(members, held[:, None], np.nan)), table.strata[known], members.sum(axis=0)
    )
    quality = Coverage(
        level=intervals.level,
        coverage=dict(zip(groups, coverage, strict=True)),
        median_width={name: round(float(np.median(width[group])), 4) for name, group in groups.items()},
    )
    edge = temper(intervals.doubtful_presence, temperature) if intervals.doubtful_presence else 0.0
    return IntervalFit(intervals.model_copy(update={"doubtful_presence": edge}), quality)


def _groups(fraction: Floats, strata: NDArray[np.int64], names: tuple[str, ...]) -> dict[str, NDArray[np.bool_]]:
    """Return the images of each group that has any."""
    groups = {"all images": np.full(len(fraction), True), **{name: strata == i for i, name in enumerate(names)}}
    groups |= {"marked masks": fraction > 0, "empty masks": fraction == 0}
    return {name: group for name, group in groups.items() if group.any()}


def _held_out(table: Table, grid: Grid, least: float, seed: int) -> Floats:
    """Say of every image ``(N,)`` whether settings and intervals that were made without its fold hold its truth.

    NaN where there is none to hold.
    """
    truth, held = table.fraction_truth, np.full(len(table.presence), np.nan)
    for here, chosen in held_out_choices(table, grid, least, seed):
        fraction = fractions(table, chosen)
        known = np.isfinite(fraction) & np.isfinite(truth)
        away, here = known & ~here, known & here
        intervals = fit_intervals(fraction[away], truth[away], table.presence[away])
        low, high = ends_of(fraction[here], table.presence[here], intervals).T
        held[here] = (low <= truth[here]) & (truth[here] <= high)
    return held
