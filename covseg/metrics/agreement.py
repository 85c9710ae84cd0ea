"""Agreement of the infected fraction: error, bias, correlation, limits of agreement (Bland and Altman 1986)."""

from __future__ import annotations

import numpy as np

from covseg.metrics.intervals import Floats, Statistic

AGREEMENT = ("mae", "bias", "pearson_r", "limit_low", "limit_high")


def agreement(predicted: Floats, truth: Floats) -> Statistic:
    """Return mean absolute error, bias, Pearson r and both 95 % limits of agreement, in `AGREEMENT` order.

    Parameters
    ----------
    predicted, truth : ndarray of float64, shape (U,)
        Infected fractions in [0, 1], without NaN. Bias is predicted minus truth.
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
