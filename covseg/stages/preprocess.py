"""Bring a radiograph to the model's grid.

In: pixels float32 [0, 1] ``(H, W)``. Out: standardised pixels ``(S, S)``. Training and scoring both
call `prepare`, so they cannot disagree on pixels. It knows nothing of files, models or thresholds.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

FloatImage = NDArray[np.float32]

SOURCE_SIDE = 256  # pixels; the images of COVID-QU-Ex


def prepare(
    pixels: FloatImage, size: int, normalisation: str = "standardise", source_side: int | None = None
) -> FloatImage:
    """Stretch an image to the square model grid and normalise its grey values.

    The image is stretched, not letterboxed: the training images (COVID-QU-Ex) were stretched to a
    square by their publisher, so a stretched image is what the model has learnt to read.

    Parameters
    ----------
    pixels : ndarray of float32, shape (H, W)
        Grey values in [0, 1], bone bright.
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
    small = resize(to_source_side(pixels, source_side) if source_side else pixels, size, size)
    return standardise(small) if normalisation == "standardise" else np.asarray(small, np.float32)


def to_source_side(pixels: FloatImage, side: int) -> FloatImage:
    """Stretch an image to the square of the training images by the filter that their publisher used.

    A triangle as wide as the step, without aliasing (Pillow's BILINEAR): the best of seven filters on 146 of 151
    COVID-QU-Ex images that also exist at real size. Another filter leaves other fine detail, and a network reads that
    as a sign: averaging areas leaves 6.6 dB more at the finest detail of a 900-pixel image.

    Parameters
    ----------
    pixels : ndarray of float32, shape (H, W)

    Returns
    -------
    ndarray of float32, shape (side, side)
    """
    if pixels.shape == (side, side):
        return pixels
    image = Image.fromarray(np.ascontiguousarray(pixels, np.float32))
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR), np.float32)


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
