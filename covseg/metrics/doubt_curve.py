"""How many of the largest errors lie among the images of highest doubt: the share that a reader finds by looking there.

In: errors and doubts of images. Out: for the first tenth, fifth and third of doubt, the share of the worst tenth of
errors that it holds. Chance gives the share itself: .1, .2, .333. Ties are split evenly, so that no order decides.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from covseg.metrics.intervals import DRAWS, Estimate, Floats, Statistic, estimates

WORST = 0.1  # share of the images whose errors are to be found
FIRST = {"tenth": 0.1, "fifth": 0.2, "third": 1 / 3}  # shares that are looked at


def held(
    errors: Floats, doubt: Floats, groups: NDArray[np.int64], draws: int = DRAWS, seed: int = 0
) -> dict[str, Estimate]:
    """Return the share of the `WORST` errors that each part of `FIRST` holds, with its bootstrap interval.

    Parameters
    ----------
    errors, doubt : ndarray of float64, shape (N,)
        Finite; higher is worse, and looked at earlier.
    groups : ndarray of int64, shape (N,)
        Resampled within.
    """
    count = np.full(len(FIRST), len(errors))
    found = estimates(_statistic(errors, doubt), groups, count, draws, seed)
    return dict(zip(FIRST, found, strict=True))


def _statistic(errors: Floats, doubt: Floats) -> Statistic:
    error_ranks, doubt_ranks = (np.unique(-values, return_inverse=True)[1] for values in (errors, doubt))

    def statistic(weights: Floats) -> Floats:
        found = np.empty((len(weights), len(FIRST)))
        for place, drawn in enumerate(weights):
            worst = drawn * _first(error_ranks, drawn, WORST)
            found[place] = [(worst * _first(doubt_ranks, drawn, share)).sum() for share in FIRST.values()]
        return found / (WORST * weights.sum(axis=1, keepdims=True))

    return statistic


def _first(ranks: NDArray[np.intp], drawn: Floats, share: float) -> Floats:
    """Return how much of each image ``(N,)``, in [0, 1], lies in the first `share` of the drawn images by rank."""
    tied = np.bincount(ranks, drawn)
    before = np.cumsum(tied) - tied
    room = np.clip(share * drawn.sum() - before, 0, tied)
    return np.divide(room, tied, out=np.zeros_like(tied), where=tied > 0)[ranks]
