"""What doubt finds: a line of ``metrics.json`` for images whose true fraction is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from covseg.evaluation.records import DoubtLine, Measured
from covseg.metrics.doubt_curve import held
from covseg.metrics.intervals import DRAWS, Floats

LEAST = 20  # images; the worst tenth of fewer is one or none


def doubt_line(
    words: str, column: Callable[[str], Floats], strata: NDArray[np.str_], threshold: float, draws: int = DRAWS
) -> DoubtLine | None:
    """Return the line; None where fewer than `LEAST` images have a doubt and both fractions.

    Parameters
    ----------
    words : str
        Which images.
    column : callable
        Gives ``fraction``, ``fraction_truth``, ``doubt`` and ``presence`` ``(N,)`` by name, in [0, 1]; an image with
        NaN in one of them is left out.
    strata : ndarray of str, shape (N,)
        Resampled within.
    threshold : float
        Image-level threshold, which the presence alone is compared with.
    """
    fraction, truth, doubt, presence = map(column, ("fraction", "fraction_truth", "doubt", "presence"))
    known = np.isfinite(fraction) & np.isfinite(truth) & np.isfinite(doubt)
    if known.sum() < LEAST:
        return None
    errors, groups = np.abs(fraction - truth)[known], np.unique(strata[known], return_inverse=True)[1].astype(np.int64)
    found = held(errors, doubt[known], groups, draws)
    alone = held(errors, -np.abs(presence[known] - threshold), groups, 1)["fifth"].value
    parts = {name: Measured(**vars(estimate)) for name, estimate in found.items()}
    return DoubtLine(
        words=words, tenth=parts["tenth"], fifth=parts["fifth"], third=parts["third"], presence_fifth=alone
    )
