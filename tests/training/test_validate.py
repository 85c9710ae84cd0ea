"""The operating point of validation: known answers."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from covseg.data.images import STRATA
from covseg.training.validate import summary

CLEAN, FALSE, HIT, MISS = [0, 0, 0, 100], [0, 10, 0, 90], [40, 0, 0, 60], [0, 0, 40, 60]


def rows(*groups: tuple[int, int, list[int], float]) -> list[tuple[int, int, np.ndarray, float]]:
    """Return rows of (stratum, how many, counts, presence logit)."""
    every = [
        (stratum, np.array([counts]), presence) for stratum, count, counts, presence in groups for _ in range(count)
    ]
    return [(number, stratum, table, presence) for number, (stratum, table, presence) in enumerate(every)]


def operating(*groups: tuple[int, int, list[int], float]) -> float:
    return summary(rows(*groups), ("infection",), STRATA)["val_operating_dice"]


def test_images_below_the_threshold_that_keeps_the_specificity_count_as_empty() -> None:
    # 100 without infection: two may be called, the third highest sets the threshold
    negatives = [(2, 2, FALSE, 3.0), (1, 1, FALSE, 1.0), (2, 97, FALSE, -1.0)]
    assert operating(*negatives, (0, 3, HIT, 2.0), (0, 1, HIT, 0.5)) == pytest.approx(0.75)
    assert operating(*negatives, (0, 1, HIT, 1.0)) == 0.0, "as high as a negative that must stay clean"


def test_a_negative_on_which_nothing_is_drawn_is_clean_whatever_its_presence() -> None:
    assert operating((2, 50, CLEAN, 9.0), (0, 1, HIT, -5.0), (0, 1, MISS, 5.0)) == 0.5


def test_it_is_not_measured_without_a_negative_or_a_covid_image() -> None:
    assert np.isnan(operating((0, 3, HIT, 1.0)))
    assert np.isnan(operating((2, 3, CLEAN, 1.0)))
    own = summary(rows((0, 1, HIT, 1.0), (0, 1, CLEAN, 0.0)), ("infection",), ("own",))
    assert own["val_operating_dice"] == 1.0, "a set without strata counts all images with infection"
