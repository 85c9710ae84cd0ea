"""Intervals of the infected fraction: known quantiles, the coverage that is promised, and where they stand."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats

from covseg.calibration.calibrate import calibrate
from covseg.calibration.intervals import EDGES, conformal_ends, ends_of, fit_and_judge, fit_intervals
from covseg.calibration.run import run
from covseg.model_folder.backends import open_backend
from covseg.model_folder.folder import open_folder
from covseg.pipeline import Pipeline, resolve
from covseg.predict import predict
from covseg.release.card import render_card
from covseg.settings.calibrate import CalibrateSettings
from covseg.settings.model import FractionIntervals, ModelConfig, Thresholds
from covseg.stages.severity import fraction_interval
from covseg.storage import LocalStore, entries
from tests.evaluation.test_calibrate import SMALL, made_table

MADE = FractionIntervals(
    level=0.9, doubtful_presence=0.1, edges=(0.5,), low=(0, 0, -0.3, -0.2), high=(0, 0.4, 0.1, 0.7), n=(9, 9, 19, 19)
)


def calibrated(made_set, model, **more):
    return CalibrateSettings(model=str(model), data=made_set, specificity=0.5, backend="torch", **more)


def rows_of(folder, source, destination):
    model, store = open_folder(folder), LocalStore(source)
    backend = open_backend(model, "torch")
    pipeline = Pipeline(model.config, resolve(model, backend, 4))
    return predict(pipeline, backend, store, entries(store), LocalStore(destination))


@pytest.mark.parametrize(
    ("n", "below", "above", "ends"),
    [
        (19, 0.05, 0.05, (1, 19)),  # (19 + 1) * .05 = 1: the smallest and the largest
        (39, 0.05, 0.05, (2, 38)),
        (99, 0.05, 0.05, (5, 95)),
        (100, 0.05, 0.05, (5, 96)),  # 101 * .05 = 5.05 and 101 * .95 = 95.95
        (9, 0.0, 0.1, (None, 9)),
    ],
)
def test_the_ends_are_the_order_statistics_with_the_finite_sample_correction(n, below, above, ends):
    residuals = (np.arange(1, n + 1) - (n + 1) / 2) / 1000
    shuffled = np.random.default_rng(0).permutation(residuals)
    first, last = ends
    wanted = (residuals[first - 1] if first else 0, residuals[last - 1])
    found = conformal_ends(shuffled, below, above)
    # outwards, by less than the fourth decimal
    assert wanted[0] - 1e-4 < found[0] <= wanted[0] + 1e-12 and wanted[1] - 1e-12 <= found[1] < wanted[1] + 1e-4


def test_too_few_images_promise_the_whole_range_and_a_biased_model_keeps_its_prediction_inside():
    assert conformal_ends(np.zeros(18), 0.05, 0.05) == (-1, 1)
    assert conformal_ends(np.zeros(8), 0, 0.1) == (0, 1)
    assert conformal_ends(np.full(50, 0.2), 0.05, 0.05) == (0, 0.2)
    assert conformal_ends(np.full(50, -0.2), 0.05, 0.05) == (-0.2, 0)


def drawn(generator, n):
    """Images of which half have an empty mask; some of these are misses, which a presence above .8 tells."""
    presence = generator.random(n)
    fraction = np.where(generator.random(n) < 0.5, 0, generator.random(n))
    missed = (fraction == 0) & (presence > 0.97)
    spread = 0.05 + 0.3 * fraction  # errors grow with the fraction
    truth = np.where(fraction > 0, np.clip(fraction + spread * generator.standard_normal(n), 0, 1), 0)
    return fraction, np.where(missed, 0.3 * generator.random(n), truth), presence


def test_on_exchangeable_images_every_bin_holds_its_level():
    generator, hits = np.random.default_rng(1), []
    for _ in range(200):
        intervals = fit_intervals(*drawn(generator, 400))
        fraction, truth, presence = drawn(generator, 400)
        low, high = ends_of(fraction, presence, intervals).T
        assert (low >= 0).all() and (high <= 1).all() and (low <= fraction).all() and (fraction <= high).all()
        held, bounds = (low <= truth) & (truth <= high), (0, *EDGES, 1.01)
        marked = [(fraction > first) & (fraction <= last) for first, last in pairwise(bounds)]
        groups = [*marked, (fraction == 0) & (presence >= intervals.doubtful_presence)]
        hits.append([(held[group].sum(), group.sum()) for group in groups])
    for held, n in np.sum(hits, axis=0):
        # 1e-6: the least count that a binomial of the level gives; new images of one fit are not independent, so looser
        assert held >= stats.binom.ppf(1e-6, n, 0.89) and held / n < 0.95


def test_a_doubtful_empty_mask_gets_a_wider_interval_than_a_certain_one():
    intervals = fit_intervals(*drawn(np.random.default_rng(2), 2000))
    assert intervals.high[0] == 0 < intervals.high[1]
    assert sum(intervals.n) == 2000
    assert fraction_interval(0.0, 0.0, intervals) == (0, 0)
    assert fraction_interval(0.0, 0.999, intervals) == (0, intervals.high[1])


def test_the_interval_lies_in_the_unit_range_around_the_fraction_and_is_null_without_lung_or_intervals():
    assert fraction_interval(0.2, 0.9, MADE) == (0, pytest.approx(0.3))
    assert fraction_interval(0.5, 0.9, MADE) == (pytest.approx(0.3), 1)
    assert [fraction_interval(0.0, presence, MADE) for presence in (0.09, 0.1)] == [(0, 0), (0, 0.4)]
    assert fraction_interval(None, 0.9, MADE) == fraction_interval(0.2, 0.9, None) == (None, None)


def test_cross_fitted_coverage_is_near_the_level_and_not_what_the_fit_says_of_itself():
    table = made_table(3, 400)
    found = fit_and_judge(table, SMALL, Thresholds(), 0.0, 1.0, ("positive", "negative"))
    part = found.quality.coverage["positive"]
    assert part.n == 200 and 0.84 < part.value < 0.96
    assert found.quality.median_width["positive"] > 0.2 > found.quality.median_width["negative"] > 0


def test_a_set_without_true_lungs_gives_no_intervals():
    table = made_table()
    table = replace(table, fraction_truth=np.full(200, np.nan))
    assert fit_and_judge(table, SMALL, Thresholds(), 0.0, 1.0, ("positive", "negative")) is None


def test_a_calibrated_model_fills_the_columns_and_one_without_leaves_them_null(made_set, model_copy, tmp_path):
    images = made_set / "Val" / "COVID-19" / "images"
    assert all(
        row.fraction_low is None is row.fraction_high for row in rows_of(model_copy, images, tmp_path / "before")
    )
    run(calibrated(made_set, model_copy, output=tmp_path / "calibration"))
    rows = rows_of(model_copy, images, tmp_path / "after")
    assert rows and all(row.fraction_low <= row.infected_fraction <= row.fraction_high for row in rows)
    written = pq.read_table(tmp_path / "after" / "severity.parquet")["fraction_high"].to_pylist()
    assert sorted(written) == sorted(round(row.fraction_high, 6) for row in rows)
    assert "truth inside, cross-fitted" in (tmp_path / "calibration" / "calibration.html").read_text()
    recorded = json.loads((tmp_path / "calibration" / "calibration.json").read_text())["intervals"]
    assert recorded["level"] == 0.9 and recorded["coverage"]["all images"]["n"] == 16
    card = render_card(open_folder(model_copy))
    assert (
        "level 0.9; truth inside, cross-fitted: all images" in card and "| interval edges | 0.25, 0.5, 0.75 |" in card
    )
    assert "interval of the fraction" in (page := (tmp_path / "after" / "report.html").read_text())
    assert "<dt>Interval</dt>" in page
    assert "<dt>Interval</dt>" not in (tmp_path / "before" / "report.html").read_text()


def test_stale_intervals_do_not_outlive_their_thresholds(set_without_lungs, model_copy):
    config = json.loads((model_copy / "covseg.json").read_text())
    (model_copy / "covseg.json").write_text(json.dumps(config | {"intervals": MADE.model_dump()}))
    assert calibrate(calibrated(set_without_lungs, model_copy)).intervals is None
    assert "intervals" not in json.loads((model_copy / "covseg.json").read_text())


def test_intervals_are_part_of_the_config_digest_and_a_model_without_keeps_the_one_it_had(model_folder, backend):
    without = model_folder.config.model_copy(update={"intervals": None})
    config = resolve(model_folder.model_copy(update={"config": without}), backend, 4)
    assert set(config.model_settings) == {"size", "normalisation", "source_side", "thresholds", "flags", "gate"}
    given = model_folder.model_copy(update={"config": model_folder.config.model_copy(update={"intervals": MADE})})
    assert resolve(given, backend, 4).digest == resolve(given, backend, 4).digest != config.digest
    assert "intervals" not in without.model_dump()
    assert ModelConfig.model_validate_json(given.config.model_dump_json()).intervals == MADE


@pytest.mark.parametrize("wrong", [{"low": (0, 0)}, {"high": (0, 0.4, -0.1, 0.7)}, {"edges": (0.5, 0.2)}])
def test_intervals_that_do_not_fit_their_bins_are_refused(wrong):
    with pytest.raises(ValueError, match="wanted"):
        FractionIntervals(**MADE.model_dump() | wrong)
