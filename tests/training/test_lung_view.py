"""The network that sees the lungs and nothing else, on made planes."""

import numpy as np
import pytest
import torch

from covseg.errors import ModelRefused
from covseg.networks.lung_view import OUTSIDE, LungView
from covseg.networks.table import build

SIDE = 128


@pytest.fixture(scope="module")
def network() -> LungView:
    torch.manual_seed(0)
    return LungView("tf_efficientnet_lite0", view=64, widths=(8, 8, 8, 8), stem=8).eval()


def planes(seed: int = 0, *, lung: tuple[slice, slice] = (slice(30, 100), slice(20, 110))) -> torch.Tensor:
    made = torch.zeros(1, 2, SIDE, SIDE)
    made[:, 0] = torch.randn(SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    made[0, 1][lung] = 1
    return made


@torch.no_grad()
def test_what_lies_outside_the_box_of_the_lungs_cannot_move_the_answer(network):
    seen = planes()
    other = seen.clone()
    other[:, 0, :20], other[:, 0, 110:], other[:, 0, :, :10] = 5, -5, 3
    for before, after in zip(network.forward_with_features(seen), network.forward_with_features(other), strict=True):
        assert torch.equal(before, after)


@torch.no_grad()
def test_between_the_lungs_and_their_box_only_two_numbers_pass(network):
    """Mean and deviation of the box scale the lungs; where the brightness stood says nothing."""
    seen = planes()
    seen[0, 1, :, 58:72] = 0
    other = seen.clone()
    other[0, 0, 34:96, 62:68] = other[0, 0, 34:96, 62:68].flip(0)
    for before, after in zip(network.forward_with_features(seen), network.forward_with_features(other), strict=True):
        assert torch.allclose(before, after, atol=5e-3)


@torch.no_grad()
def test_infection_is_drawn_inside_the_lungs_alone(network):
    masks, presence, features = network.forward_with_features(planes())
    assert masks.shape == (1, 1, SIDE, SIDE) and presence.shape == (1,) and features.shape[0] == 1
    inside = planes()[:, 1:] > 0
    assert (masks[~inside] == OUTSIDE).all() and (masks[inside] > OUTSIDE).all()


@torch.no_grad()
def test_the_view_put_back_is_the_image(network, monkeypatch):
    seen = torch.nn.functional.avg_pool2d(planes(), 21, 1, 10, count_include_pad=False)
    seen[:, 1:] = planes()[:, 1:]
    monkeypatch.setattr(network.network, "forward_with_features", lambda view: (view, view[:, 0, 0, 0], view))
    masks, _, _ = network.forward_with_features(seen)
    inside = seen[0, 1] > 0
    inside[:34], inside[96:], inside[:, :24], inside[:, 106:] = False, False, False, False
    assert np.corrcoef(masks[0, 0][inside], seen[0, 0][inside])[0, 1] > 0.98


@torch.no_grad()
def test_an_image_without_lungs_has_no_infection_and_no_error(network):
    seen = planes()
    seen[:, 1] = 0
    masks, presence, _ = network.forward_with_features(seen)
    assert (masks == OUTSIDE).all() and torch.isfinite(presence).all()


@torch.no_grad()
def test_a_speck_far_from_the_lungs_does_not_move_their_box(network):
    seen = planes()
    seen[0, 1, 2, 2] = 1
    first, last = network._ends(seen[:, 1].sum(dim=2))
    assert first.item() > 25 and last.item() < 105


def test_other_planes_than_image_and_lungs_are_refused():
    with pytest.raises(ModelRefused, match="wanted 1 mask, and 2 planes"):
        build("lung-view", {"encoder": "tf_efficientnet_lite0", "channels": 1})
