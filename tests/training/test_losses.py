"""Losses: values by hand, and a gradient that pushes the right way on images without infection."""

import math

import pytest

torch = pytest.importorskip("torch")

from covseg.training.loss_table import LossConfig
from covseg.training.losses import Loss, bce, boundary, disagreement, focal, positive_dice, tversky

TERMS = {"bce": bce, "focal": focal, "tversky": tversky, "boundary": boundary}


def square(images=2, side=32, filled=()):
    truth = torch.zeros(images, side, side)
    for image in filled:
        truth[image, 8:24, 8:24] = 1
    return truth


@pytest.mark.parametrize("name", TERMS)
def test_a_false_pixel_costs_on_an_image_without_infection(name):
    logits = torch.full((2, 32, 32), -1.0, requires_grad=True)
    loss = TERMS[name](logits, square())
    loss.backward()
    assert torch.isfinite(loss)
    assert (logits.grad > 0).all()


def test_dice_leaves_empty_images_alone_with_a_zero_gradient():
    logits = torch.zeros(2, 32, 32, requires_grad=True)
    loss = positive_dice(logits, square())
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("name", [*TERMS, "dice"])
def test_the_right_mask_costs_less_than_none_and_than_all(name):
    term = TERMS.get(name, positive_dice)
    truth = square(filled=(0, 1))
    right, none, everything = (truth * 20 - 10), torch.full_like(truth, -10), torch.full_like(truth, 10)
    assert term(right, truth) < term(none, truth)
    assert term(right, truth) < term(everything, truth)


def test_values_by_hand():
    truth = square(images=1, side=2)
    assert bce(torch.zeros(1, 2, 2), truth).item() == pytest.approx(math.log(2))
    assert focal(torch.zeros(1, 2, 2), truth).item() == pytest.approx(0.25 * math.log(2))
    # 4 pixels at .5, no truth: 1 - 1 / (.3 * 2 + 1)
    assert tversky(torch.zeros(1, 2, 2), truth).item() == pytest.approx(1 - 1 / 1.6)
    # an empty mask's distance is one side everywhere
    assert boundary(torch.zeros(1, 2, 2), truth).item() == pytest.approx(0.5)


def test_a_positive_weight_counts_missed_pixels_more():
    truth = square(images=1, filled=(0,))
    logits = torch.zeros_like(truth)
    share = truth.mean().item()
    assert bce(logits, truth, 5.0).item() == pytest.approx(math.log(2) * (1 + 4 * share))


def test_parts_of_a_batch_weigh_to_the_whole_however_unevenly_masks_fell():
    torch.manual_seed(0)
    logits, truth = torch.randn(8, 1, 16, 16), torch.zeros(8, 1, 16, 16)
    truth[[0, 4, 5, 6], 0, 4:9, 4:9] = 1  # one image with a mask in the first part, three in the second
    loss = Loss(LossConfig(bce=1, dice=1, tversky=1), ["infection"])

    def value(rows, count=None):
        return loss(logits[rows], truth[rows], torch.zeros(len(logits[rows])), None, None, count)

    parts = [slice(0, 3), slice(3, 8)]
    sums = [value(rows, torch.tensor([4.0]) * len(logits[rows]) / 8) * len(logits[rows]) / 8 for rows in parts]
    assert math.isclose(sum(sums).item(), value(slice(0, 8)).item(), rel_tol=1e-5)
    naive = sum(value(rows) * len(logits[rows]) / 8 for rows in parts)
    assert not math.isclose(naive.item(), value(slice(0, 8)).item(), rel_tol=1e-4)


def test_the_sum_weighs_masks_presence_and_classes():
    config = LossConfig(bce=1, lung=0.5, presence=2, classes=3)
    truth = torch.zeros(2, 2, 8, 8)
    strata = torch.tensor([0, 1])
    loss = Loss(config, ("lung", "infection"))(
        torch.zeros(2, 2, 8, 8), truth, torch.zeros(2), torch.zeros(2, 3), strata
    )
    assert loss.item() == pytest.approx(math.log(2) * (0.5 + 1 + 2) + 3 * math.log(3))


def test_two_views_disagree_by_their_mean_squared_difference_of_probabilities():
    masks = torch.tensor([0.0, 0.0]).reshape(2, 1, 1, 1)
    presence = torch.tensor([0.0, 20.0])
    assert disagreement(masks, presence).item() == pytest.approx(0.25, abs=1e-6)
    assert disagreement(masks[[0, 0]], presence[[1, 1]]).item() == 0
