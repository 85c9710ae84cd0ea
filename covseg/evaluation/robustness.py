"""Answers under conditions to tables: each shift and twin beside the same images as they are, and the control.

In: rows of `covseg.evaluation.conditions`. Out: typed lines of ``metrics.json``. Differences are paired: the same
images, the same resamples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from covseg.evaluation.conditions import PLAIN
from covseg.evaluation.control import CONTROLS
from covseg.evaluation.doubt import doubt_line
from covseg.evaluation.records import ControlLine, DoubtLine, Measured, ShiftLine
from covseg.metrics.image_level import auroc
from covseg.metrics.intervals import Difference, Floats, Statistic, estimates, paired, weighted_mean
from covseg.metrics.measures import AGREEMENT, agreement
from covseg.synthetic.shifts import Shift

KEPT = 0.9  # a mask that agrees so well with the unshifted one is the same answer
_R = AGREEMENT.index("pearson_r")
REST = "all others"


@dataclass(frozen=True)
class Answers:
    """The rows of one condition as columns, in the set's order."""

    table: pa.Table

    def column(self, name: str) -> Floats:
        """Return a number column as float64 ``(N,)``."""
        return np.asarray(self.table.column(name).to_numpy(zero_copy_only=False), np.float64)

    @property
    def keys(self) -> list[str]:
        """Keys of the images."""
        keys: list[str] = self.table.column("key").to_pylist()
        return keys

    @property
    def strata(self) -> NDArray[np.str_]:
        """Stratum of each image."""
        return np.array(self.table.column("stratum").to_pylist(), np.str_)

    @property
    def refused(self) -> NDArray[np.bool_]:
        """Images without a mask."""
        return np.array([bool(reason) for reason in self.table.column("reason").to_pylist()], bool)

    @property
    def positive(self) -> NDArray[np.bool_]:
        """Images with any true infection."""
        return self.column("tp") + self.column("fn") > 0

    def dice(self, prefix: str = "") -> Floats:
        """Return Dice of each image's infection (or ``lung_``); NaN where both masks are empty or there is no truth."""
        tp, fp, fn = (self.column(prefix + name) for name in ("tp", "fp", "fn"))
        total = 2 * tp + fp + fn
        return np.divide(2 * tp, total, out=np.full_like(total, np.nan), where=(total > 0) & (tp >= 0))

    def specific(self) -> Floats:
        """Return 1 for an image without infection that has no mask, 0 for one with a mask or refused; else NaN."""
        right = (self.column("fp") == 0) & ~self.refused
        return np.where(self.positive, np.nan, right.astype(np.float64))

    def of(self, keys: list[str]) -> Answers:
        """Return the rows of these images, in this order."""
        place = {key: row for row, key in enumerate(self.keys)}
        return Answers(self.table.take([place[key] for key in keys]))


def answers_of(table: pa.Table, condition: str) -> Answers:
    """Return the rows of one condition."""
    return Answers(table.filter(pc.equal(table.column("condition"), condition)))


def shift_lines(table: pa.Table, shifts: dict[str, Shift], draws: int, seed: int = 0) -> tuple[ShiftLine, ...]:
    """Return one line a shift, in their order; see `line`."""
    return tuple(
        line(table, name, shift.words, draws, seed, seen=shift.seen, by_design=shift.by_design)
        for name, shift in shifts.items()
    )


def doubt_lines(table: pa.Table, words: dict[str, str], threshold: float, draws: int) -> tuple[DoubtLine, ...]:
    """Return what doubt finds under each condition, by its words."""
    found = []
    for name, title in words.items():
        answers = answers_of(table, name)
        found.append(doubt_line(title, answers.column, answers.strata, threshold, draws))
    return tuple(one for one in found if one)


