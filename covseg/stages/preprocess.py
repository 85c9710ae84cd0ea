"""Bring a radiograph to the model's grid.

In: grey values ``(H, W)``. Out: standardised pixels ``(S, S)``. Training and scoring both call `prepare`, so they
cannot disagree on pixels. It knows nothing of files, models or thresholds.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from covseg.records import Grey, unit

FloatImage = NDArray[np.float32]

SOURCE_SIDE = 256  # pixels; the images of COVID-QU-Ex
ROWS = 8  # of a small image, made by one matrix product
STEPS = 2**20  # grey levels of a small image, so that equal greys stay equal however their sums were rounded
PRODUCTS = 200_000  # of one matrix product; from 2 ** 18 on, OpenBLAS wakes a second thread, and waits for it


def prepare(samples: Grey, size: int, normalisation: str = "standardise", source_side: int | None = None) -> FloatImage:
    """Stretch an image to the square model grid and normalise its grey values.

    The image is stretched, not letterboxed: the training images (COVID-QU-Ex) were stretched to a
    square by their publisher, so a stretched image is what the model has learnt to read.

    Parameters
    ----------
    samples : ndarray of uint8 or float32, shape (H, W)
        Grey values of 255, or in [0, 1]; bone bright.
    size : int
        Side of the model grid in pixels.
    normalisation : str
        ``standardise``: zero mean, unit deviation (a constant image becomes all zeros); ``unit``: as it is.
    source_side : int or None
        Side of the images that the model learnt from. Any other image is brought there first, see `to_source_side`;
        None goes straight to the grid.

    Returns
    -------
    ndarray of float32, shape (size, size)
    """
    small = resize(to_source_side(samples, source_side) if source_side else unit(samples), size, size)
    return standardise(small) if normalisation == "standardise" else np.asarray(small, np.float32)


def to_source_side(samples: Grey, side: int) -> FloatImage:
    """Stretch an image to the square of the training images by the filter that their publisher used.

    A triangle as wide as the step, without aliasing (Pillow's BILINEAR): the best of seven filters on 146 of 151
    COVID-QU-Ex images that also exist at real size. Another filter leaves other fine detail, and a network reads that
    as a sign: averaging areas leaves 6.6 dB more at the finest detail of a 900-pixel image. Pillow's own, in float32,
    takes 3.5 times as long; the two differ by 2e-7.

    Parameters
    ----------
    samples : ndarray of uint8 or float32, shape (H, W)
        Grey values of 255, or in [0, 1].

    Returns
    -------
    ndarray of float32, shape (side, side)
        In [0, 1].
    """
    if samples.shape == (side, side):
        return unit(samples)
    across = _weigh_rows(cv2.transpose(_weigh_rows(samples, side)), side)
    scale = STEPS / 255 if samples.dtype == np.uint8 else STEPS
    return np.asarray(np.rint(across.T * np.float32(scale), order="C") / np.float32(STEPS), np.float32)


def _weigh_rows(samples: NDArray[Any], rows: int) -> FloatImage:
    """Make `rows` rows of all, each from its neighbours by the weights of a triangle."""
    columns = samples.shape[1]
    made = np.empty((rows, columns), np.float32)
    for first, start, weights in _triangles(len(samples), rows):
        last, stop = first + len(weights), start + weights.shape[1]
        step = max(1, PRODUCTS // weights.size)
        for left in range(0, columns, step):
            part = np.s_[left : left + step]
            np.matmul(weights, np.asarray(samples[start:stop, part], np.float32), out=made[first:last, part])
    return made


@lru_cache(maxsize=256)
def _triangles(inputs: int, outputs: int) -> list[tuple[int, int, FloatImage]]:
    """Return, for every `ROWS` outputs, the first of them, the first input that they weigh, and the weights."""
    step = inputs / outputs
    reach = max(step, 1.0)
    centres = (np.arange(outputs) + 0.5) * step
    low = np.maximum(0, (centres - reach + 0.5).astype(int))
    high = np.minimum(inputs, (centres + reach + 0.5).astype(int))
    blocks = []
    for first in range(0, outputs, ROWS):
        rows = np.s_[first : first + ROWS]
        places = np.arange(low[first], high[rows][-1])
        weights = np.maximum(0, 1 - np.abs(places + 0.5 - centres[rows, None]) / reach)
        weights *= (places >= low[rows, None]) & (places < high[rows, None])
        blocks.append((first, int(low[first]), (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)))
    return blocks


def standardise(pixels: FloatImage) -> FloatImage:
    """Shift and scale grey values to zero mean and unit deviation; exposure then drops out."""
    mean, deviation = float(pixels.mean()), float(pixels.std())
    return ((pixels - mean) / max(deviation, 1e-3)).astype(np.float32)


def resize(pixels: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Resize a grey image, averaging areas when it shrinks (no aliasing), linear when it grows."""
    if pixels.shape == (height, width):
        return pixels
    shrinks = pixels.shape[0] >= height and pixels.shape[1] >= width
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
