"""Vector shapes to pixel layers; noise of a given grain.

In: outlines and strokes as fractions of the image. Out: uint8 layers 0-255, float32 fields.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from covseg.records import Mask
from covseg.synthetic.phantom.frame import Points, Stroke

SUBPIXEL = 4  # bits of OpenCV's fixed-point coordinates
Field = NDArray[np.float32]


def fill(outlines: list[Points], height: int, width: int, antialias: bool = True) -> Mask:
    """Fill outlines with 255 on a layer of uint8 ``(height, width)``."""
    canvas = np.zeros((height, width), np.uint8)
    for outline in outlines:
        edge = cv2.LINE_AA if antialias else cv2.LINE_8
        cv2.fillPoly(canvas, [_fixed(outline, height, width)], 255, edge, SUBPIXEL)
    return canvas


def draw(strokes: list[Stroke], height: int, width: int) -> Mask:
    """Draw lines with 255 x density, the densest last, so that a faint one never covers it."""
    canvas = np.zeros((height, width), np.uint8)
    for stroke in sorted(strokes, key=lambda stroke: stroke.density):
        pen = max(1, round(stroke.thickness * width))
        lines = list(_fixed(stroke.points, height, width))
        cv2.polylines(canvas, lines, False, 255 * stroke.density, pen, cv2.LINE_AA, SUBPIXEL)
    return canvas


def _fixed(points: Points, height: int, width: int) -> NDArray[np.int32]:
    """Image fractions to fixed-point pixel coordinates, where pixel centres are whole numbers."""
    return np.round((points * (width, height) - 0.5) * (1 << SUBPIXEL)).astype(np.int32)


def blurred(layer: Field, sigma: float) -> Field:
    """Blur with a Gaussian of `sigma` pixels; one too small to matter changes nothing."""
    return cv2.GaussianBlur(layer, (0, 0), sigma) if sigma > 0.35 else layer


def smooth_noise(rng: np.random.Generator, height: int, width: int, cells: int) -> Field:
    """Return noise of zero mean and unit deviation, about, whose grain is 1/`cells` of the image."""
    grain = rng.standard_normal((cells + 3, cells + 3), dtype=np.float32)
    return cv2.resize(grain, (width, height), interpolation=cv2.INTER_CUBIC)
