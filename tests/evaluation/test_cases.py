"""What is kept of a judged image, and what the table says about it."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covseg.metrics.image_results import ImageResults, border_band, refused, schema, score_masks
from covseg.metrics.intervals import estimates, paired, resamples, weighted_mean
from covseg.metrics.measures import Name
from covseg.metrics.summary import find, headline, refusal_counts, status_counts, summarise
from covseg.metrics.surface import Surface
from covseg.records import Masks, Truth

STRATA = ("COVID-19", "Non-COVID", "Normal")


def square(side, top=0, left=0, size=64):
    mask = np.zeros((size, size), np.uint8)
    mask[top : top + side, left : left + side] = 1
    return mask


def make(guess, real, key="a.png", stratum="COVID-19", presence=0.9):
    lung = np.ones_like(real)
    masks = Masks(lung, guess, lung, False, 0.0, 0, None)
    return score_masks(key, stratum, masks, Truth(real, lung), presence, float(guess.mean()))


def results_of(*results):
    found = ImageResults()
    for result in results:
        found.add(result)
    return found


EMPTY = np.zeros((64, 64), np.uint8)
FOUR = (
    make(square(10), square(10), "ok.png"),
    make(EMPTY, square(10), "missed.png", presence=0.2),
    make(square(3), EMPTY, "alarm.png", "Normal", 0.6),
    make(EMPTY, EMPTY, "clean.png", "Non-COVID", 0.1),
)


def test_every_pair_of_masks_has_a_status_that_is_counted_beside_the_mean():
    results = results_of(*FOUR, refused("r.png", "COVID-19", "not_frontal_chest", Truth(square(5), None)))
    assert status_counts(results, STRATA)["all"] == {
        "ok": 1,
        "both_empty": 1,
        "missed": 1,
        "false_alarm": 1,
        "refused": 1,
    }
    hd95 = find(summarise(results, STRATA, draws=50), "all", Name("surface", "hd95"))
    assert (hd95.n, hd95.value) == (1, 0.0)


def test_the_headline_is_covid_only_beside_specificity_on_negatives():
    found = headline(summarise(results_of(*FOUR), STRATA, draws=50))
    assert found["covid_dice"].value == 0.5 and found["covid_dice"].n == 2
    assert found["negative_specificity"].value == 0.5 and found["negative_specificity"].n == 2


def test_a_refused_image_is_a_miss_or_a_false_alarm_and_never_dropped():
    lost = refused("r.png", "COVID-19", "not_frontal_chest", Truth(square(10), None))
    held = refused("s.png", "Normal", "not_frontal_chest", Truth(EMPTY, None))
    results = results_of(*FOUR, lost, held)
    found = headline(summarise(results, STRATA, draws=50))
    assert found["covid_dice"].value == pytest.approx(1 / 3) and found["covid_dice"].n == 3
    assert found["negative_specificity"].value == pytest.approx(1 / 3)
    assert refusal_counts(results) == {"COVID-19": {"not_frontal_chest": 1}, "Normal": {"not_frontal_chest": 1}}


def test_a_stratum_without_images_has_no_number_and_no_error():
    lines = summarise(results_of(FOUR[0], FOUR[1]), STRATA, draws=50)
    assert find(lines, "Normal", Name("infection", "dice", "image", "one")).n == 0
    assert np.isnan(headline(lines)["negative_specificity"].value)


def test_small_lesions_are_found_by_one_pixel_and_missed_by_none():
    truth = square(4) | square(4, 20, 20) | square(30, 30, 30)  # two small ones and a large one
    hit = EMPTY.copy()
    hit[1, 1] = 1
    result = make(hit, truth)
    assert (result.small_lesions, result.small_missed) == (2, 1)


def test_errors_near_the_lung_border_are_counted_inside_the_band_only():
    lung = square(40, 10, 10)
    guess = EMPTY.copy()
    guess[10, 10], guess[30, 30] = 1, 1  # at the border, and in the middle
    masks = Masks(lung, guess, lung, False, 0.0, 0, None)
    result = score_masks("a", "Normal", masks, Truth(EMPTY, lung), 0.5, 0.1)
    assert border_band(lung)[10, 10] and not border_band(lung)[30, 30]
    assert (result.fp, result.border_error) == (2, 1)


def test_the_true_fraction_is_of_the_true_lung_and_nan_without_one():
    lung = square(20)
    masks = Masks(lung, EMPTY, lung, False, 0.0, 0, None)
    assert score_masks("a", "COVID-19", masks, Truth(square(10), lung), 0.5, 0.0).fraction_truth == 0.25
    assert np.isnan(score_masks("a", "COVID-19", masks, Truth(square(10), None), 0.5, 0.0).fraction_truth)


def test_at_most_300_bytes_stay_of_a_case():
    template = vars(FOUR[0])
    tracemalloc.start()
    results = ImageResults()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(5000):
        results.add(type(FOUR[0])(**{**template, "key": f"Val/COVID-19/images/covid_{number}.png"}))
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown / 5000 <= 300


def test_columns_survive_arrow():
    results = results_of(*FOUR)
    table = results.to_arrow()
    again = ImageResults.from_arrow(table)
    assert table.schema == schema() and str(again.to_arrow().to_pydict()) == str(table.to_pydict())  # NaN as text
    assert again.keys == results.keys and (again.counts() == results.counts()).all()


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**20), st.integers(1, 40), st.integers(1, 40))
def test_counts_partition_the_image(seed, a, b):
    generator = np.random.default_rng(seed)
    guess, real = ((generator.random((a, b)) > 0.6).astype(np.uint8) for _ in range(2))
    result = make(guess, real)
    [[tp, fp, fn, tn]] = results_of(result).counts()
    assert tp + fp + fn + tn == a * b and tp + fn == real.sum() and tp + fp == guess.sum()
    assert (result.surface == Surface.OK) == bool(guess.any() and real.any())


def test_resampling_keeps_the_images_of_each_group():
    groups = np.array([0] * 7 + [1] * 3)
    for weights in resamples(groups, 200, seed=0):
        assert (weights[:, :7].sum(axis=1) == 7).all() and (weights[:, 7:].sum(axis=1) == 3).all()


def test_the_bootstrap_repeats_itself_and_an_interval_holds_its_value():
    values = np.random.default_rng(0).random((50, 2))
    groups, n = np.zeros(50, np.int64), np.array([50, 50])
    first, again = (estimates(weighted_mean(values), groups, n, seed=3) for _ in range(2))
    assert first == again
    assert all(one.low <= one.value <= one.high for one in first)


def test_a_95_percent_interval_covers_the_truth_about_95_times_in_100():
    generator, hits = np.random.default_rng(7), 0
    for trial in range(400):
        [one] = estimates(weighted_mean(generator.random((60, 1))), np.zeros(60, np.int64), np.array([60]), 400, trial)
        hits += one.low <= 0.5 <= one.high
    assert (
        0.91 <= hits / 400 <= 0.98
    )  # a percentile interval of 60 images is a little short; 400 trials scatter by .011


def test_a_paired_interval_is_narrower_than_the_images_are_apart():
    base = np.random.default_rng(2).random((100, 1))
    better = base + 0.02 + 0.005 * np.random.default_rng(3).standard_normal((100, 1))
    groups = np.zeros(100, np.int64)
    [difference] = paired(weighted_mean(better), weighted_mean(base), groups)
    [alone] = estimates(weighted_mean(base), groups, np.array([100]))
    assert 0.015 < difference.low < difference.value < difference.high < 0.025 and difference.p < 0.01
    assert difference.high - difference.low < (alone.high - alone.low) / 10


def test_a_model_against_itself_differs_by_nothing():
    values = np.random.default_rng(4).random((30, 1))
    [same] = paired(weighted_mean(values), weighted_mean(values), np.zeros(30, np.int64))
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)
