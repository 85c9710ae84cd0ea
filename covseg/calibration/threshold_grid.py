"""One pass of the network, every setting of the mask's cleaning: counts instead of pixels.

In: an image's probabilities at model geometry. Out: Dice, marked area and "anything left" for each
(threshold, minimum component) pair; image-level threshold and minimum infection only empty a mask, so they
need no pixels. The result equals what `covseg.stages.postprocess` would leave (a test says so).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from covseg.metrics.intervals import Floats
from covseg.records import Mask, Prediction
from covseg.settings.model import Thresholds
from covseg.stages.postprocess import clean_lung


@dataclass(frozen=True)
class Grid:
    """Settings that are tried; shares are of the model grid."""

    infection: tuple[float, ...] = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8)
    min_component_share: tuple[float, ...] = (0.0, 0.0005, 0.001, 0.002, 0.004, 0.008)
    min_infection_share: tuple[float, ...] = (0.0, 0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.08)
    presence: tuple[float, ...] = (0.0,)


@dataclass(frozen=True)
class GridCounts:
    """One image under every (threshold, minimum component); T x A settings.

    Parameters
    ----------
    dice : ndarray of float32, shape (T, A)
        0 on an image without true infection.
    area : ndarray of float32, shape (T, A)
        Share of the grid that is marked before the lung clips it.
    marked : ndarray of bool, shape (T, A)
        Anything is left inside the lung.
    fraction : ndarray of float32, shape (T, A)
        Marked share of the lung, on the grid; NaN without a lung.
    presence : float
        The network's own probability of any infection.
    """

    dice: NDArray[np.float32]
    area: NDArray[np.float32]
    marked: NDArray[np.bool_]
    fraction: NDArray[np.float32]
    presence: float


def count_grid(prediction: Prediction, truth: Mask, grid: Grid, lung_threshold: float) -> GridCounts:
    """Count an image under every setting.

    Parameters
    ----------
    prediction : Prediction
        Not tempered.
    truth : ndarray of uint8, shape (S, S)
        0 or 1, on the model grid.
    lung_threshold : float
        Of the model.
    """
    lung, _, _ = clean_lung((prediction.lung >= lung_threshold).astype(np.uint8))
    counts = np.array([_at_threshold(prediction.infection >= level, truth, lung, grid) for level in grid.infection])
    marked, tp, inside = counts[..., 0], counts[..., 1], counts[..., 2]
    total = inside + np.count_nonzero(truth)
    dice = np.where((total > 0) & truth.any(), 2 * tp / np.maximum(total, 1), 0)
    lung_area = np.count_nonzero(lung)
    fraction = inside / lung_area if lung_area else np.full_like(inside, np.nan)
    return GridCounts(
        dice.astype(np.float32), (marked / truth.size).astype(np.float32), inside > 0, fraction.astype(np.float32),
        prediction.presence,
    )  # fmt: skip


def _at_threshold(raw: NDArray[np.bool_], truth: Mask, lung: Mask, grid: Grid) -> Floats:
    """Return (marked, true positive, inside lung) pixels for each minimum component; ``(A, 3)``."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(raw.astype(np.uint8), connectivity=8)
    inside = np.bincount(parts[lung > 0], minlength=count)
    true = np.bincount(parts[(lung & truth) > 0], minlength=count)
    table = np.stack([stats[:, cv2.CC_STAT_AREA], true, inside], axis=1)[1:].astype(np.float64)
    minima = [share * raw.size for share in grid.min_component_share]
    return np.array([table[table[:, 0] >= (least if least > 1 else 0)].sum(axis=0) for least in minima])


def refused_counts(grid: Grid, positive: bool) -> GridCounts:
    """Stand in for an image that the pipeline refused: a miss, or a false alarm that no setting removes."""
    shape = len(grid.infection), len(grid.min_component_share)
    area = np.full(shape, np.inf, np.float32)
    fraction = np.full(shape, np.nan, np.float32)
    return GridCounts(np.zeros(shape, np.float32), area, np.full(shape, not positive), fraction, float("inf"))


@dataclass(frozen=True)
class Table:
    """All images, stacked; see `GridCounts`.

    Parameters
    ----------
    dice, area, marked, fraction : ndarray, shape (N, T, A)
    presence : ndarray of float64, shape (N,)
    positive : ndarray of bool, shape (N,)
    fraction_truth : ndarray of float64, shape (N,)
        Infected share of the true lung at source size; NaN where the set has none.
    strata : ndarray of int64, shape (N,)
    axes : Grid
        What T and A stand for.
    demanded : tuple of int
        Strata whose specificity is demanded; () demands it of all images without infection.
    """

    dice: Floats
    area: Floats
    marked: NDArray[np.bool_]
    fraction: Floats
    presence: Floats
    positive: NDArray[np.bool_]
    fraction_truth: Floats
    strata: NDArray[np.int64]
    axes: Grid
    demanded: tuple[int, ...] = ()

    @property
    def negative(self) -> NDArray[np.bool_]:
        """Images whose masks are the false alarms that a demand on specificity counts."""
        return ~self.positive & (np.isin(self.strata, self.demanded) if self.demanded else True)

    def place(self, infection: float, min_component_share: float) -> tuple[int, int]:
        """Return the (t, a) of a setting."""
        return self.axes.infection.index(infection), self.axes.min_component_share.index(min_component_share)


def stack(
    images: list[GridCounts], positive: list[bool], fraction_truth: list[float], strata: list[int], grid: Grid
) -> Table:
    """Stack images, swept over `grid`, into a `Table`."""
    return Table(
        np.stack([image.dice for image in images]).astype(np.float64),
        np.stack([image.area for image in images]).astype(np.float64),
        np.stack([image.marked for image in images]),
        np.stack([image.fraction for image in images]).astype(np.float64),
        np.array([image.presence for image in images]),
        np.array(positive),
        np.array(fraction_truth, dtype=np.float64),
        np.array(strata, dtype=np.int64),
        grid,
    )


def presence_candidates(presence: Floats, count: int = 80) -> tuple[float, ...]:
    """Return 0 and quantiles of the observed probabilities, between neighbouring images; no labels are used."""
    known = np.unique(presence[np.isfinite(presence)])
    middles = (known[1:] + known[:-1]) / 2
    if len(middles) > count:
        middles = np.quantile(middles, np.linspace(0, 1, count))
    return tuple(dict.fromkeys((0.0, *(round(float(value), 6) for value in middles))))


def outcomes(table: Table, thresholds: Thresholds) -> tuple[Floats, NDArray[np.bool_]]:
    """Return each image's Dice ``(N,)`` and whether it keeps a mask ``(N,)`` under one setting of its axes."""
    place = table.place(thresholds.infection, thresholds.min_component_share)
    kept = (table.area[:, *place] >= thresholds.min_infection_share) & (table.presence >= thresholds.presence)
    return np.where(kept, table.dice[:, *place], 0.0), kept & table.marked[:, *place]


def fractions(table: Table, thresholds: Thresholds) -> Floats:
    """Return each image's infected fraction ``(N,)`` under one setting of its axes; NaN without a lung or refused."""
    fraction = table.fraction[:, *table.place(thresholds.infection, thresholds.min_component_share)]
    _, kept = outcomes(table, thresholds)
    return np.where(kept | np.isnan(fraction), fraction, 0.0)
