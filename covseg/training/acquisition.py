"""The same image as another machine, archive or publisher would have left it.

In: a grey image and its masks, 8 bits. Out: both, the masks moved where the frame moved. COVID-QU-Ex was shrunk by one
filter, and its strata come from different archives: what is left of filter, compression, sharpness and tone tells the
stratum better than the lungs do. Drawing all of it anew for each image leaves only the lungs to learn from.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from covseg.training.augment_config import PathConfig

Grey = NDArray[np.uint8]
Float = NDArray[np.float32]
FILTERS = (
    cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA, cv2.INTER_LANCZOS4,
)  # fmt: skip
COLLIMATED, LETTERBOXED, HALF = 0.3, 0.2, 0.5  # shares
LETTERS = "LRABCDEFPMSUIN0123456789:/."


def acquired(image: Grey, masks: Grey, config: PathConfig, rng: Generator) -> tuple[Grey, Grey]:
    """Draw an acquisition by a recipe's probabilities.

    Parameters
    ----------
    image : ndarray of uint8, shape (H, W)
    masks : ndarray of uint8, shape (H, W, M)
    rng : Generator
        All that happens follows from it.

    Returns
    -------
    image, masks : ndarray of uint8
        Of the same shapes.
    """
    if rng.random() >= config.share:
        return image, masks
    if rng.random() < config.frame:
        image, masks = framed(image, masks, rng)
    pixels: NDArray[Any] = image.astype(np.float32) / 255
    moves: list[tuple[float, Callable[[Float, Generator], NDArray[Any]]]] = [
        (config.tone, toned),
        (
            config.transfer,
            lambda seen, draw: transferred(seen, draw.uniform(*config.transfer_db), draw.uniform(0.5, 3)),
        ),
        (config.letters, lettered),
        (config.resample, resampled),
        (config.noise, lambda seen, draw: noisy(seen, draw.uniform(*config.noise_std), draw)),
        (config.levels, lambda seen, draw: few_levels(seen, int(2 ** draw.uniform(3, 6)))),
        (config.jpeg, lambda seen, draw: compressed(seen, int(draw.integers(30, 96)))),
    ]
    for probability, move in moves:
        if rng.random() < probability:
            pixels = np.clip(move(pixels, rng), 0, 1).astype(np.float32)
    return np.rint(pixels * 255).astype(np.uint8), masks


def framed(image: Grey, masks: Grey, rng: Generator) -> tuple[Grey, Grey]:
    """Collimate, letterbox, or cut off and add up to a tenth of each side; the shape stays."""
    height, width = image.shape
    top, bottom, left, right = (int(share * side) for share, side in zip(
        rng.uniform(-0.1, 0.1, 4), (height, height, width, width), strict=True
    ))  # fmt: skip
    value, kind = (0, 0, 255, int(rng.integers(256)))[rng.integers(4)], rng.random()
    if kind < COLLIMATED:  # the frame stays, its margin turns dark or light
        shutter = np.full_like(image, value)
        inside = slice(abs(top), height - abs(bottom)), slice(abs(left), width - abs(right))
        shutter[inside] = image[inside]
        return shutter, masks
    if kind < COLLIMATED + LETTERBOXED:  # bars above and below, or at both sides
        wide = rng.random() < HALF
        top, bottom, left, right = (0, 0, -abs(left), -abs(right)) if wide else (-abs(top), -abs(bottom), 0, 0)
    planes = [_within(plane, (top, bottom, left, right), fill) for plane, fill in _planes(image, masks, value)]
    image = cv2.resize(planes[0], (width, height), interpolation=cv2.INTER_LINEAR)
    moved = [cv2.resize(plane, (width, height), interpolation=cv2.INTER_NEAREST) for plane in planes[1:]]
    return image, np.stack(moved, axis=-1)


def _planes(image: Grey, masks: Grey, value: int) -> list[tuple[Grey, int]]:
    return [(image, value), *((masks[..., one], 0) for one in range(masks.shape[-1]))]


def _within(plane: Grey, sides: tuple[int, int, int, int], value: int) -> Grey:
    """Cut positive sides off (top, bottom, left, right), add a border of one value where they are negative."""
    height, width = plane.shape
    top, bottom, left, right = (max(side, 0) for side in sides)
    cut = np.ascontiguousarray(plane[top : height - bottom, left : width - right])
    above, below, before, after = (max(-side, 0) for side in sides)
    return np.pad(cut, ((above, below), (before, after)), constant_values=value)


def toned(pixels: Float, rng: Generator) -> Float:
    """Bend the grey values by one or two of gamma, window, sigmoid, and equalised in part."""
    for bend in rng.permutation(len(BENDS))[: rng.integers(1, 3)]:
        pixels = np.clip(BENDS[bend](pixels, rng), 0, 1).astype(np.float32)
    return pixels


def _gamma(pixels: Float, rng: Generator) -> Float:
    return pixels ** np.float32(np.exp(rng.uniform(-0.7, 0.7)))


def _window(pixels: Float, rng: Generator) -> Float:
    low, high = rng.uniform(-0.1, 0.2), rng.uniform(0.75, 1.2)
    return np.asarray((pixels - low) / (high - low), np.float32)


def _sigmoid(pixels: Float, rng: Generator) -> Float:
    slope, middle = rng.uniform(3, 9), rng.uniform(0.35, 0.65)
    bent, low, high = (1 / (1 + np.exp(-slope * (value - middle))) for value in (pixels, 0.0, 1.0))
    return np.asarray((bent - low) / (high - low), np.float32)


def _equalised(pixels: Float, rng: Generator) -> Float:
    grey, tiles = np.rint(pixels * 255).astype(np.uint8), int(rng.integers(2, 9))
    local = cv2.createCLAHE(float(rng.uniform(1, 4)), (tiles, tiles)).apply(grey)
    other = local if rng.random() < HALF else cv2.equalizeHist(grey)
    return np.asarray(pixels + rng.uniform(0.2, 1) * (other.astype(np.float32) / 255 - pixels), np.float32)


BENDS = (_gamma, _window, _sigmoid, _equalised)


@lru_cache(maxsize=8)
def _radius(height: int, width: int) -> Float:
    """Distance from zero frequency as a share of Nyquist, of a real Fourier transform, at most 1."""
    down, across = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    return np.minimum(np.hypot(down, across) * 2, 1).astype(np.float32)


def transferred(pixels: Float, decibels: float, power: float) -> Float:
    """Damp (negative) or raise fine detail: by `decibels` at Nyquist, times (frequency / Nyquist) ** `power` below."""
    gain = 10 ** (decibels / 20 * _radius(*pixels.shape) ** power)
    return np.fft.irfft2(np.fft.rfft2(pixels) * gain, pixels.shape).astype(np.float32)


def resampled(pixels: Float, rng: Generator) -> Float:
    """Shrink or enlarge and come back, each way by some filter; shrinking may alias or may not."""
    height, width = pixels.shape
    scale = np.exp(rng.uniform(np.log(0.4), np.log(2.0)))
    there, back = (FILTERS[int(rng.integers(len(FILTERS)))] for _ in range(2))
    if there == cv2.INTER_NEAREST and scale < 0.7:  # beyond that a mask is no longer of the image
        there = cv2.INTER_AREA
    other = cv2.resize(pixels, (round(width * scale), round(height * scale)), interpolation=there)
    return np.asarray(cv2.resize(other, (width, height), interpolation=back), np.float32)


def noisy(pixels: Float, deviation: float, rng: Generator) -> Float:
    """Add Gaussian noise, white or of a coarser grain, stronger in the bright parts half of the time."""
    height, width = pixels.shape
    grain = rng.choice([1, 1, 2, 3])
    noise = rng.standard_normal((-(-height // grain), -(-width // grain)), np.float32)
    noise = cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR)
    strength = deviation * (np.sqrt(pixels + 0.05) * 1.3 if rng.random() < 0.5 else 1)
    return np.asarray(pixels + noise * strength, np.float32)


def few_levels(pixels: Float, levels: int) -> Float:
    """Round the grey values to so many."""
    return np.asarray(np.rint(pixels * (levels - 1)) / (levels - 1), np.float32)


def compressed(pixels: Float, quality: int) -> Float:
    """Write a JPEG and read it."""
    _, data = cv2.imencode(".jpg", np.rint(pixels * 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, quality])
    back: Any = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE)
    return np.asarray(back, np.float32) / np.float32(255)


def lettered(pixels: Float, rng: Generator) -> Float:
    """Burn in one or two short lines of letters."""
    height, width = pixels.shape
    drawn = np.rint(pixels * 255).astype(np.uint8)
    for _ in range(rng.integers(1, 3)):
        text = "".join(rng.choice(list(LETTERS), size=rng.integers(1, 12)))
        place = (int(rng.uniform(0, 0.9) * width), int(rng.uniform(0.05, 1) * height))
        size, value = float(rng.uniform(0.3, 1.0)) * height / 256, int(rng.choice([255, 255, 0]))
        cv2.putText(drawn, text, place, int(rng.integers(0, 8)), size, value, int(rng.integers(1, 3)), cv2.LINE_AA)
    return np.asarray(drawn / np.float32(255), np.float32)
