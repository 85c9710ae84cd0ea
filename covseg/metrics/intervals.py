"""Bootstrap intervals, vectorised: a statistic is a function of resampling weights.

In: a `Statistic`, that maps weights ``(B, U)`` (how often each of U units was drawn in each of B
resamples) to values ``(B, M)``. Out: the value on the sample itself and a 95 % percentile interval.
Resampling keeps the number of units in each group, so a stratum never loses its images by chance.
The unit is an image: no patient ids exist, and images of one patient would make intervals too narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
DRAWS, LEVEL = 2000, 0.95
_CHUNK = 4_000_000  # weights held at once, 32 MB


@dataclass(frozen=True)
class Estimate:
    """A value with its interval and the number of units behind it; NaN where nothing can be said."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        """``.744 [.721, .766]``."""
        return interval(self.value, self.low, self.high)


def interval(value: float, low: float, high: float) -> str:
    """Write a value with its interval: ``.744 [.721, .766]``; dashes for NaN."""
    return f"{short(value)} [{short(low)}, {short(high)}]"


def short(value: float, digits: int = 3) -> str:
    """Write a number without a leading zero; a dash for NaN.

    Examples
    --------
    >>> short(0.7654), short(-0.05), short(1.0), short(float("nan"))
    ('.765', '-.050', '1.000', '-')
    """
    if not np.isfinite(value):
        return "-"
    text = f"{value:.{digits}f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def resamples(groups: NDArray[np.int64], draws: int, seed: int) -> Iterator[Floats]:
    """Yield weights ``(b, U)`` in chunks; each group is resampled within itself."""
    generator = np.random.default_rng(seed)
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    step = max(1, min(draws, _CHUNK // max(len(groups), 1)))
    for start in range(0, draws, step):
        weights = np.zeros((min(step, draws - start), len(groups)))
        for member in members:
            weights[:, member] = generator.multinomial(len(member), np.full(len(member), 1 / len(member)), len(weights))
        yield weights


def replicate(
    statistic: Statistic, groups: NDArray[np.int64], draws: int = DRAWS, seed: int = 0
) -> tuple[Floats, Floats]:
    """Return the statistic on the sample ``(M,)`` and on every resample ``(B, M)``."""
    with np.errstate(invalid="ignore", divide="ignore"):
        value = statistic(np.ones((1, len(groups))))[0]
        return value, np.concatenate([statistic(weights) for weights in resamples(groups, draws, seed)])


def estimates(
    statistic: Statistic, groups: NDArray[np.int64], n: NDArray[np.int64], draws: int = DRAWS, seed: int = 0
) -> list[Estimate]:
    """Return one `Estimate` for each of the M values.

    Parameters
    ----------
    statistic : Statistic
        Weights ``(B, U)`` to values ``(B, M)``.
    groups : ndarray of int64, shape (U,)
        Resampled within.
    n : ndarray of int64, shape (M,)
        Units behind each value; 0 gives NaN.
    draws, seed : int
        Of the bootstrap.
    """
    if not len(groups):
        return [Estimate(np.nan, np.nan, np.nan, 0) for _ in n]
    value, replicates = replicate(statistic, groups, draws, seed)
    low, high = quantiles(replicates)
    return [
        Estimate(float(middle), float(down), float(up), int(count))
        for middle, down, up, count in zip(value, low, high, n, strict=True)
    ]


def quantiles(replicates: Floats) -> tuple[Floats, Floats]:
    """Return the ends of the 95 % percentile interval; resamples without a value are left out."""
    kept = ~np.isnan(replicates).all(axis=0)
    ends = np.full((2, replicates.shape[1]), np.nan)
    ends[:, kept] = np.nanquantile(replicates[:, kept], [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return ends[0], ends[1]


def weighted_mean(values: Floats) -> Statistic:
    """Return the statistic "mean over units" of values ``(U, M)``; NaN units are left out."""
    present = ~np.isnan(values)
    filled, present_float = np.where(present, values, 0.0), present.astype(np.float64)

    def statistic(weights: Floats) -> Floats:
        drawn = weights @ present_float
        return np.divide(weights @ filled, drawn, out=np.full_like(drawn, np.nan), where=drawn > 0)

    return statistic


@dataclass(frozen=True)
class Difference:
    """A paired difference A - B with its interval and the share of resamples on the other side of 0, doubled."""

    value: float
    low: float
    high: float
    p: float
    n: int

    def __str__(self) -> str:
        """``+0.012 [-0.003, +0.027]``."""
        return f"{self.value:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def paired(
    a: Statistic, b: Statistic, groups: NDArray[np.int64], draws: int = DRAWS, seed: int = 0
) -> list[Difference]:
    """Compare two models on the same images: the same resample is drawn for both.

    Parameters
    ----------
    a, b : Statistic
        Of the same units, in the same order.
    groups : ndarray of int64, shape (U,)
        Resampled within.
    """
    value, replicates = replicate(lambda weights: a(weights) - b(weights), groups, draws, seed)
    low, high = quantiles(replicates)
    # (count + 1) / (draws + 1): a bootstrap of B draws cannot say p = 0
    tail = np.minimum((replicates <= 0).sum(axis=0), (replicates >= 0).sum(axis=0))
    p = np.minimum(1.0, 2 * (tail + 1) / ((~np.isnan(replicates)).sum(axis=0) + 1))
    return [
        Difference(float(middle), float(down), float(up), float(chance), len(groups))
        for middle, down, up, chance in zip(value, low, high, p, strict=True)
    ]
