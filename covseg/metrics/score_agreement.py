"""How two columns of scores agree: rank correlation, and of yes and no the agreement and Cohen's kappa.

In: two aligned columns without NaN. Out: statistics, as `covseg.metrics.intervals` takes them. Pearson r, bias, limits
of agreement and mean absolute error are `covseg.metrics.measures.agreement`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from covseg.metrics.image_level import Booleans
from covseg.metrics.intervals import Floats, Statistic


def spearman(first: Floats, other: Floats) -> Statistic:
    """Return Spearman's r, ``(B, 1)``; ties share the mean of their ranks, NaN where a column is constant.

    Ranks are of each resample, not of the sample: an image that was drawn twice is a tie.
    """
    ranks = _midranks(first), _midranks(other)

    def statistic(weights: Floats) -> Floats:
        total = weights.sum(axis=1, keepdims=True)
        # the mean of all midranks is (n + 1) / 2, whatever is tied
        x, y = (rank(weights) - (total + 1) / 2 for rank in ranks)
        xx, yy, xy = ((weights * product).sum(axis=1) for product in (x * x, y * y, x * y))
        spreads = np.sqrt(xx * yy)
        return np.divide(xy, spreads, out=np.full_like(spreads, np.nan), where=spreads > 1e-12)[:, None]

    return statistic


def _midranks(values: Floats) -> Callable[[Floats], Floats]:
    """Return a function from weights ``(B, U)`` to the rank of each unit's value in each resample ``(B, U)``."""
    kinds, place = np.unique(values, return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(len(kinds)))

    def ranks(weights: Floats) -> Floats:
        drawn = np.add.reduceat(weights[:, order], starts, axis=1)
        return np.asarray((np.cumsum(drawn, axis=1) - (drawn - 1) / 2)[:, place])

    return ranks


def yes_no(first: Booleans, other: Booleans) -> Statistic:
    """Return the share of equal answers and Cohen's kappa, ``(B, 2)``; kappa is NaN where both always say the same."""
    columns = np.stack([first, other, first == other], axis=1).astype(np.float64)

    def statistic(weights: Floats) -> Floats:
        one, two, equal = (weights @ columns / weights.sum(axis=1, keepdims=True)).T
        chance = one * two + (1 - one) * (1 - two)
        kappa = np.divide(equal - chance, 1 - chance, out=np.full_like(equal, np.nan), where=chance < 1 - 1e-12)
        return np.stack([equal, kappa], axis=1)

    return statistic
