"""Where a made infection lies: patchy, peripheral, heavier below, and never the same on both sides.

In: a random stream and the lungs' outlines. Out: an opacity field on a small grid, resized to any
image. It knows nothing of exposure.
"""

from __future__ import annotations

import numpy as np

from covseg.synthetic.phantom.draw import Field, smooth_noise
from covseg.synthetic.phantom.frame import Points

FIELD = 128  # side of the grid that opacity is made on, pixels
EDGE = 0.5  # opacity at which the truth mask begins


def make_opacity(rng: np.random.Generator, lungs: dict[str, Points]) -> Field:
    """Place soft blobs in the lungs, whose outlines ``(N, 2)`` are fractions of the image.

    Returns
    -------
    ndarray of float32, shape (FIELD, FIELD)
        Opacity in [0, 1]; the infection is where it reaches `EDGE`.
    """
    yy, xx = np.mgrid[:FIELD, :FIELD].astype(np.float32) / FIELD
    wobble = [0.035 * smooth_noise(rng, FIELD, FIELD, 10) for _ in range(2)]
    grid = (xx + wobble[0], yy + wobble[1])
    field = np.zeros((FIELD, FIELD), np.float32)
    heavier = rng.choice(["right", "left"])
    extent = rng.uniform(0.5, 1.6)
    for side, outline in lungs.items():
        weight = extent if side == heavier else extent * rng.uniform(0.0, 0.85)
        for _ in range(int(np.ceil(weight * rng.uniform(1.2, 3.0)))):
            np.maximum(field, _blob(rng, grid, outline, side, weight), out=field)
    field += 0.12 * smooth_noise(rng, FIELD, FIELD, 20)
    return np.clip((field - 0.25) / 0.5, 0, 1)


def _blob(rng: np.random.Generator, grid: tuple[Field, Field], outline: Points, side: str, weight: float) -> Field:
    """Return one soft ellipse, with its centre near the lateral wall of the lower or middle zone."""
    (left, top), (right, bottom) = outline.min(axis=0), outline.max(axis=0)
    width, height = right - left, bottom - top
    inwards = rng.beta(1.4, 2.2)  # 0 at the wall, 1 at the midline
    cx = left + inwards * width if side == "right" else right - inwards * width
    cy = top + height * (0.25 + 0.65 * rng.beta(2.6, 1.5))
    rx, ry = np.multiply((width, height), (rng.uniform(0.28, 0.5), rng.uniform(0.14, 0.26))) * (0.5 + 0.6 * weight)
    distance = ((grid[0] - cx) / rx) ** 2 + ((grid[1] - cy) / ry) ** 2
    return np.exp(-0.69 * distance**1.5).astype(np.float32)
