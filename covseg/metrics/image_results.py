"""What is kept of a scored image: under 300 bytes of numbers, never pixels.

In: a scored image's masks and its truth, one after the other. Out: `ImageResults`, aligned columns.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from covseg.metrics.convention import Counts
from covseg.metrics.mask_metrics import MASK_METRICS, MaskPair
from covseg.metrics.surface import Surface, status
from covseg.records import Mask, Masks, Truth

BORDER = 5 / 256  # of the longer side: half the width of the band around the lung's border
SMALL_LESION = 0.005  # of the image; smaller connected parts of truth are small lesions


@dataclass(frozen=True)
class ImageResult:
    """The numbers of one image, at source resolution.

    Parameters
    ----------
    reason : str
        Why the image was refused; empty when it was scored.
    tp, fp, fn : int
        Infection pixels; of a refused image all truth is `fn`.
    lung_tp, lung_fp, lung_fn : int
        Lung pixels; -1 where the set has no lung truth.
    surface : int
        A `Surface`.
    scores : dict of str to float
        Of every metric in `MASK_METRICS`; NaN where nothing can be said.
    presence : float
        Probability of any infection; NaN when refused.
    fraction, fraction_truth : float
        Infected share of the predicted lung, and of the true lung; NaN without a lung.
    doubt : float
        Of the row, [0, 1]; NaN when refused, or in a table that is older than doubt.
    border_error : int
        Wrong infection pixels inside the band around the true lung's border.
    small_lesions, small_missed : int
        Small connected parts of truth, and those without one predicted pixel.
    """

    key: str
    stratum: str
    reason: str
    height: int
    width: int
    tp: int
    fp: int
    fn: int
    lung_tp: int
    lung_fp: int
    lung_fn: int
    surface: int
    scores: Mapping[str, float]
    presence: float
    fraction: float
    fraction_truth: float
    doubt: float
    border_error: int
    small_lesions: int
    small_missed: int


_TEXT = ("key", "stratum", "reason")
_ARROW = {"int": pa.int32(), "float": pa.float32(), "str": pa.string()}
_CODES = {pa.int32(): "i", pa.float32(): "f"}  # of `array`


def schema() -> pa.Schema:
    """Return the columns of `ImageResults`: the fields of `ImageResult`, with every mask metric's own."""
    columns: list[tuple[str, pa.DataType]] = []
    for field in fields(ImageResult):
        names = MASK_METRICS if field.name == "scores" else [field.name]
        columns += [(name, _ARROW.get(str(field.type), pa.float32())) for name in names]
    return pa.schema(columns)


def score_masks(
    key: str,
    stratum: str,
    masks: Masks,
    truth: Truth,
    presence: float,
    fraction: float | None,
    doubt: float | None = None,
) -> ImageResult:
    """Compare an image's masks with its truth.

    Parameters
    ----------
    masks : Masks
        At source size, as the pipeline leaves them.
    truth : Truth
        Of the same size.
    presence : float
        Probability of any infection.
    fraction : float or None
        The pipeline's infected share of the predicted lung.
    doubt : float or None
        The row's.
    """
    pair = MaskPair(masks.infection, truth.infection, masks.lung if truth.lung is None else truth.lung)
    height, width = truth.infection.shape
    tp, fp, fn = score_counts(pair.guess, pair.truth)
    lung = (-1, -1, -1) if truth.lung is None else score_counts(masks.lung, truth.lung)
    lesions, missed = _small_lesions(pair.guess, pair.truth)
    return ImageResult(
        key, stratum, "", height, width, tp, fp, fn, *lung, int(status(tp + fp, tp + fn)),
        {name: metric.measure(pair) for name, metric in MASK_METRICS.items()}, presence,
        np.nan if fraction is None else fraction, true_fraction(pair.truth, truth.lung),
        np.nan if doubt is None else doubt,
        _area((pair.guess ^ pair.truth) & border_band(pair.lung)), lesions, missed,
    )  # fmt: skip


def refused(key: str, stratum: str, reason: str, truth: Truth) -> ImageResult:
    """Record an image that the pipeline refused: no mask, so all of its truth is missed."""
    height, width = truth.infection.shape
    lung = (-1, -1, -1) if truth.lung is None else (0, 0, _area(truth.lung))
    lesions, _ = _small_lesions(np.zeros_like(truth.infection), truth.infection)
    return ImageResult(
        key, stratum, reason, height, width, 0, 0, _area(truth.infection), *lung, int(Surface.REFUSED),
        dict.fromkeys(MASK_METRICS, np.nan), np.nan, np.nan, true_fraction(truth.infection, truth.lung), np.nan,
        0, lesions, lesions,
    )  # fmt: skip


def _area(mask: NDArray[np.uint8]) -> int:
    return int(np.count_nonzero(mask))


