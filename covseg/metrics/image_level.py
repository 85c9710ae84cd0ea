"""Is there any infection? Sensitivity, specificity, AUROC, ROC and reliability of one number per image."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from covseg.metrics.intervals import Floats, Statistic

Booleans = NDArray[np.bool_]


def auroc(scores: Floats, positive: Booleans) -> Statistic:
    """Return the AUROC as a statistic; ties count one half, NaN without both classes.

    Parameters
    ----------
    scores : ndarray of float64, shape (U,)
        Higher is more infected.
    positive : ndarray of bool, shape (U,)
        Truth.
    """
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) > 0]) if len(order) else np.empty(0, np.int64)
    truth = positive[order].astype(np.float64)

    def statistic(weights: Floats) -> Floats:
        drawn = weights[:, order]
        hits = np.add.reduceat(drawn * truth, starts, axis=1)
        misses = np.add.reduceat(drawn * (1 - truth), starts, axis=1)
        below = np.cumsum(misses, axis=1) - misses
        won = (hits * (below + misses / 2)).sum(axis=1)
        return np.asarray(won / (hits.sum(axis=1) * misses.sum(axis=1)))[:, None]

    return statistic


def roc_curve(scores: Floats, positive: Booleans) -> tuple[Floats, Floats]:
    """Return false and true positive rates from the strictest threshold to the loosest, ties merged."""
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.r_[np.diff(scores[order]) != 0, True])
    true = np.cumsum(positive[order])[ends] / max(int(positive.sum()), 1)
    false = np.cumsum(~positive[order])[ends] / max(int((~positive).sum()), 1)
    return np.r_[0.0, false], np.r_[0.0, true]


def reliability(probability: Floats, positive: Booleans, bins: int = 10) -> list[tuple[float, float, int]]:
    """Return (mean probability, share of positives, images) of each filled bin of equal width."""
    place = np.minimum((probability * bins).astype(int), bins - 1)
    filled = [place == number for number in range(bins) if (place == number).any()]
    return [(float(probability[here].mean()), float(positive[here].mean()), int(here.sum())) for here in filled]


def calibration_error(probability: Floats, positive: Booleans, bins: int = 10) -> float:
    """Return the expected calibration error: mean gap of the bins, weighted by images; NaN without images."""
    if not len(probability):
        return float("nan")
    rows = reliability(probability, positive, bins)
    return sum(abs(mean - observed) * n for mean, observed, n in rows) / len(probability)


def log_loss(probability: Floats, positive: Booleans) -> Floats:
    """Return the negative log likelihood of each image."""
    clipped = np.clip(probability, 1e-7, 1 - 1e-7)
    return np.asarray(-np.where(positive, np.log(clipped), np.log1p(-clipped)))
