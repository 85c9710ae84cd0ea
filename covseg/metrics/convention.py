"""The averaging convention as a typed object: reduction x empty policy x stratum.

In: confusion counts per image, ``(N, 4)`` in the order tp, fp, fn, tn. Out: one value per unit of
averaging. Nothing here is implicit: what 0/0 means is chosen by name, because libraries disagree.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Values = NDArray[np.float64]


class Empty(StrEnum):
    """What 0/0 means: for Dice and IoU that is an empty mask where truth is empty.

    ``one`` scores it 1, ``zero`` 0; ``skip`` leaves the unit out of the mean.
    """

    ONE = "one"
    ZERO = "zero"
    SKIP = "skip"


EMPTY_VALUE = {Empty.ONE: 1.0, Empty.ZERO: 0.0, Empty.SKIP: float("nan")}


@dataclass(frozen=True)
class Reduction:
    """Over what a mean is taken.

    ``image``: one value an image; ``batch``: pixels pooled over `size` images (0 for the other kinds) in the table's
    order, one value a batch; ``dataset``: all pixels pooled, one value.
    """

    kind: Literal["image", "batch", "dataset"]
    size: int = 0

    def __str__(self) -> str:
        """``image``, ``batch(8)`` or ``dataset``."""
        return f"batch({self.size})" if self.kind == "batch" else self.kind

    def units(self, images: int) -> NDArray[np.int64]:
        """Return the unit number of each of `images` images in order."""
        step = {"image": 1, "batch": max(self.size, 1), "dataset": max(images, 1)}[self.kind]
        return np.arange(images) // step


IMAGE, DATASET = Reduction("image"), Reduction("dataset")


def batch(size: int) -> Reduction:
    """Return the mean over batches of `size` images with pooled pixels."""
    return Reduction("batch", size)


REDUCTIONS = (IMAGE, batch(8), DATASET)
Weights = tuple[int, int, int, int]
# metric -> numerator and denominator as weights of (tp, fp, fn, tn); an entry is a row of every table and a column of
# cases.parquet
RATIOS: dict[str, tuple[Weights, Weights]] = {
    "dice": ((2, 0, 0, 0), (2, 1, 1, 0)),
    "iou": ((1, 0, 0, 0), (1, 1, 1, 0)),
    "precision": ((1, 0, 0, 0), (1, 1, 0, 0)),
    "recall": ((1, 0, 0, 0), (1, 0, 1, 0)),
    "specificity": ((0, 0, 0, 1), (0, 1, 0, 1)),
    "accuracy": ((1, 0, 0, 1), (1, 1, 1, 1)),
}
F1 = "f1"  # harmonic mean of the reduced precision and recall, as papers print it


def pixel_metrics() -> tuple[str, ...]:
    """Name the metrics of every convention, in the order of the tables."""
    return (*RATIOS, F1)


def ratios(counts: Counts, empty: Empty, refused: NDArray[np.bool_] | None = None) -> Values:
    """Return every ratio of `RATIOS` for each unit.

    Parameters
    ----------
    counts : ndarray of int64, shape (U, 4)
        tp, fp, fn, tn of each unit.
    empty : Empty
        What 0/0 means.
    refused : ndarray of bool, shape (U,), optional
        Units that hold a refused image: their 0/0 is 0 under every policy; a refusal never earns a point.

    Returns
    -------
    ndarray of float64, shape (U, M)
        One column for each of the M ratios. NaN where the unit is left out.

    Examples
    --------
    >>> ratios(np.array([[0, 0, 0, 9], [0, 1, 0, 8]]), Empty.ONE)[:, 0]
    array([1., 0.])
    """
    above, below = (counts @ np.array([ratio[side] for ratio in RATIOS.values()]).T for side in (0, 1))
    values = np.where(below > 0, above / np.maximum(below, 1), EMPTY_VALUE[empty])
    if refused is not None:
        values = np.where((below == 0) & refused[:, None], 0.0, values)
    return values


def pool(counts: Counts, units: NDArray[np.int64]) -> Counts:
    """Sum counts over the images of each unit; ``(U, 4)``."""
    pooled = np.zeros((int(units.max()) + 1 if len(units) else 0, counts.shape[1]), np.int64)
    np.add.at(pooled, units, counts)
    return pooled


def f1(precision: Values, recall: Values) -> Values:
    """Return the harmonic mean of two reduced values; 0 where both are 0.

    This is what papers print beside mean precision and mean recall. It is not the mean of F1 per
    image, which is the mean Dice.
    """
    total = precision + recall
    return np.where(total == 0, 0.0, 2 * precision * recall / np.where(total == 0, 1.0, total))