def score_counts(guess: Mask, real: Mask) -> tuple[int, int, int]:
    """Count pixels that are in both masks, in `guess` alone, and in `real` alone."""
    both = _area(guess & real)
    return both, _area(guess) - both, _area(real) - both


def true_fraction(infection: Mask, lung: Mask | None) -> float:
    """Share of the true lung; infection outside it is not counted. NaN without a lung."""
    area = 0 if lung is None else _area(lung)
    return _area(infection & lung) / area if lung is not None and area else float("nan")


def border_band(lung: Mask) -> Mask:
    """Return the band around the lung's border, `BORDER` of the longer side to both sides."""
    reach = max(1, round(BORDER * max(lung.shape)))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    return np.asarray(cv2.morphologyEx(lung, cv2.MORPH_GRADIENT, kernel), np.uint8)


def _small_lesions(guess: Mask, real: Mask) -> tuple[int, int]:
    """Count small 8-connected parts of truth, and those that were missed as a whole."""
    if not real.any():
        return 0, 0
    count, parts, stats, _ = cv2.connectedComponentsWithStats(real, connectivity=8)
    small = stats[:, cv2.CC_STAT_AREA] < SMALL_LESION * real.size
    small[0] = False
    hit = np.bincount(parts[guess > 0], minlength=count) > 0
    return int(small.sum()), int((small & ~hit).sum())


class ImageResults:
    """Aligned columns of `ImageResult`, appended to one at a time."""

    def __init__(self) -> None:
        self._text: dict[str, list[str]] = {name: [] for name in _TEXT}
        self._numbers = {column.name: array(_CODES[column.type]) for column in schema() if column.name not in _TEXT}

    def add(self, result: ImageResult) -> None:
        """Append one image."""
        for name, texts in self._text.items():
            text = getattr(result, name)
            # strata and reasons are few: keep one string of each
            texts.append(text if name == "key" else sys.intern(text))
        numbers = {**vars(result), **result.scores}
        for name, column in self._numbers.items():
            column.append(numbers[name])

    def __len__(self) -> int:
        return len(self._text["key"])

    def __iter__(self) -> Iterator[ImageResult]:
        """Yield each image as it was added, numbers in the columns' own precision."""
        for row in self.to_arrow().to_pylist():
            yield ImageResult(scores={name: row.pop(name) for name in MASK_METRICS}, **row)

    @property
    def keys(self) -> list[str]:
        """Keys in order."""
        return self._text["key"]

    @property
    def reasons(self) -> list[str]:
        """Why each image was refused; empty for scored ones."""
        return self._text["reason"]

    @property
    def strata(self) -> NDArray[np.str_]:
        """Stratum of each image."""
        return np.array(self._text["stratum"], dtype=np.str_)

    def column(self, name: str) -> NDArray[np.float64]:
        """Return a number column as float64 ``(N,)``."""
        return np.array(self._numbers[name], dtype=np.float64)

    @property
    def refused(self) -> NDArray[np.bool_]:
        """Images without a mask."""
        return np.array(self._numbers["surface"], dtype=np.int64) == Surface.REFUSED

    @property
    def positive(self) -> NDArray[np.bool_]:
        """Images with any true infection."""
        return self.column("tp") + self.column("fn") > 0

    def counts(self, prefix: str = "") -> Counts:
        """Return tp, fp, fn, tn ``(N, 4)``; a refused image has no true negatives.

        The prefix is empty for infection, ``lung_`` for the lung.
        """
        tp, fp, fn = (self.column(prefix + name).astype(np.int64) for name in ("tp", "fp", "fn"))
        pixels = (self.column("height") * self.column("width")).astype(np.int64)
        return np.stack([tp, fp, fn, np.where(self.refused, 0, pixels - tp - fp - fn)], axis=1)

    def where(self, kept: NDArray[np.bool_]) -> ImageResults:
        """Return the images for which `kept` is true."""
        return ImageResults.from_arrow(self.to_arrow().filter(pa.array(kept)))

    def to_arrow(self) -> pa.Table:
        """Return the columns in `schema`."""
        numbers = {name: np.array(column) for name, column in self._numbers.items()}
        return pa.table({**self._text, **numbers}, schema=schema())

    @classmethod
    def from_arrow(cls, table: pa.Table) -> ImageResults:
        """Read back what `to_arrow` gave; other columns are ignored, a column that is younger than the table is NaN."""
        results = cls()
        for name in _TEXT:
            results._text[name] = [sys.intern(text) for text in table.column(name).to_pylist()]
        for name, column in results._numbers.items():
            if name in (*MASK_METRICS, "doubt") and name not in table.column_names:
                values = np.full(len(table), np.nan, np.float32)
            else:
                values = table.column(name).cast(schema().field(name).type).to_numpy()
            column.frombytes(np.ascontiguousarray(values).tobytes())
        return results
