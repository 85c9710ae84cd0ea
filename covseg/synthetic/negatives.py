# ruff: noqa: ARG001, ARG005 - the families share one signature, and most need only a part of it
"""Synthetic images that are not upright frontal chest radiographs, in named families.

In: grey images and their lung masks ``(H, W)`` uint8, and a random generator. Out: one grey image
``(H, W)`` uint8. Families that turn or crop an image need the image; the others draw from nothing. No
real lateral image, CT slice, limb image or photograph takes part: those stay for the test.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from covseg.stages.input_filter import INVERTED, NO_RADIOGRAPH, OTHER_VIEW, ROTATED
from covseg.synthetic import drawings
from covseg.synthetic.drawings import Image, Random, cloud, stretch


def _crop(image: Image, top: float, left: float, height: float, width: float) -> Image:
    """Cut a part given in shares of the image and stretch it back to the image's size."""
    rows, columns = image.shape
    part = image[
        int(top * rows) : max(int((top + height) * rows), int(top * rows) + 8),
        int(left * columns) : max(int((left + width) * columns), int(left * columns) + 8),
    ]
    return cv2.resize(part, (columns, rows), interpolation=cv2.INTER_LINEAR)


def jitter(image: Image, random: Random) -> Image:
    """Re-expose, tilt, shift, scale and frame an image a little: still an upright frontal chest radiograph."""
    rows, columns = image.shape
    turn = cv2.getRotationMatrix2D((columns / 2, rows / 2), random.uniform(-8, 8), random.uniform(0.88, 1.1))
    turn[0, 0] *= (aspect := random.uniform(0.9, 1.1))
    turn[0, 1] *= aspect
    turn[:, 2] += random.uniform(-0.05, 0.05, 2) * (columns, rows)
    fill = cv2.BORDER_CONSTANT if random.random() < 0.5 else cv2.BORDER_REPLICATE
    moved = cv2.warpAffine(image, turn, (columns, rows), flags=cv2.INTER_LINEAR, borderMode=fill).astype(np.float32)
    exposed = 255 * (moved / 255) ** random.uniform(0.65, 1.5)
    exposed += random.normal(0, random.uniform(0, 6), image.shape)
    if random.random() < 0.3:
        exposed = cv2.GaussianBlur(exposed, (0, 0), random.uniform(0.5, 1.5))
    return np.clip(exposed, 0, 255).astype(np.uint8)


def shoulders(image: Image, lung: Image, random: Random) -> Image:
    """Keep the top of an image only."""
    height = random.uniform(0.2, 0.38)
    width = random.uniform(0.45, 1)
    return _crop(image, 0, random.uniform(0, 1 - width), height, width)


def abdomen(image: Image, lung: Image, random: Random) -> Image:
    """Keep the bottom of an image only."""
    height = random.uniform(0.15, 0.32)
    width = random.uniform(0.45, 1)
    return _crop(image, 1 - height, random.uniform(0, 1 - width), height, width)


def half(image: Image, lung: Image, random: Random) -> Image:
    """Stretch one side of an image to the whole: one lung behind one wall."""
    width = random.uniform(0.35, 0.52)
    return _crop(image, 0, random.choice([0, 1 - width]), 1, width)


def zoom(image: Image, lung: Image, random: Random) -> Image:
    """Keep a detail."""
    side = random.uniform(0.12, 0.4)
    top, left = random.uniform(0, 1 - side, 2)
    return _crop(image, top, left, side, side)


def tiles(image: Image, lung: Image, random: Random) -> Image:
    """Repeat the image, as a contact sheet does."""
    across, down = (int(n) for n in random.integers(1, 5, 2))
    sheet = np.tile(image, (down + (across == down == 1), across))
    return cv2.resize(sheet, image.shape[::-1], interpolation=cv2.INTER_AREA)


def shuffled(image: Image, lung: Image, random: Random) -> Image:
    """Put patches of an image in a random order."""
    parts = int(random.choice([2, 4, 8]))
    step = image.shape[0] // parts
    patches = [
        image[row * step : (row + 1) * step, column * step : (column + 1) * step]
        for row in range(parts)
        for column in range(parts)
    ]
    order = np.roll(np.arange(parts**2), 1) if parts == 2 else random.permutation(parts**2)
    return np.vstack([np.hstack([patches[i] for i in order[row * parts : (row + 1) * parts]]) for row in range(parts)])


def overlaid(image: Image, lung: Image, random: Random) -> Image:
    """Lay an image over its mirror and its shifted self, a double exposure."""
    mixed = image.astype(np.float32) + image[:, ::-1]
    shift = int(image.shape[1] * random.uniform(0.2, 0.35)) * int(random.choice([-1, 1]))
    return stretch(mixed + 2.0 * np.roll(image.astype(np.float32), shift, axis=1))


def mask(image: Image, lung: Image, random: Random) -> Image:
    """Draw a mask or label map, as segmentation data sets hold beside their images."""
    kind = random.integers(4)
    if kind == 0:
        return lung
    if kind == 1:
        return 255 - lung
    blob = stretch(cloud(image.shape, random, 2.5)) > random.integers(110, 170)
    return np.where(blob & (lung > 0), 255, 128 * (lung > 0) if kind == 2 else 0).astype(np.uint8)


def edges(image: Image, lung: Image, random: Random) -> Image:
    """Make a line drawing or a relief of an image."""
    if random.random() < 0.5:
        return cv2.Canny(image, int(random.integers(20, 60)), int(random.integers(60, 160)))
    return stretch(cv2.Sobel(image, cv2.CV_32F, int(kind := random.integers(2)), int(1 - kind), ksize=3))


def pasted(image: Image, lung: Image, random: Random) -> Image:
    """Put a small image on a page or screen of text."""
    page = drawings.text(random)
    side = int(image.shape[0] * random.uniform(0.2, 0.45))
    top, left = (int(n) for n in random.integers(0, image.shape[0] - side, 2))
    page[top : top + side, left : left + side] = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    return page


Draw = Callable[[Image, Image, Random], Image]


def _alone(draw: Callable[[Random], Image]) -> Draw:
    """Give a drawing the signature of the families that need an image."""
    return lambda image, lung, random: draw(random)


FAMILIES: dict[str, tuple[int, Draw]] = {
    "inverted": (INVERTED, lambda image, *_: 255 - image),
    "inverted_rotated": (INVERTED, lambda image, _, random: np.rot90(255 - image, int(random.integers(1, 4)))),
    "rotated_90": (ROTATED, lambda image, *_: np.rot90(image)),
    "rotated_180": (ROTATED, lambda image, *_: np.rot90(image, 2)),
    "rotated_270": (ROTATED, lambda image, *_: np.rot90(image, 3)),
    "upside_down": (ROTATED, lambda image, *_: image[::-1]),
    **{draw.__name__: (OTHER_VIEW, draw) for draw in (shoulders, abdomen, half, zoom, overlaid)},
    **{draw.__name__: (OTHER_VIEW, _alone(draw)) for draw in (drawings.side_view, drawings.limb)},
    **{draw.__name__: (NO_RADIOGRAPH, draw) for draw in (tiles, shuffled, mask, edges, pasted)},
    **{draw.__name__: (NO_RADIOGRAPH, _alone(draw)) for draw in (drawings.axial, drawings.text, drawings.noise)},
    **{draw.__name__: (NO_RADIOGRAPH, _alone(draw)) for draw in (drawings.gradient, drawings.pattern, drawings.shapes)},
}
