"""Calibration: counts equal masks, the estimate is not optimistic, the JSON keeps the rest."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, optimize

from covseg.calibration.calibrate import along, calibrate, fit_all, frontier
from covseg.calibration.fit import FOLDS, choose, fit, fit_temperature, fold_sums, folds_of, temper_all
from covseg.calibration.threshold_grid import (
    Grid,
    Table,
    count_grid,
    fractions,
    outcomes,
    presence_candidates,
    refused_counts,
    stack,
)
from covseg.data import open_set
from covseg.errors import UsageError
from covseg.metrics.image_level import log_loss
from covseg.model_folder.folder import open_folder
from covseg.records import Prediction
from covseg.settings.calibrate import CalibrateSettings
from covseg.settings.model import Thresholds
from covseg.stages.postprocess import postprocess, temper
from flows.cli.app import run as covseg

SMALL = Grid((0.4, 0.5, 0.6), (0.0, 0.005, 0.02), (0.0, 0.03), (0.0, 0.3, 0.7))


def prediction(seed, size=48):
    generator = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(generator.standard_normal((size, size)), 3) for _ in range(2)]
    lung, infection = (1 / (1 + np.exp(-8 * field / field.std() / 4)) for field in fields)
    return Prediction(
        lung.astype(np.float32), infection.astype(np.float32), float(generator.random()), np.zeros(1, np.float32)
    )


def truth_of(seed, size=48):
    field = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((size, size)), 4)
    return (field > field.std()).astype(np.uint8)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.sampled_from(SMALL.presence), st.sampled_from(SMALL.min_infection_share))
def test_counts_of_a_sweep_are_those_of_the_pipelines_own_masks(seed, presence, share):
    image, truth = prediction(seed), truth_of(seed + 1)
    table = stack([count_grid(image, truth, SMALL, 0.5)], [bool(truth.any())], [np.nan], [0], SMALL)
    for level in SMALL.infection:
        for part in SMALL.min_component_share:
            chosen = Thresholds(infection=level, min_component_share=part, min_infection_share=share, presence=presence)
            masks = postprocess(image, chosen)
            mask, lung = masks.infection, np.count_nonzero(masks.lung)
            [dice], [kept] = outcomes(table, chosen)
            total = int(mask.sum()) + int(truth.sum())
            assert kept == mask.any()
            assert dice == pytest.approx(2 * int((mask & truth).sum()) / total)
            [fraction] = fractions(table, chosen)
            assert fraction == pytest.approx(mask.sum() / lung if lung else np.nan, nan_ok=True)


def made_table(seed=0, images=200):
    """Images whose Dice grows with the threshold, and a presence that tells the classes apart, not perfectly."""
    generator = np.random.default_rng(seed)
    positive = np.arange(images) < images // 2
    shape = (images, 3, 3)
    dice = np.where(positive[:, None, None], generator.uniform(0.3, 0.9, (images, 1, 1)) + np.zeros(shape), 0)
    area = np.where(positive[:, None, None], 0.1, generator.uniform(0, 0.05, (images, 1, 1))) + np.zeros(shape)
    presence = np.clip(np.where(positive, 0.7, 0.3) + 0.2 * generator.standard_normal(images), 0.01, 0.99)
    fraction = np.where(positive[:, None, None], generator.uniform(0.1, 0.9, (images, 1, 1)), 0.05) + np.zeros(shape)
    truth = np.where(positive, np.clip(fraction[:, 0, 0] + 0.1 * generator.standard_normal(images), 0, 1), 0)
    strata = (~positive).astype(np.int64)
    return Table(dice, area, np.ones(shape, bool), fraction, presence, positive, truth, strata, SMALL)


def brute_force(table, grid, least):
    best = (-1.0, None)
    for level in grid.infection:
        for part in grid.min_component_share:
            for share in grid.min_infection_share:
                for presence in grid.presence:
                    chosen = Thresholds(
                        infection=level, min_component_share=part, min_infection_share=share, presence=presence
                    )
                    dice, kept = outcomes(table, chosen)
                    if 1 - kept[~table.positive].mean() >= least:
                        best = max(best, (dice[table.positive].mean(), chosen), key=lambda pair: pair[0])
    return best


def test_the_chosen_setting_is_the_best_of_all_that_keep_the_specificity():
    table = made_table()
    chosen = choose(fold_sums(table, SMALL, np.zeros(200, np.int64)), [0], SMALL, 0.9)
    dice, kept = outcomes(table, chosen)
    value, _ = brute_force(table, SMALL, 0.9)
    assert 1 - kept[~table.positive].mean() >= 0.9
    assert dice[table.positive].mean() == pytest.approx(value)


def test_a_demand_on_one_stratum_counts_its_false_alarms_alone_and_states_the_others():
    table = made_table()
    strata = np.where(table.positive, 0, 1 + np.arange(200) % 2)
    harder = replace(table, strata=strata, presence=np.where(strata == 2, 0.99, table.presence))
    all_of_them, one = (
        fit("x", asked, SMALL, 0.95, outcomes(asked, Thresholds(min_component_share=0, min_infection_share=0)))
        for asked in (harder, replace(harder, demanded=(1,)))
    )
    assert one.specificity.value >= 0.95 and one.specificity.n == 50 and all_of_them.specificity.n == 100
    assert one.dice.value >= all_of_them.dice.value
    assert set(one.crossfit_by_stratum) == {1, 2}
    assert one.crossfit_by_stratum[2].value < 0.5 < one.crossfit_by_stratum[1].value


def test_a_stratum_that_is_not_there_cannot_be_demanded(made_set):
    dataset = open_set(made_set, "Val")
    assert dataset.places(("normal",)) == (2,)
    with pytest.raises(UsageError, match="stratum Odd has no image in split Val: it has COVID-19, Non-COVID, Normal"):
        dataset.places(("Odd",))


def test_fold_sums_add_up_to_the_whole():
    table = made_table()
    folds = folds_of(table.strata, 0)
    parts, whole = fold_sums(table, SMALL, folds), fold_sums(table, SMALL, np.zeros(200, np.int64))
    np.testing.assert_allclose(parts.dice.sum(axis=0), whole.dice[0])
    np.testing.assert_allclose(parts.alarms.sum(axis=0), whole.alarms[0])


def test_a_stratum_smaller_than_the_folds_can_be_calibrated_on():
    few = made_table(images=8)
    found = fit("x", few, SMALL, 0.9, outcomes(few, Thresholds(min_component_share=0, min_infection_share=0)))
    assert np.isfinite(found.crossfit_dice.value)


def test_folds_deal_every_stratum_evenly():
    strata = np.array([0] * 50 + [1] * 25)
    folds = folds_of(strata, 1)
    assert [np.bincount(folds[strata == one], minlength=FOLDS).tolist() for one in (0, 1)] == [[10] * 5, [5] * 5]


def test_a_demand_that_cannot_be_met_takes_the_highest_specificity_there_is():
    table = made_table()
    grid = Grid((0.5,), (0.0,), (0.0,), (0.0, 0.3))
    chosen = choose(fold_sums(table, grid, np.zeros(200, np.int64)), [0], grid, 1.0)
    assert chosen.presence == 0.3


def test_the_cross_fitted_estimate_does_not_believe_noise(made_set):
    """Presence without information: on the images that chose it a threshold looks good, cross-fitted it does not."""
    generator = np.random.default_rng(5)
    gaps = []
    for seed in range(6):
        table = made_table(seed, 80)
        noise = replace(table, area=table.area * 0 + 0.1, presence=generator.random(80))
        found = fit_all(noise, SMALL, Thresholds(), 0.9, open_set(made_set, "Val"), 0)
        best = found.fits[-1]
        gaps.append(best.specificity.value - best.crossfit_specificity.value)
    assert np.mean(gaps) > 0


def test_a_refused_image_cannot_be_helped_by_any_setting():
    images = [refused_counts(SMALL, positive) for positive in (True, False)]
    table = stack(images, [True, False], [0.3, 0.0], [0, 1], SMALL)
    for presence in (0.0, 1.0):
        dice, kept = outcomes(table, Thresholds(presence=presence))
        assert dice[0] == 0 and kept[1]
        assert np.isnan(fractions(table, Thresholds(presence=presence))).all()


def test_the_temperature_is_that_of_a_general_optimiser_and_keeps_the_order():
    generator = np.random.default_rng(6)
    logits = 4 * generator.standard_normal(400)
    positive = generator.random(400) < 1 / (1 + np.exp(-logits / 3))
    said = 1 / (1 + np.exp(-logits))
    ours = fit_temperature(said, positive)
    theirs = optimize.minimize_scalar(lambda t: log_loss(temper_all(said, np.exp(t)), positive).mean(), bounds=(-3, 3))
    assert ours == pytest.approx(np.exp(theirs.x), rel=1e-3) and 2 < ours < 4.5
    assert (np.argsort(temper_all(said, ours)) == np.argsort(said)).all()


@settings(deadline=None)
@given(st.floats(1e-6, 1 - 1e-6), st.floats(0.1, 10))
def test_tempering_is_undone_by_its_inverse(probability, temperature):
    tempered = temper(probability, temperature)
    if 1e-6 < tempered < 1 - 1e-6:
        assert temper(tempered, 1 / temperature) == pytest.approx(probability, rel=1e-6)


def test_candidates_of_the_gate_lie_between_images():
    assert presence_candidates(np.array([0.2, 0.4, 0.4, 0.9, np.inf])) == (0.0, 0.3, 0.65)


def test_the_frontier_falls_as_specificity_rises_and_holds_the_chosen_point(made_set):
    found = fit_all(made_table(), SMALL, Thresholds(), 0.9, open_set(made_set, "Val"), 0)
    levels, dice = frontier(found)
    assert (np.diff(levels) > 0).all() and (np.diff(dice) <= 0).all()
    best = found.fits[-1]
    assert dice[np.searchsorted(levels, 0.9)] == pytest.approx(best.dice.value)
    values, scores, clean = along(found, "presence")
    assert (np.diff(clean) >= 0).all() and (np.diff(scores) <= 0).all() and len(values) == len(found.grid.presence)


def test_calibrate_writes_thresholds_and_leaves_the_rest(made_set, model_copy):
    before = json.loads((model_copy / "covseg.json").read_text())
    found = calibrate(CalibrateSettings(model=str(model_copy), data=made_set, specificity=0.5, backend="torch"))
    after = json.loads((model_copy / "covseg.json").read_text())
    config = open_folder(model_copy).config
    assert config.thresholds == found.chosen
    assert config.metrics["calibration"]["counts"] == {"COVID-19": 8, "Non-COVID": 4, "Normal": 4}
    assert config.intervals == found.intervals.intervals
    chosen = {"thresholds", "metrics", "intervals"}
    assert set(after) == set(before) | {"intervals"}
    assert {name: after[name] for name in set(after) - chosen} == {name: before[name] for name in set(before) - chosen}
    again = calibrate(
        CalibrateSettings(model=str(model_copy), data=made_set, specificity=0.5, backend="torch", dry_run=True)
    )
    assert again.start == found.chosen
    assert again.fits[-1].dice.value == pytest.approx(found.fits[-1].dice.value)


def test_the_command_writes_the_curves_and_a_dry_run_leaves_the_model(made_set, model_copy, tmp_path, capsys):
    before = (model_copy / "covseg.json").read_bytes()
    flags = ["--data", str(made_set), "--backend", "torch", "--dry-run", "-o", str(tmp_path / "out")]
    assert covseg(["calibrate", str(model_copy), *flags]) == 0
    said = capsys.readouterr().out
    assert "image-level threshold alone" in said and "cross-fitted" in said and "dry run" in said
    assert (model_copy / "covseg.json").read_bytes() == before
    page = (tmp_path / "out" / "calibration.html").read_text()
    assert page.count("data:image/svg+xml") == 5 and "<script" not in page
    assert json.loads((tmp_path / "out" / "calibration.json").read_text())["counts"]["COVID-19"] == 8


def test_the_test_split_is_refused(own_test_split, model_copy):
    with pytest.raises(UsageError, match="calibrate on Val"):
        calibrate(CalibrateSettings(model=str(model_copy), data=own_test_split, split="test"))


@pytest.fixture
def own_test_split(made_set, tmp_path):
    import shutil

    shutil.copytree(made_set / "Val", tmp_path / "set" / "Test")
    return tmp_path / "set"


def test_a_set_that_the_pipeline_refuses_whole_is_a_clear_error(made_set, model_copy, model_folder):
    config = json.loads((model_copy / "covseg.json").read_text())
    config["gate"] = model_folder.config.input_filter.model_dump() | {"refuse_above": -1e6}
    (model_copy / "covseg.json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="refused every image"):
        calibrate(CalibrateSettings(model=str(model_copy), data=made_set, specificity=0.5, backend="torch"))
