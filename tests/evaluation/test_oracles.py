"""Ours against independent implementations, on masks that are not degenerate."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats
from skimage.metrics import hausdorff_distance

from covseg.metrics.convention import Empty, ratios
from covseg.metrics.image_results import ImageResults, score_masks
from covseg.metrics.mask_metrics import MaskPair, hd95, nsd
from covseg.records import Masks, Truth


def blob(seed, size=64, share=0.2):
    """A smooth random mask that is neither empty nor full."""
    field = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((size, size + 7)), 4)
    return (field > np.quantile(field, 1 - share)).astype(np.uint8)


def result(guess, truth, lung=None):
    lung = np.ones_like(truth) if lung is None else lung
    masks = Masks(lung, guess, lung, False, 0.0, 0, None)
    return score_masks("a.png", "COVID-19", masks, Truth(truth, lung), 0.5, 0.1)


def counts_of(guess, truth):
    results = ImageResults()
    results.add(result(guess, truth))
    return results.counts()


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000))
def test_ratios_equal_monai(seed):
    metrics = pytest.importorskip("monai.metrics", exc_type=ImportError)
    guess, truth = blob(seed), blob(seed + 1, share=0.3)
    pair = [torch.from_numpy(mask.astype(np.float32))[None, None] for mask in (guess, truth)]
    matrix = metrics.get_confusion_matrix(*pair, include_background=True)
    names = ("f1 score", "threat score", "precision", "sensitivity", "specificity", "accuracy")
    theirs = [float(metrics.compute_confusion_matrix_metric(name, matrix)) for name in names]
    np.testing.assert_allclose(ratios(counts_of(guess, truth), Empty.SKIP)[0], theirs, rtol=1e-6)
    assert float(metrics.compute_dice(*pair)) == pytest.approx(theirs[0])


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # MONAI calls itself so
@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000))
def test_hd95_and_surface_distance_equal_monai(seed):
    metrics = pytest.importorskip("monai.metrics", exc_type=ImportError)
    guess, truth = blob(seed), blob(seed + 1, share=0.3)
    pair = [torch.from_numpy(mask.astype(np.float32))[None, None] for mask in (guess, truth)]
    ours = MaskPair(guess, truth, truth)
    theirs = metrics.compute_hausdorff_distance(*pair, include_background=True, percentile=95)
    assert hd95(ours) == pytest.approx(float(theirs), rel=1e-5)
    theirs = metrics.compute_surface_dice(*pair, class_thresholds=[2.0], include_background=True)
    assert nsd(ours, 2.0) == pytest.approx(float(theirs), rel=1e-5)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000))
def test_hd95_equals_scipy_on_the_whole_frame(seed):
    guess, truth = blob(seed), blob(seed + 1, share=0.3)
    edges = [mask ^ ndimage.binary_erosion(mask) for mask in (guess > 0, truth > 0)]
    fields = [ndimage.distance_transform_edt(~edge) for edge in edges]
    directed = fields[1][edges[0]], fields[0][edges[1]]
    pair = MaskPair(guess, truth, truth)
    assert hd95(pair) == pytest.approx(max(np.percentile(one, 95) for one in directed), rel=1e-5)
    within = sum(np.count_nonzero(one <= 3) for one in directed)
    assert nsd(pair, 3.0) == pytest.approx(within / sum(map(len, directed)))
    assert hd95(pair) <= hausdorff_distance(*edges) + 1e-5


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000))
def test_counts_equal_set_arithmetic(seed):
    guess, truth = blob(seed) > 0, blob(seed + 1, share=0.3) > 0
    theirs = [np.sum(a & b) for a, b in ((guess, truth), (guess, ~truth), (~guess, truth), (~guess, ~truth))]
    assert counts_of(guess.astype(np.uint8), truth.astype(np.uint8))[0].tolist() == theirs


def test_equal_masks_have_no_distance_and_a_shift_has_its_own():
    mask = np.zeros((40, 50), np.uint8)
    mask[5:15, 5:15] = 1
    same = MaskPair(mask, mask, mask)
    assert (hd95(same), nsd(same, 0.0)) == (0.0, 1.0)
    moved = MaskPair(mask, np.roll(mask, 20, axis=1), mask)
    assert hd95(moved) == 20.0 and nsd(moved, 1.0) == 0.0


def test_a_mask_at_the_edge_of_the_image_keeps_its_edge_as_boundary():
    mask = np.ones((9, 9), np.uint8)
    inner = mask.copy()
    inner[0] = 0
    assert hd95(MaskPair(mask, inner, mask)) == pytest.approx(1.0)


def test_auroc_equals_the_rank_sum_statistic_with_ties():
    from covseg.metrics.image_level import auroc

    generator = np.random.default_rng(3)
    scores, positive = np.round(generator.random(300), 1), generator.random(300) > 0.4
    u = stats.mannwhitneyu(scores[positive], scores[~positive]).statistic
    ours = auroc(scores, positive)(np.ones((1, 300)))[0, 0]
    assert ours == pytest.approx(u / (positive.sum() * (~positive).sum()))


def test_auroc_with_weights_equals_auroc_of_repeated_images():
    from covseg.metrics.image_level import auroc

    generator = np.random.default_rng(4)
    scores, positive = np.round(generator.random(60), 1), generator.random(60) > 0.5
    times = generator.integers(0, 4, 60)
    repeated = auroc(np.repeat(scores, times), np.repeat(positive, times))(np.ones((1, times.sum())))
    assert auroc(scores, positive)(times[None].astype(float))[0, 0] == pytest.approx(repeated[0, 0])


def test_agreement_equals_scipy_and_its_weights_equal_repetition():
    from covseg.metrics.measures import agreement

    generator = np.random.default_rng(5)
    truth = generator.random(80)
    predicted = truth + 0.1 * generator.standard_normal(80) + 0.03
    mae, bias, pearson, low, high = agreement(predicted, truth)(np.ones((1, 80)))[0]
    spread = 1.96 * np.std(predicted - truth, ddof=1)
    assert pearson == pytest.approx(stats.pearsonr(predicted, truth).statistic)
    assert (mae, bias) == (pytest.approx(np.abs(predicted - truth).mean()), pytest.approx((predicted - truth).mean()))
    assert (low, high) == (pytest.approx(bias - spread), pytest.approx(bias + spread))
    times = generator.integers(0, 4, 80)
    repeated = agreement(np.repeat(predicted, times), np.repeat(truth, times))(np.ones((1, times.sum())))
    np.testing.assert_allclose(agreement(predicted, truth)(times[None].astype(float)), repeated)


def test_bootstrap_interval_of_a_mean_equals_scipy():
    from covseg.metrics.intervals import estimates, weighted_mean

    values = np.random.default_rng(6).random((200, 1))
    groups = np.zeros(200, np.int64)
    [ours] = estimates(weighted_mean(values), groups, np.array([200]), draws=8000, seed=1)
    theirs = stats.bootstrap(
        (values[:, 0],), np.mean, n_resamples=8000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert ours.value == pytest.approx(values.mean())
    assert [ours.low, ours.high] == pytest.approx([theirs.low, theirs.high], abs=2e-3)
