"""The identities that every implementation must satisfy."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from covseg.metrics.convention import (
    DATASET,
    IMAGE,
    RATIOS,
    REDUCTIONS,
    Empty,
    batch,
    pool,
    ratios,
)
from covseg.metrics.measures import Name, pixel_measure
from covseg.metrics.published import ANCHORS, impossible_pair, iou_of, mixture

DICE, IOU, PRECISION, RECALL, SPECIFICITY, ACCURACY = range(6)
TEST_COUNTS = {"COVID-19": 583, "Non-COVID": 292, "Normal": 291}
counts_tables = hnp.arrays(np.int64, st.tuples(st.integers(1, 30), st.just(4)), elements=st.integers(0, 500)).map(
    lambda table: table + np.array([0, 0, 0, 1])
)


def value(counts, metric, reduction, empty, refused=None):
    refused = np.zeros(len(counts), bool) if refused is None else refused
    measure = pixel_measure("infection", counts, refused, reduction, np.zeros(len(counts), np.int64))
    units = len(measure.groups)
    return measure.statistic(np.ones((1, units)))[0][
        measure.names.index(Name("infection", metric, str(reduction), empty))
    ]


def negatives(clean, total):
    """Images without infection, of which `clean` have an empty mask and the rest one false pixel."""
    return np.array([[0, 0, 0, 9]] * clean + [[0, 1, 0, 8]] * (total - clean))


@pytest.mark.parametrize(("clean", "published"), [(289, 0.990), (85, 0.2911)])
def test_dice_on_negatives_is_a_specificity(clean, published):
    table = negatives(clean, 292)
    for metric in ("dice", "iou"):
        assert value(table, metric, IMAGE, "one") == clean / 292
        assert value(table, metric, IMAGE, "zero") == 0
    assert round(clean / 292, len(str(published)) - 2) == published


def test_one_false_pixel_turns_a_negative_from_one_to_zero():
    assert ratios(negatives(1, 2), Empty.ONE)[:, DICE].tolist() == [1.0, 0.0]


def test_a_mixture_of_strata_hides_the_covid_only_score():
    assert round(mixture({"COVID-19": 0.768, "Non-COVID": 0.990, "Normal": 1.0}, TEST_COUNTS), 4) == 0.8815


@settings(deadline=None)
@given(counts_tables, st.sampled_from(list(Empty)))
def test_the_all_row_is_the_mixture_of_its_strata(table, empty):
    cut = len(table) // 2
    parts = [part for part in (table[:cut], table[cut:]) if len(part)]
    if empty is Empty.SKIP:
        return  # sizes then are those of the images that were kept
    mixed = sum(len(part) * value(part, "dice", IMAGE, empty) for part in parts) / len(table)
    assert value(table, "dice", IMAGE, empty) == pytest.approx(mixed)


@settings(deadline=None)
@given(counts_tables)
def test_iou_of_one_mask_is_a_convex_function_of_its_dice_so_mean_iou_is_bounded(table):
    each = ratios(table, Empty.SKIP)
    kept = ~np.isnan(each[:, DICE])
    np.testing.assert_allclose(each[kept, IOU], iou_of(each[kept, DICE]))
    for reduction in REDUCTIONS:
        for empty in Empty:
            dice, iou = value(table, "dice", reduction, empty), value(table, "iou", reduction, empty)
            assert np.isnan(dice) or iou_of(dice) - 1e-12 <= iou <= dice + 1e-12


def test_the_impossible_pair_is_warned_of_and_possible_ones_are_not():
    assert "at least 0.7944" in impossible_pair(0.8854, 0.7896)
    assert "never exceeds" in impossible_pair(0.70, 0.75)
    warned = [
        anchor.source for anchor in ANCHORS if anchor.dice and anchor.iou and impossible_pair(anchor.dice, anchor.iou)
    ]
    assert warned == ["cascade U-Net EfficientNet-B0"]


@settings(deadline=None)
@given(counts_tables)
def test_f1_of_a_pooled_unit_is_its_dice(table):
    for empty in (Empty.ONE, Empty.ZERO):
        pooled = table.sum(axis=0)
        if 2 * pooled[0] + pooled[1] + pooled[2] and pooled[0]:
            assert value(table, "f1", DATASET, empty) == pytest.approx(value(table, "dice", DATASET, empty))


def test_a_published_f1_is_the_harmonic_mean_of_mean_precision_and_mean_recall():
    precision, recall = 0.378, 0.466
    assert round(2 * precision * recall / (precision + recall), 3) == pytest.approx(0.416, abs=0.002)


def test_each_policy_answers_empty_against_empty_in_its_own_way():
    ours = {empty: ratios(np.array([[0, 0, 0, 9]]), empty)[0, DICE] for empty in Empty}
    assert ours[Empty.ONE] == 1 and ours[Empty.ZERO] == 0 and np.isnan(ours[Empty.SKIP])


def test_the_library_defaults_we_name_are_what_installed_libraries_answer():
    monai_metrics = pytest.importorskip("monai.metrics", exc_type=ImportError)
    none = [torch.tensor([[value]]) for value in (0, 0, 0, 9)]
    assert float(smp_functional().f1_score(*none, reduction="micro-imagewise")) == 1.0
    assert torch.isnan(smp_functional().f1_score(*none, reduction="micro"))
    empty = torch.zeros(1, 1, 4, 4)
    assert torch.isnan(monai_metrics.DiceMetric(reduction="none")(empty, empty)).all()


def smp_functional():
    """Its metrics in one file: importing the whole package takes half a minute."""
    package = importlib.util.find_spec("segmentation_models_pytorch")
    if package is None:
        pytest.skip("segmentation-models-pytorch is not installed")
    path = Path(package.submodule_search_locations[0]) / "metrics" / "functional.py"
    spec = importlib.util.spec_from_file_location("smp_metrics_functional", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@settings(deadline=None)
@given(counts_tables)
def test_batches_of_one_are_images_and_one_batch_of_all_is_the_dataset(table):
    for metric in (*RATIOS, "f1"):
        for empty in Empty:
            single, image = value(table, metric, batch(1), empty), value(table, metric, IMAGE, empty)
            whole, pooled = value(table, metric, batch(len(table)), empty), value(table, metric, DATASET, empty)
            np.testing.assert_allclose([single, whole], [image, pooled])


@settings(deadline=None)
@given(counts_tables, st.integers(1, 9))
def test_pooling_keeps_every_pixel(table, size):
    assert pool(table, batch(size).units(len(table))).sum(axis=0).tolist() == table.sum(axis=0).tolist()


@settings(deadline=None)
@given(counts_tables)
def test_policies_are_ordered_and_agree_where_nothing_is_empty(table):
    one, zero = (value(table, "dice", IMAGE, empty) for empty in (Empty.ONE, Empty.ZERO))
    assert zero <= one
    full = table + np.array([1, 0, 0, 0])
    assert len({value(full, "dice", IMAGE, empty) for empty in Empty}) == 1


def test_a_refused_image_earns_no_point_under_any_policy():
    table = np.array([[0, 0, 0, 0], [0, 0, 0, 9], [0, 0, 7, 0]])  # refused negative, clean negative, refused positive
    refused = np.array([True, False, True])
    assert value(table, "dice", IMAGE, "one", refused) == pytest.approx(1 / 3)
    assert value(table, "dice", IMAGE, "skip", refused) == 0
    assert value(table, "recall", IMAGE, "skip", refused) == 0


def test_batches_of_images_pool_pixels_before_dividing():
    table = np.array([[10, 0, 0, 90], [0, 10, 10, 80]])
    assert value(table, "dice", IMAGE, "one") == 0.5
    assert value(table, "dice", batch(2), "one") == 0.5
    unequal = np.array([[90, 0, 0, 10], [0, 1, 1, 98]])
    assert value(unequal, "dice", batch(2), "one") == 180 / 182 != value(unequal, "dice", IMAGE, "one")


@pytest.mark.parametrize("metric", list(RATIOS))
def test_every_ratio_stays_between_0_and_1(metric):
    table = np.random.default_rng(0).integers(0, 50, (40, 4))
    column = ratios(table, Empty.ZERO)[:, list(RATIOS).index(metric)]
    assert (column >= 0).all() and (column <= 1).all()
