"""Acquisitions drawn in training: what each does to an image, and to its masks."""

import numpy as np
import pytest

pytest.importorskip("albumentations", reason="the train extra is not installed")

from covseg.training import acquisition
from covseg.training.acquisition import acquired, framed, transferred
from covseg.training.augment_config import PathConfig

ALL = PathConfig(transfer=1, resample=1, jpeg=1, noise=1, tone=1, levels=1, frame=1, letters=1)


def image(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    grey = rng.integers(0, 256, (96, 128), np.uint8)
    mask = np.zeros((96, 128, 2), np.uint8)
    mask[30:60, 40:90, 0] = 255
    return grey, mask


def test_an_acquisition_follows_from_its_generator():
    grey, mask = image()
    first, second, other = (acquired(grey, mask, ALL, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first[0], second[0]) and np.array_equal(first[1], second[1])
    assert not np.array_equal(first[0], other[0])


@pytest.mark.parametrize("seed", range(40))
def test_shapes_and_values_stay_whatever_is_drawn(seed):
    grey, mask = image(seed)
    seen, moved = acquired(grey, mask, ALL, np.random.default_rng(seed))
    assert seen.shape == grey.shape and seen.dtype == np.uint8
    assert moved.shape == mask.shape and set(np.unique(moved)) <= {0, 255}
    assert not moved[..., 1].any()


def test_a_share_of_the_images_stays_as_it_is():
    grey, mask = image()
    config = ALL.model_copy(update={"share": 0.5})
    kept = [np.array_equal(acquired(grey, mask, config, np.random.default_rng(seed))[0], grey) for seed in range(200)]
    assert 70 < sum(kept) < 130  # of 200 at .5: five deviations to both sides


def test_masks_follow_the_frame():
    """A bright block stays under its mask, however the frame is cut, bordered or stretched."""
    grey = np.full((96, 128), 40, np.uint8)
    mask = np.zeros((96, 128, 1), np.uint8)
    grey[30:60, 40:90], mask[30:60, 40:90] = 200, 255
    for seed in range(60):
        seen, moved = framed(grey, mask, np.random.default_rng(seed))
        inside = acquisition.cv2.erode(moved[..., 0], np.ones((5, 5), np.uint8)) > 0
        assert inside.any() and (seen[inside] == 200).all()


def test_a_transfer_changes_fine_detail_by_its_decibels_and_leaves_the_mean():
    pixels = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    power = {}
    for decibels in (-20.0, 0.0, 6.0):
        spectrum = np.abs(np.fft.rfft2(transferred(pixels, decibels, 1.0)))
        power[decibels] = spectrum[32, 32]
        assert spectrum[0, 0] == pytest.approx(pixels.sum(), rel=1e-4)
    assert power[-20.0] / power[0.0] == pytest.approx(0.1, rel=1e-3)
    assert power[6.0] / power[0.0] == pytest.approx(10**0.3, rel=1e-3)
