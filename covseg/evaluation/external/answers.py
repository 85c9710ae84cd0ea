"""What the pipeline said of each image, and what all readers together said: aligned columns.

In: the rows of the severity table, in the set's order, and a `ScoreSet`. Out: arrays, and ``scores.parquet``.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from covseg.data.scores import MAJORITY, MEAN, PRESENT, ScoreSet
from covseg.metrics.intervals import Floats
from covseg.records import Row
from covseg.table import text

OURS = ("infected_fraction", "extent_0_8", "zones_extent_0_24", "infection_probability")


class Answers:
    """The rows of a set, as columns ``(N,)``."""

    def __init__(self, rows: list[Row]) -> None:
        self.keys = [row.key for row in rows]
        self.reasons = [str(row.reason or "") for row in rows]
        self.columns: dict[str, Floats] = {
            name: np.array([np.nan if getattr(row, name) is None else getattr(row, name) for row in rows], np.float64)
            for name in OURS
        }
        self.marked = np.array([bool(row.infected_area_px) for row in rows])

    @property
    def refused(self) -> NDArray[np.bool_]:
        """Images without an answer."""
        return np.array([bool(reason) for reason in self.reasons])

    @property
    def no_lung(self) -> NDArray[np.bool_]:
        """Images with an answer in which no lung was found."""
        return ~self.refused & np.isnan(self.columns["infected_fraction"])

    def refusals(self, strata: list[str]) -> dict[str, dict[str, int]]:
        """Count refused images by stratum, then reason; `strata` names each image's."""
        refusals: dict[str, dict[str, int]] = {}
        for (stratum, reason), count in sorted(Counter(zip(strata, self.reasons, strict=True)).items()):
            if reason:
                refusals.setdefault(stratum, {})[reason] = count
        return refusals


def raters(scores: ScoreSet, score: str) -> dict[str, Floats]:
    """Return what each reader said of each image ``(N,)``, and last all of them together, if there are several.

    A reader without one value of this score is left out. Together they are their mean; of ``present`` their majority,
    NaN where it is a tie.
    """
    read = {reader: scores.values(score, reader) for reader in scores.readers}
    read = {reader: values for reader, values in read.items() if not np.isnan(values).all()}
    if len(read) < 2:
        return read
    stacked = np.stack(list(read.values()))
    present = ~np.isnan(stacked)
    mean = np.where(present, stacked, 0).sum(axis=0) / np.where(present.any(axis=0), present.sum(axis=0), np.nan)
    if score == PRESENT:
        return read | {MAJORITY: np.where(mean == 0.5, np.nan, np.where(np.isnan(mean), np.nan, mean > 0.5))}
    return read | {MEAN: mean}


def table(scores: ScoreSet, answers: Answers) -> pa.Table:
    """Return ``scores.parquet``: one row an image, what covseg said and what each reader said (``extent:A``)."""
    columns: dict[str, pa.Array] = {
        "key": pa.array([text(key) for key in answers.keys]),
        "stratum": pa.array([image.stratum for image in scores.images.images]),
        "reason": pa.array([reason or None for reason in answers.reasons], pa.string()),
        **{name: pa.array(values, from_pandas=True) for name, values in answers.columns.items()},
        "marked": pa.array(answers.marked, mask=answers.refused),
    }
    for score in scores.scores:
        for reader, values in raters(scores, score).items():
            columns[f"{score}:{reader}"] = pa.array(values, from_pandas=True)
    return pa.table(columns)
