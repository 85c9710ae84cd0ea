"""Metrics of one image's two masks, in a table: an entry is a column of ``cases.parquet`` and a mean of every table.

In: a `MaskPair`. Out: one number, NaN where nothing can be said of the image; NaN is left out of the mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from covseg.metrics.surface import TOLERANCE, Distances, boundary_distances
from covseg.records import Mask


@dataclass(frozen=True, eq=False)
class MaskPair:
    """One image's masks, at source resolution.

    Parameters
    ----------
    guess, truth : ndarray of uint8, shape (H, W)
        Infection, 0 or 1: predicted and true.
    lung : ndarray of uint8, shape (H, W)
        The true lung; the predicted one where the set has no lung truth.
    """

    guess: Mask
    truth: Mask
    lung: Mask

    @cached_property
    def distances(self) -> Distances | None:
        """Distances between the two boundaries, computed once for all metrics; None where a mask is empty."""
        return boundary_distances(self.guess, self.truth) if self.guess.any() and self.truth.any() else None


class MaskMetric(NamedTuple):
    """How a metric of two masks is computed and shown.

    Attributes
    ----------
    measure : callable
        From a `MaskPair` to a number.
    part : str
        The group that its line stands under in ``metrics.json``.
    title : str
        Head of its column.
    words : str
        What the number is; stands among the conventions of ``metrics.json``.
    digits : int
        Decimals shown.
    """

    measure: Callable[[MaskPair], float]
    part: str
    title: str
    words: str
    digits: int = 3


def hd95(pair: MaskPair) -> float:
    """Return the larger of the two directed 95th percentiles (linear interpolation) of distance, in pixels."""
    if pair.distances is None:
        return float("nan")
    return max(float(np.percentile(directed, 95)) for directed in pair.distances)


def nsd(pair: MaskPair, tolerance: float | None = None) -> float:
    """Return the normalised surface distance in [0, 1].

    Parameters
    ----------
    tolerance : float, optional
        Pixels; a boundary pixel within it counts as right. `TOLERANCE` of the longer side unless given.

    Returns
    -------
    float
        Share of both boundaries within `tolerance` of the other (Nikolov et al. 2021,
        doi 10.2196/26151, on pixels instead of surface elements).
    """
    if pair.distances is None:
        return float("nan")
    reach = TOLERANCE * max(pair.truth.shape) if tolerance is None else tolerance
    near = sum(np.count_nonzero(directed <= reach) for directed in pair.distances)
    return near / sum(map(len, pair.distances))


MASK_METRICS: dict[str, MaskMetric] = {
    "hd95": MaskMetric(
        hd95, "surface", "HD95, px",
        "source pixels, over images with both masks filled; misses and false alarms are counted beside it", digits=1,
    ),
    "nsd": MaskMetric(
        nsd, "surface", "NSD", f"share of both boundaries within {TOLERANCE:.4f} of the longer side (3 px at 256)"
    ),
}  # fmt: skip
