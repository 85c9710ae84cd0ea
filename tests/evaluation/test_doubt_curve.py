"""The share of the worst errors that the first images by doubt hold: known answers, ties, and where it stands."""

from __future__ import annotations

import numpy as np
import pytest

from covseg.evaluation.doubt import LEAST, doubt_line
from covseg.evaluation.text import doubt_text
from covseg.metrics.doubt_curve import FIRST, held

ONE_GROUP = np.zeros(100, np.int64)
ERRORS = np.arange(100) / 100


def values(doubt: np.ndarray) -> list[float]:
    return [estimate.value for estimate in held(ERRORS, doubt, ONE_GROUP, draws=20).values()]


def test_doubt_in_the_order_of_the_errors_holds_them_all_and_the_other_way_round_none():
    assert values(ERRORS) == pytest.approx([1, 1, 1])
    assert values(-ERRORS) == pytest.approx([0, 0, 0])


def test_doubt_that_is_the_same_everywhere_holds_what_chance_does():
    assert values(np.zeros(100)) == pytest.approx(list(FIRST.values()))


def test_half_of_the_worst_on_top_is_half_and_ties_are_split():
    doubt = np.where(np.arange(100) >= 95, 1.0, 0.0)  # five of the worst ten; 95 images share the rest of the tenth
    assert values(doubt)[0] == pytest.approx(0.5 + 0.5 * 5 / 95)


def test_neither_order_nor_strata_change_the_value_and_the_interval_holds_it():
    rng = np.random.default_rng(0)
    doubt, order = ERRORS + rng.random(100), rng.permutation(100)
    one = held(ERRORS, doubt, ONE_GROUP, draws=200)["fifth"]
    other = held(ERRORS[order], doubt[order], np.arange(100) % 2, draws=200)["fifth"]
    assert one.value == pytest.approx(other.value)
    assert one.low < one.value < one.high
    assert one.n == 100


def columns(count: int, **changed: np.ndarray) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    given = {name: rng.random(count) for name in ("fraction", "fraction_truth", "doubt", "presence")}
    return given | changed


def test_images_without_doubt_or_without_a_fraction_are_left_out_and_too_few_say_nothing():
    doubt = np.where(np.arange(60) < 20, np.nan, 0.5)
    fraction = np.where(np.arange(60) > 50, np.nan, 0.5)
    strata = np.array(["a"] * 60)
    line = doubt_line("these", columns(60, doubt=doubt, fraction=fraction).__getitem__, strata, 0.5, draws=10)
    assert line.fifth.n == 31
    few = columns(LEAST - 1)
    assert doubt_line("these", few.__getitem__, strata[: LEAST - 1], 0.5) is None
    assert doubt_text(None) == []


def test_doubt_is_one_line_of_the_screen():
    line = doubt_line("these", columns(40).__getitem__, np.array(["a"] * 40), 0.5, draws=10)
    (text,) = doubt_text(line)
    assert text.startswith("doubt: first tenth / fifth / third hold ")
    assert len(text) <= 140
