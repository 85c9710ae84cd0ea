"""Flags of the acquisition: raised on an image made worse, not on the one beside it; rates on real images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image

from covseg.settings.model import FlagLimits
from covseg.stages.image_quality import ImageQuality, _packed, measure_quality, quality_flags
from covseg.stages.preprocess import SOURCE_SIDE, to_source_side
from covseg.stages.severity import QC_FLAGS
from covseg.synthetic.shifts import SHIFTS, shifted
from covseg.training.acquisition import compressed, few_levels

Pixels = NDArray[np.float32]
NOT_LETTERS = {"low_resolution", "sharpness_out_of_range", "heavy_compression", "few_grey_levels", "uneven_sharpness"}


def quality(pixels: Pixels) -> ImageQuality:
    return measure_quality(pixels, to_source_side(pixels, SOURCE_SIDE))


def flags(pixels: Pixels) -> set[str]:
    return set(quality_flags(quality(pixels), FlagLimits()))


def stored(pixels: Pixels) -> Pixels:
    return np.asarray(np.rint(np.clip(pixels, 0, 1) * 255) / 255, np.float32)


def textured(side: int = 512, seed: int = 0) -> Pixels:
    """Draw noise whose power falls with frequency as that of a radiograph does; no letters, no border."""
    rng = np.random.default_rng(seed)
    down, across = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    radius = np.maximum(np.hypot(down, across) * side, 1)
    pixels = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((side, side))) / radius**1.6, (side, side))
    return stored(0.5 + 0.12 * pixels / pixels.std())


def blurred(pixels: Pixels, sigma: float) -> Pixels:
    return stored(cv2.GaussianBlur(pixels, (0, 0), sigma))


def sharpened(pixels: Pixels, sigma: float) -> Pixels:
    return stored(pixels + 3 * (pixels - cv2.GaussianBlur(pixels, (0, 0), sigma)))


def lettered(pixels: Pixels, text: str) -> Pixels:
    grey = np.rint(pixels * 255).astype(np.uint8)
    return np.asarray(cv2.putText(grey, text, (40, 60), cv2.FONT_HERSHEY_SIMPLEX, 1, 255, 2), np.float32) / 255


def bordered(pixels: Pixels, share: float, value: float) -> Pixels:
    made = pixels.copy()
    made[: round(share * len(made))] = value
    return made


def test_a_usual_image_has_no_flag():
    assert flags(textured()) == set()


def test_few_pixels_or_little_detail_are_low_resolution():
    assert "low_resolution" in flags(textured(FlagLimits().shorter_side - 1))
    assert "low_resolution" not in flags(textured(SOURCE_SIDE))
    tiny = cv2.resize(textured(), (64, 64), interpolation=cv2.INTER_AREA)
    assert "low_resolution" in flags(cv2.resize(tiny, (1024, 1024), interpolation=cv2.INTER_CUBIC))


def test_blur_and_sharpening_lie_on_the_two_sides_of_the_usual_sharpness():
    image = textured()
    dull, usual, sharp = (quality(made).sharpness_db for made in (blurred(image, 4), image, sharpened(image, 2)))
    assert dull < -18 < usual < -10.5 < sharp
    assert "sharpness_out_of_range" in flags(blurred(image, 4)) & flags(sharpened(image, 2))


def test_what_moved_or_shows_a_grid_is_sharper_in_one_direction():
    image = textured()
    moved = cv2.filter2D(image, -1, np.eye(11, dtype=np.float32) / 11, borderType=cv2.BORDER_REPLICATE)
    assert quality(image).direction_db < FlagLimits().direction_db < quality(moved).direction_db
    assert "uneven_sharpness" in flags(moved) and "uneven_sharpness" not in flags(blurred(image, 3))


@pytest.mark.parametrize("start", [0, 3])
def test_strong_compression_shows_wherever_the_blocks_start(start):
    image = textured()
    assert "heavy_compression" in flags(compressed(image, 20)[start:, start:])
    assert "heavy_compression" not in flags(compressed(image, 85)[start:, start:])


def test_sixty_four_grey_levels_are_enough_and_sixty_three_are_few():
    ramp = np.tile(np.linspace(0, 1, 512, dtype=np.float32), (512, 1))
    assert quality(few_levels(ramp, 63)).grey_levels == 63
    assert "few_grey_levels" in flags(few_levels(ramp, 63))
    assert "few_grey_levels" not in flags(few_levels(ramp, 64))


@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
def test_a_wide_border_of_any_one_grey_is_flagged_and_a_narrow_one_is_not(value):
    image = textured()
    turned = (np.ascontiguousarray(np.rot90(image, turns)) for turns in range(4))
    assert all("border" in flags(np.rot90(bordered(one, 0.12, value), 1)) for one in turned)
    assert "border" not in flags(bordered(image, 0.08, value))


def test_a_word_is_text_and_a_side_marker_is_not():
    dark = textured() * 0.6
    assert "burned_in_text" in flags(lettered(dark, "PORTABLE"))
    assert flags(lettered(dark, "L")).isdisjoint({"burned_in_text"})
    assert flags(dark).isdisjoint({"burned_in_text"})


def test_a_word_is_found_at_any_size_of_the_image():
    word = lettered(textured() * 0.6, "PORTABLE")
    for side in (384, 700, 1024, 2200):
        assert "burned_in_text" in flags(cv2.resize(word, (side, side), interpolation=cv2.INTER_AREA))


@settings(deadline=None, max_examples=40)
@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(2, 150), st.integers(2, 150)),
        elements=st.floats(0, 1, width=32),
        fill=st.floats(0, 1, width=32),
    )
)
def test_any_finite_image_has_flags_of_the_closed_set(pixels):
    found = quality(pixels)
    assert all(np.isfinite(value) for value in vars(found).values())
    assert 0 <= found.border_share <= 1
    assert set(quality_flags(found, FlagLimits())) <= set(QC_FLAGS)


@pytest.mark.parametrize("shape", [(64, 64), (64, 8000), (3001, 2503)])
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_constant_image_of_any_size_is_all_border(shape, value):
    found = flags(np.full(shape, value, np.float32))
    assert {"low_resolution", "border", "few_grey_levels"} <= found
    assert found.isdisjoint({"heavy_compression", "burned_in_text"})


def test_noise_is_sharp_and_no_text():
    found = flags(np.random.default_rng(0).random((1000, 1000), np.float32))
    assert "sharpness_out_of_range" in found
    assert found.isdisjoint({"burned_in_text", "heavy_compression", "low_resolution"})


def read(path: Path) -> Pixels:
    return np.asarray(Image.open(path).convert("L"), np.float32) / np.float32(255)


def rates(images: Iterable[Pixels]) -> dict[str, float]:
    found = [flags(image) for image in images]
    counts = Counter(flag for one in found for flag in one)
    return {flag: counts[flag] / len(found) for flag in QC_FLAGS}


@pytest.fixture(scope="module")
def val_images(val_root: Path) -> list[Pixels]:
    return [read(path) for path in sorted(val_root.glob("*/images/*.png"))[::10]]


def test_val_images_are_seldom_flagged(val_images):
    rate = rates(val_images)
    assert all(rate[flag] <= 0.022 for flag in NOT_LETTERS), rate  # two of 94
    assert rate["evened_contrast"] <= 0.06  # 2.8 % of all Val
    assert rate["border"] <= 0.05
    assert rate["burned_in_text"] <= 0.08


def test_val_images_made_worse_are_flagged(val_images):
    assert rates(compressed(image, 20) for image in val_images)["heavy_compression"] >= 0.95
    assert rates(compressed(image, 75) for image in val_images)["heavy_compression"] <= 0.03
    blur = rates(blurred(image, 2) for image in val_images)
    assert min(blur["sharpness_out_of_range"], blur["low_resolution"]) >= 0.95
    assert rates(sharpened(image, 1) for image in val_images)["sharpness_out_of_range"] >= 0.9
    assert rates(few_levels(image, 16) for image in val_images)["few_grey_levels"] == 1
    for shift, flag in (("streak", "uneven_sharpness"), ("grid", "uneven_sharpness"), ("clahe", "evened_contrast")):
        worse = (shifted(shift, SHIFTS[shift], image, str(place)) for place, image in enumerate(val_images))
        assert rates(worse)[flag] >= 0.9


def test_images_at_their_real_size_are_as_sharp_as_val(data_root):
    folder = data_root / "real-size" / "images"
    if not folder.is_dir():
        pytest.skip(f"no real-size images at {folder}")
    rate = rates(read(path) for path in sorted(folder.iterdir())[::8])
    assert rate["sharpness_out_of_range"] <= 0.08
    assert rate["heavy_compression"] <= 0.25


def test_the_packed_spectrum_is_read_where_the_half_plane_lies():
    small = np.random.default_rng(0).random((64, 64), np.float32)
    spectrum = cv2.dft(small)
    power = cv2.mulSpectrums(spectrum, spectrum, 0, conjB=True).ravel()[_packed(64)]
    np.testing.assert_allclose(power, np.abs(np.fft.rfft2(small)).ravel() ** 2, rtol=1e-3, atol=1e-3)
