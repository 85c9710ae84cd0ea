"""Is an image as sharp, as finely graded and as clean as what the models learn from? Measured on pixels alone.

In: source pixels, and the same image at the side of the training images. Out: `ImageQuality`, and the QC flags that it
deserves. No model: about 3 ms of CPU at 1024 pixels a side. A flag says that an acquisition is unusual, not that its
numbers are wrong; no flag does not say that they are right. It knows nothing of masks or files.

Not seen: compression before a resize, dark letters, letters that touch each other or the frame, a border with noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from covseg.records import Grey, as_bytes
from covseg.settings.model import FlagLimits

FloatImage = NDArray[np.float32]
Bytes = NDArray[np.uint8]

COARSE, MIDDLE, HALF, FINE = (0.05, 0.15), (0.15, 0.4), (0.4, 0.6), (0.4, 0.95)  # shares of Nyquist
OVERALL, DIRECTED = (0.0075, 0.03), (0.25, 0.7)
SECTORS = 12  # directions, each 30 degrees wide
TILE = 32  # pixels a side, at the side of the training images
BLOCK = 8  # pixels a side, of JPEG
WINDOW = 1024  # pixels; compression is judged in the middle of a larger image
EDGE = 8  # grey levels of 255; a larger step is anatomy
FLAT = 0.05  # grey values of [0, 1]; a row that spans less is part of a border
SAMPLE = 500  # pixels a side for counting grey levels and finding letters; what is larger is thinned
STROKES = (40, 80, 120)  # grey levels of 255 above the surroundings; letters that touch at one may part at another
BRIGHT = 0.75  # of nearly the brightest grey; letters are at least so bright
OUTLINES, CANDIDATES = 5000, 400  # more parts, or more would-be letters, are texture


@dataclass(frozen=True)
class ImageQuality:
    """How an image was acquired and stored, as far as its pixels show.

    Parameters
    ----------
    shorter_side : int
        Of the source, pixels.
    detail_db : float
        Power at .4-.6 of Nyquist over that at .05-.15, at the side of the training images; low without fine detail.
    sharpness_db : float
        Power at .4-.95 of Nyquist over that at .15-.4, there; low for a blurred image, high for a sharpened or noisy
        one. From .6 on alone, the rounding to 8 bits would hide a blur.
    direction_db : float
        Power at .25-.7 of Nyquist in the strongest of twelve directions over that in the weakest, there; high where
        something moved, and for a grid.
    contrast_db : float
        Power at .05-.15 over that below .03, times the mean variance within tiles of 32 pixels, there; high where the
        contrast was made even over the image (CLAHE, some vendors' processing).
    blockiness : float
        Mean step across the edges of 8 x 8 blocks beyond the usual step, grey levels of 255, at source size.
    grey_levels : int
        Distinct values, of 65,536, in a sample of the source pixels.
    border_share : float
        Of a side: the widest run of rows or columns at one edge that are each of one grey.
    letters : int
        Most bright letters in a row.
    """

    shorter_side: int
    detail_db: float
    sharpness_db: float
    direction_db: float
    contrast_db: float
    blockiness: float
    grey_levels: int
    border_share: float
    letters: int


def quality_flags(quality: ImageQuality, limits: FlagLimits) -> tuple[str, ...]:
    """Raise the flags of the closed set that the acquisition deserves."""
    dull, sharp = limits.sharpness_db
    raised = {
        "low_resolution": quality.shorter_side < limits.shorter_side or quality.detail_db < limits.detail_db,
        "sharpness_out_of_range": not dull <= quality.sharpness_db <= sharp,
        "uneven_sharpness": quality.direction_db > limits.direction_db,
        "evened_contrast": quality.contrast_db > limits.contrast_db,
        "heavy_compression": quality.blockiness > limits.blockiness,
        "few_grey_levels": quality.grey_levels < limits.grey_levels,
        "border": quality.border_share > limits.border_share,
        "burned_in_text": quality.letters >= limits.letters,
    }
    return tuple(flag for flag, raise_it in raised.items() if raise_it)


def measure_quality(samples: Grey, small: FloatImage) -> ImageQuality:
    """Measure an image of any size, a constant one too.

    Parameters
    ----------
    samples : ndarray of uint8 or float32, shape (H, W)
        Of the source: of 255, or finite and in [0, 1].
    small : ndarray of float32, shape (S, S)
        The same at the side of the training images, by their filter.
    """
    overall, coarse, middle, half, fine, *sectors = _band_powers(small)
    image = as_bytes(samples)
    return ImageQuality(
        shorter_side=min(samples.shape),
        detail_db=_decibels(half, coarse),
        sharpness_db=_decibels(fine, middle),
        direction_db=10 * math.log10((max(sectors) + 1e-9) / (min(sectors) + 1e-9)),
        contrast_db=_decibels(coarse, overall) + _decibels(_tile_variance(small), 1.0),
        blockiness=_blockiness(image),
        grey_levels=_grey_levels(samples),
        border_share=_border_share(small),
        letters=_letters(image),
    )


def _decibels(power: float, reference: float) -> float:
    return 10 * float(np.log10((power + 1e-13) / (reference + 1e-9)))


class _Bands(NamedTuple):
    """What turns a spectrum into powers of bands: frequencies that are in the same bands form a group.

    Attributes
    ----------
    window : ndarray of float32, shape (S, S)
        Hann, of unit power.
    places, groups : ndarray of int, shape (F,)
        Where `cv2.dft` packs the real part of each frequency of the half plane, and the frequency's group.
    weights : ndarray of float64, shape (bands, groups)
        From sums over groups to means over bands.
    """

    window: FloatImage
    places: NDArray[np.intp]
    groups: NDArray[np.intp]
    weights: NDArray[np.float64]


@lru_cache(maxsize=2)
def _bands(side: int) -> _Bands:
    down, across = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    radius = (np.hypot(down, across) * 2).ravel()
    window = np.outer(np.hanning(side), np.hanning(side))
    window /= np.sqrt((window**2).sum())
    within = [(radius >= low) & (radius < high) for low, high in (OVERALL, COARSE, MIDDLE, HALF, FINE, DIRECTED)]
    angle = np.degrees(np.arctan2(*np.broadcast_arrays(down, across))).ravel()
    away = [np.abs((angle - 180 * sector / SECTORS + 90) % 180 - 90) for sector in range(SECTORS)]
    directed = within.pop()
    members = np.array([*within, *(directed & (far < 15) for far in away)])
    groups, of_each = np.unique(members, axis=1, return_inverse=True)
    weights = groups / members.sum(axis=1, keepdims=True)
    return _Bands(window.astype(np.float32), _packed(side), of_each.ravel(), weights)


def _packed(side: int) -> NDArray[np.intp]:
    """Return where `cv2.dft` packs real parts; those of the half plane's first and last column stand upright."""
    row, column = np.mgrid[:side, : side // 2 + 1]
    upright = (column == 0) | (2 * column == side)
    mirrored = np.minimum(row, side - row)  # the lower half of an upright column repeats the upper one
    rows = np.where(upright, np.where(row == 0, 0, 2 * mirrored - 1), row)
    return np.asarray(rows * side + np.maximum(2 * column - 1, 0), np.intp).ravel()


def _band_powers(small: FloatImage) -> list[float]:
    bands = _bands(len(small))
    spectrum = cv2.dft((small - small.mean()) * bands.window)
    power = cv2.mulSpectrums(spectrum, spectrum, 0, conjB=True).ravel()[bands.places]
    sums = np.bincount(bands.groups, power, bands.weights.shape[1])
    return [float(mean) for mean in bands.weights @ sums]


def _tile_variance(small: FloatImage) -> float:
    side = len(small) // TILE * TILE
    tiles = small[:side, :side].reshape(side // TILE, TILE, side // TILE, TILE)
    return float(tiles.std(axis=(1, 3))[1:-1, 1:-1].mean()) ** 2


def _blockiness(image: Bytes) -> float:
    """Compare the step at the most striking of eight phases with the median one; 0 for an image without blocks."""
    start = [max(0, side - WINDOW) // (2 * BLOCK) * BLOCK for side in image.shape]
    grey = image[start[0] : start[0] + WINDOW, start[1] : start[1] + WINDOW]
    if min(grey.shape) <= 2 * BLOCK:
        return 0.0
    down = cv2.reduce(cv2.min(cv2.absdiff(grey[1:], grey[:-1]), EDGE), 1, cv2.REDUCE_AVG, dtype=cv2.CV_32F)
    across = cv2.reduce(cv2.min(cv2.absdiff(grey[:, 1:], grey[:, :-1]), EDGE), 0, cv2.REDUCE_AVG, dtype=cv2.CV_32F)
    steps = sum(_by_phase(line.ravel()) for line in (down, across)) / 2
    return float(np.max(steps) - np.median(steps))


def _by_phase(line: FloatImage) -> FloatImage:
    return np.asarray(line[: len(line) // BLOCK * BLOCK].reshape(-1, BLOCK).mean(axis=0), np.float32)


def _grey_levels(samples: Grey) -> int:
    step = math.ceil(min(samples.shape) / SAMPLE)
    sample = samples[::step, ::step]
    if sample.dtype == np.uint8:
        return int(np.count_nonzero(cv2.calcHist([np.ascontiguousarray(sample)], [0], None, [256], [0, 256])))
    return int(np.count_nonzero(np.bincount((sample * 65535 + 0.5).astype(np.uint16).ravel())))


def _border_share(small: FloatImage) -> float:
    widest = 0.0
    for axis in (0, 1):
        lively = np.flatnonzero(np.ptp(small, axis=axis) > FLAT)
        if not len(lively):
            return 1.0
        widest = max(widest, int(lively[0]), len(small) - 1 - int(lively[-1]))
    return widest / len(small)


def _letters(image: Bytes) -> int:
    """Count the letters of the longest row: bright strokes of like height on one line, close together."""
    grey = _sampled(image)
    reach = max(7, int(0.05 * min(grey.shape)) | 1)
    strokes = cv2.morphologyEx(grey, cv2.MORPH_TOPHAT, np.ones((reach, reach), np.uint8))
    bright = cv2.compare(grey, math.ceil(BRIGHT * _quantile(grey[::2, ::2], 0.999)), cv2.CMP_GE)
    strokes = cv2.bitwise_and(strokes, bright)
    drawn = (cv2.threshold(strokes, least - 1, 1, cv2.THRESH_BINARY)[1] for least in STROKES)
    return max(_longest_row(_candidates(np.asarray(part, np.uint8))) for part in drawn)


def _quantile(grey: Bytes, share: float) -> float:
    """Return what `np.quantile` does, by counting: it would sort."""
    place = share * (grey.size - 1)
    below = np.cumsum(cv2.calcHist([np.ascontiguousarray(grey)], [0], None, [256], [0, 256]).ravel())
    ends = np.searchsorted(below, [math.floor(place), math.ceil(place)], side="right")
    return float(np.quantile(ends, place - math.floor(place)))


def _sampled(image: Bytes) -> Bytes:
    """Shrink to at most `SAMPLE` pixels a side; every n-th pixel first, which costs a tenth of averaging areas."""
    step = math.ceil(max(image.shape) / (2 * SAMPLE))
    grey = image[::step, ::step]
    scale = SAMPLE / max(grey.shape)
    if scale >= 1:
        return grey
    height, width = (max(1, round(side * scale)) for side in grey.shape)
    return np.asarray(cv2.resize(grey, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def _candidates(strokes: Bytes) -> NDArray[np.int32]:
    """Return left, top, right, bottom ``(N, 4)`` of the parts that have a letter's size and shape, from the left."""
    height, width = strokes.shape
    outlines, nesting = cv2.findContours(strokes, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if not 0 < len(outlines) <= OUTLINES:
        return np.empty((0, 4), np.int32)
    outer = [outline for outline, (*_, parent) in zip(outlines, nesting[0], strict=True) if parent < 0]
    boxes = np.array([cv2.boundingRect(outline) for outline in outer], np.int32).reshape(-1, 4)
    left, top, wide, high = boxes.T
    side = min(height, width)
    sized = (high >= max(4, 0.012 * side)) & (high <= 0.06 * side) & (wide * 6 >= high) & (wide <= 1.5 * high)
    inside = (left > 0) & (top > 0) & (left + wide < width) & (top + high < height)
    kept = boxes[sized & inside]
    if not len(kept):
        return kept
    kept[:, 2:] += kept[:, :2]
    bars = (kept[:, 2] - kept[:, 0]) <= 0.35 * (kept[:, 3] - kept[:, 1])
    drawn = [strokes[top:bottom, left:right].mean() <= 0.9 for left, top, right, bottom in kept]
    kept = kept[bars | np.array(drawn, bool)]
    return kept[np.argsort(kept[:, 0], kind="stable")]


def _longest_row(boxes: NDArray[np.int32]) -> int:
    if not 1 < len(boxes) <= CANDIDATES:
        return int(len(boxes) == 1)
    left, top, right, bottom = boxes.T
    high = bottom - top
    slack = np.maximum(1, 0.25 * high)[:, None]
    gap = left[None] - right[:, None]
    follows = (gap >= -1) & (gap < 1.2 * high[:, None])
    for edge in (top, bottom):
        follows &= np.abs(edge[None] - edge[:, None]) <= slack
    length = np.ones(len(boxes), np.int64)
    for place in range(1, len(boxes)):
        before = length[:place][follows[:place, place]]
        length[place] += before.max(initial=0)
    return int(length.max())
