"""Sizes, and the equality of training and scoring pixels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from covseg.records import Masks, unit
from covseg.stages.postprocess import restore
from covseg.stages.preprocess import prepare, standardise, to_source_side


def masks_of(size: int) -> Masks:
    lung = np.zeros((size, size), np.uint8)
    lung[size // 4 : 3 * size // 4, size // 8 : 7 * size // 8] = 1
    side = lung.copy()
    side[:, size // 2 :] *= 2
    infection = lung.copy()
    infection[: size // 2] = 0
    return Masks(lung, infection, side, False, 0.0, 1, 1.0)


@settings(deadline=None, max_examples=60)
@given(st.integers(64, 700), st.integers(64, 700))
def test_preprocess_then_restore_gives_back_the_source_size(height, width):
    pixels = prepare(np.random.default_rng(0).random((height, width), np.float32), 96)
    assert pixels.shape == (96, 96)
    back = restore(masks_of(96), height, width)
    for mask in (back.lung, back.infection, back.side, back.label_map):
        assert mask.shape == (height, width)
    assert back.lung.mean() == pytest.approx(masks_of(96).lung.mean(), abs=0.02)
    assert not (back.infection & (1 - back.lung)).any()
    assert ((back.side > 0) == (back.lung > 0)).all()


def test_restoring_to_the_model_size_changes_nothing():
    masks = masks_of(96)
    assert restore(masks, 96, 96) is masks


def test_exposure_drops_out():
    image = np.random.default_rng(1).random((80, 90), np.float32) * 0.5
    assert np.allclose(standardise(image), standardise(image * 1.7 + 0.1), atol=1e-4)


def test_a_constant_image_becomes_zeros():
    assert np.abs(prepare(np.full((70, 70), 0.4, np.float32), 64)).max() < 1e-3


def test_shrinking_averages_instead_of_aliasing():
    stripes = np.tile(np.array([0, 1], np.float32), (512, 256))
    assert np.abs(prepare(stripes, 64)).max() < 1e-3


def test_an_image_of_the_source_side_is_not_touched():
    pixels = np.random.default_rng(0).random((256, 256), np.float32)
    assert np.array_equal(prepare(pixels, 224, source_side=256), prepare(pixels, 224))


@pytest.mark.parametrize("side", [512, 1024, 2048, 3000])
def test_the_same_image_at_any_size_comes_to_the_same_pixels(side):
    """A band-limited image, sampled coarsely or finely."""
    coarse = [np.sin((np.arange(256) + 0.5) / 256 * turns * np.pi).astype(np.float32) for turns in (17, 23)]
    wanted = to_source_side((np.outer(*coarse) + 1) / 2, 256)
    places = (np.arange(side) + 0.5) / side
    down, across = (np.sin(places * turns * np.pi).astype(np.float32) for turns in (17, 23))
    found = to_source_side((np.outer(down, across) + 1) / 2, 256)
    assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.999
    assert found.shape == (256, 256)


@settings(deadline=None, max_examples=30)
@given(st.integers(64, 600), st.integers(64, 600))
def test_the_path_to_the_source_side_keeps_the_mean(height, width):
    pixels = np.random.default_rng(0).random((height, width), np.float32)
    small = to_source_side(pixels, 256)
    assert small.shape == (256, 256)
    assert float(small.mean()) == pytest.approx(float(pixels.mean()), abs=0.01)


def test_a_12_bit_image_keeps_its_shades():
    ramp = (np.tile(np.arange(512, dtype=np.float32) * 8, (300, 1)) / 4095).astype(np.float32)
    assert len(np.unique(prepare(ramp, 256)[0])) == 256


def test_training_and_scoring_give_equal_pixels():
    pytest.importorskip("albumentations", reason="the train extra is not installed")
    from covseg.training.batches import Samples
    from covseg.training.dataset import ImageArrays
    from covseg.training.recipe import load_recipe

    images = np.random.default_rng(2).integers(0, 255, (1, 256, 256), np.uint8)
    empty = np.zeros_like(images)
    split = ImageArrays(["a.png"], ("Normal",), np.array([0]), images, empty, empty, "", "own set")
    for normalisation in ("standardise", "unit"):
        recipe = load_recipe("lungs", ["input.size=128", f"input.normalisation={normalisation}"])
        trained = Samples(split, recipe)[-1, 0][0][0, 0].numpy()
        assert np.array_equal(trained, prepare(images[0].astype(np.float32) / 255, 128, normalisation))


@pytest.mark.parametrize("shape", [(1024, 1024), (900, 731), (300, 257), (200, 180), (2500, 2048)])
@pytest.mark.parametrize("depth", [8, 16])
def test_the_way_to_the_source_side_is_the_publishers_filter(shape, depth):
    samples = np.random.default_rng(0).integers(0, 2**depth, shape)
    grey = samples.astype(np.uint8) if depth == 8 else (samples / 65535).astype(np.float32)
    image = Image.fromarray(unit(grey))
    wanted = np.asarray(image.resize((256, 256), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(to_source_side(grey, 256), wanted, rtol=0, atol=1e-6)


def test_an_area_of_one_grey_stays_of_one_grey():
    samples = np.full((1000, 777), 255, np.uint8)
    samples[300:700, 300:500] = 77
    assert set(np.unique(to_source_side(samples, 256)[:50])) == {np.float32(1)}
