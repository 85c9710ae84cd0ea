"""An epoch's numbers in words: what each column of ``metrics.csv`` is called, and one line of them.

In: a row of `covseg.training.validate`. What was not counted (NaN) is left out.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

from covseg.metrics.intervals import short

STRATA = {"covid": "COVID-19", "noncovid": "Non-COVID", "normal": "Normal"}  # other strata: as their column says
WORDS = {
    "train_loss": "loss",
    "val_loss": "Val loss",
    "val_dice": "Dice",
    "val_lung_dice": "lung Dice",
    "val_operating_dice": "Dice at specificity .98",
    "val_robust_dice": "the same under shifts",
    "val_negative_specificity": "negatives left clean",
    "val_presence_sensitivity": "image-level sensitivity",
    "val_presence_specificity": "specificity",
}
_OF_ONE_STRATUM = re.compile(r"val_(\w+)_dice")


def strata_columns(row: Mapping[str, float]) -> dict[str, str]:
    """Return the columns of a row that are the Dice of one stratum, with the stratum's name."""
    found = {name: match[1] for name in row if name not in WORDS and (match := _OF_ONE_STRATUM.fullmatch(name))}
    return {name: STRATA.get(short_name, short_name) for name, short_name in found.items()}


def epoch_line(row: Mapping[str, float]) -> str:
    """Say what an epoch came to, the Dice of each stratum behind that of all images.

    Examples
    --------
    >>> epoch_line({"epoch": 2, "train_loss": 0.5, "val_loss": 0.4, "val_dice": 0.7, "val_covid_dice": 0.65})
    'epoch 2: loss .500, Val loss .400, Dice .700 (COVID-19 .650)'
    """
    parts = []
    for name, words in WORDS.items():
        if name in row and not math.isnan(row[name]):
            parts.append(f"{words} {short(row[name])}{_strata(row) if name == 'val_dice' else ''}")
    return f"epoch {row['epoch']:.0f}: {', '.join(parts)}"


def _strata(row: Mapping[str, float]) -> str:
    known = [f"{words} {short(row[name])}" for name, words in strata_columns(row).items() if not math.isnan(row[name])]
    return f" ({', '.join(known)})" if known else ""


def best_so_far(metric: str) -> Callable[[Mapping[str, float]], str]:
    """Return what says an epoch's line, and whether it is the best by `metric` since the first epoch it was told."""
    best = -math.inf

    def line(row: Mapping[str, float]) -> str:
        nonlocal best
        value, best = row.get(metric, math.nan), -math.inf if row["epoch"] <= 1 else best  # another seed begins anew
        better, best = value > best, max(best, value) if not math.isnan(value) else best
        return f"{epoch_line(row)}{'; the best so far' if better else ''}"

    return line
