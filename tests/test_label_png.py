"""A label map as a PNG: every decoder reads the very map, whatever its runs."""

import io
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from covseg.stages.label_png import label_png


def check(label_map):
    data = label_png(label_map)
    assert np.array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED), label_map)
    image = Image.open(io.BytesIO(data))
    image.load()
    assert image.mode == "L" and np.array_equal(np.asarray(image), label_map)
    start = data.index(b"IDAT")
    size = int.from_bytes(data[start - 4 : start], "big")
    rows = zlib.decompress(data[start + 4 : start + 4 + size])  # checks Adler-32 too
    assert len(rows) == label_map.size + len(label_map)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 700),
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 1300)), min_size=1, max_size=40),
)
def test_any_map_of_runs_is_read_back(width, runs):
    pixels = np.concatenate([np.full(count, value, np.uint8) for value, count in runs])
    height = -(-len(pixels) // width)
    check(np.resize(pixels, height * width).reshape(height, width))


@pytest.mark.parametrize("length", range(1, 262))
def test_a_run_of_every_length_is_read_back(length):
    check(np.concatenate([np.ones(length, np.uint8), [2, 0]])[None])


def test_a_map_of_one_value_and_one_of_noise_are_read_back():
    check(np.zeros((64, 64), np.uint8))
    check(np.full((1, 1), 2, np.uint8))
    check(np.random.default_rng(0).integers(0, 3, (200, 300)).astype(np.uint8))