def line(
    table: pa.Table, name: str, words: str, draws: int, seed: int = 0, *, seen: bool = True, by_design: str = ""
) -> ShiftLine:
    """Compare the images under a condition with the same images as they are."""
    there = answers_of(table, name)
    here = answers_of(table, PLAIN).of(there.keys)
    groups = np.unique(there.strata, return_inverse=True)[1].astype(np.int64)
    covid = there.positive
    then, now = _means(here, covid), _means(there, covid)
    values = estimates(weighted_mean(now), groups, (~np.isnan(now)).sum(axis=0), draws, seed)
    changes = paired(weighted_mean(then), weighted_mean(now), groups, draws, seed)
    scored = ~there.refused
    plain = scored & ~there.column("flagged").astype(bool)
    agreed = there.column("agreement")[plain]
    agreed = agreed[~np.isnan(agreed)]
    return ShiftLine(
        name=name, words=words, seen=seen, by_design=by_design, images=len(there.keys),
        covid_dice=Measured(**vars(values[0])), covid_dice_as_it_is=_mean(then[:, 0]),
        covid_dice_lost=_changed(changes[0]),
        specificity=Measured(**vars(values[1])), specificity_as_it_is=_mean(then[:, 1]),
        specificity_lost=_changed(changes[1]),
        marked=_mean(now[:, 3]), marked_as_it_is=_mean(then[:, 3]),
        lung_dice=Measured(**vars(values[2])), fraction_r=_fraction(there, draws, seed),
        refused=float(there.refused.mean()), flagged=_share(there.column("flagged")[scored] > 0),
        agreement=_share(agreed), kept=_share(agreed >= KEPT), unflagged=len(agreed),
    )  # fmt: skip


def _means(answers: Answers, covid: NDArray[np.bool_]) -> Floats:
    """Return what is averaged over images ``(N, 4)``: COVID-19 Dice, specificity, lung Dice, COVID-19 marked at all."""
    marked = (answers.column("tp") + answers.column("fp") > 0).astype(np.float64)
    dice = np.nan_to_num(answers.dice())
    return np.stack(
        [np.where(covid, dice, np.nan), answers.specific(), answers.dice("lung_"), np.where(covid, marked, np.nan)],
        axis=1,
    )


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _share(values: NDArray[np.bool_] | Floats) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _changed(change: Difference) -> Measured:
    return Measured(value=change.value, low=change.low, high=change.high, n=change.n)


def _fraction(answers: Answers, draws: int, seed: int) -> Measured:
    """Return Pearson's r of the infected fraction over scored images with infection."""
    predicted, truth = answers.column("fraction"), answers.column("fraction_truth")
    known = answers.positive & ~np.isnan(predicted) & ~np.isnan(truth)
    count = int(known.sum())
    if count < 3:
        return Measured(value=float("nan"), low=float("nan"), high=float("nan"), n=count)
    both = agreement(predicted[known], truth[known])
    (value,) = estimates(lambda weights: both(weights)[:, _R : _R + 1], np.zeros(count, np.int64), np.array([count]),
                         draws, seed)  # fmt: skip
    return Measured(**vars(value))


def control_lines(table: pa.Table, draws: int, seed: int = 0) -> tuple[ControlLine, ...]:
    """Return the AUROC of the image-level probability under each control, against all others and each stratum."""
    lines = []
    words = {PLAIN: PLAIN} | {name: control[0] for name, control in CONTROLS.items()}
    for name in words:
        answers = answers_of(table, name)
        for against, kept in _opponents(answers).items():
            presence = answers.column("presence")
            known = kept & ~np.isnan(presence)
            positive = answers.positive[known]
            if positive.all() or not positive.any():
                continue
            statistic: Statistic = auroc(presence[known], positive)
            (value,) = estimates(statistic, positive.astype(np.int64), np.array([len(positive)]), draws, seed)
            lines.append(ControlLine(name=name, words=words[name], against=against, auroc=Measured(**vars(value))))
    return tuple(lines)


def _opponents(answers: Answers) -> dict[str, NDArray[np.bool_]]:
    strata, positive = answers.strata, answers.positive
    others = dict.fromkeys(strata[~positive].tolist())
    return {REST: np.ones(len(strata), bool)} | {name: positive | (strata == name) for name in others}
