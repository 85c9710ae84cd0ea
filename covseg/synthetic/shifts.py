"""The same image as another archive would hold it: a fixed, seeded list of shifts for ``covseg evaluate --shifts``.

In: grey values of one image. Out: grey values of the shifted one, and, where the frame moved, its masks moved too.
None of it is shared with the augmentation of training: that one draws at random, from other code. A shift whose
`seen` is False has no counterpart in it, and checks that robustness was not learnt by heart.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from covseg.errors import UsageError
from covseg.records import Mask
from covseg.settings.faults import meant

Pixels = NDArray[np.float32]
Plane = NDArray[Any]
Change = Callable[[Pixels, Generator], Pixels]
FILTERS = {"linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC, "lanczos": cv2.INTER_LANCZOS4, "area": cv2.INTER_AREA}


@dataclass(frozen=True)
class Shift:
    """One change of an image.

    Parameters
    ----------
    words : str
        What a reader sees.
    pixels : callable
        (grey values float32 ``(H, W)`` in [0, 1], generator) to grey values, of any size.
    mask : callable or None
        Moves a mask ``(H, W)`` as the frame moved; None where it did not.
    seen : bool
        Training draws something like it.
    by_design : str
        ``refused`` where the input filter is meant to refuse the image; empty where a mask is wanted.
    """

    words: str
    pixels: Change
    mask: Callable[[Mask], Mask] | None = None
    seen: bool = True
    by_design: str = ""


def _resized(pixels: Pixels, _: Generator, side: int, kind: str) -> Pixels:
    return np.asarray(cv2.resize(pixels, (side, side), interpolation=FILTERS[kind]), np.float32)


def _down_and_up(pixels: Pixels, _: Generator, side: int) -> Pixels:
    height, width = pixels.shape
    small = cv2.resize(pixels, (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def _compressed(pixels: Pixels, _: Generator, kind: str, quality: int) -> Pixels:
    flag = {".jpg": cv2.IMWRITE_JPEG_QUALITY, ".webp": cv2.IMWRITE_WEBP_QUALITY}[kind]
    _done, data = cv2.imencode(kind, np.rint(pixels * 255).astype(np.uint8), [flag, quality])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.float32) / np.float32(255)


def _blurred(pixels: Pixels, _: Generator, sigma: float) -> Pixels:
    sigma = sigma * max(pixels.shape) / 256
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE), np.float32)


def _sharpened(pixels: Pixels, rng: Generator, amount: float) -> Pixels:
    return pixels + np.float32(amount) * (pixels - _blurred(pixels, rng, 1.0))


def _gamma(pixels: Pixels, _: Generator, power: float) -> Pixels:
    return pixels ** np.float32(power)


def _windowed(pixels: Pixels, _: Generator) -> Pixels:
    low, high = np.percentile(pixels, (2, 98))
    return np.asarray((pixels - low) / max(high - low, 1e-3), np.float32)


def _noisy(pixels: Pixels, rng: Generator, deviation: float) -> Pixels:
    return pixels + np.float32(deviation) * rng.standard_normal(pixels.shape, np.float32)


def _levels(pixels: Pixels, _: Generator, count: int) -> Pixels:
    return np.asarray(np.rint(pixels * (count - 1)) / (count - 1), np.float32)


def _equalised(pixels: Pixels, _: Generator) -> Pixels:
    grey = np.rint(pixels * 255).astype(np.uint8)
    return np.asarray(cv2.createCLAHE(3.0, (8, 8)).apply(grey), np.float32) / np.float32(255)


def _twelve_bits(pixels: Pixels, _: Generator) -> Pixels:
    """Store as 12 bits with an offset, inverted, and read through a window of the file's own ends."""
    stored = 4095 - np.rint(pixels * 3000 + 400)
    back = 4095 - stored
    low, high = back.min(), back.max()
    return np.asarray((back - low) / max(high - low, 1), np.float32)


def _lettered(pixels: Pixels, rng: Generator) -> Pixels:
    grey = np.rint(pixels * 255).astype(np.uint8)
    side = max(pixels.shape)
    for text, place in (
        ("R", (0.04, 0.12)),
        ("PORTABLE AP", (0.55, 0.08)),
        (f"{rng.integers(10**6):06d}", (0.05, 0.97)),
    ):
        at = (int(place[0] * side), int(place[1] * side))
        cv2.putText(grey, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.5 * side / 256, 255, max(1, side // 200), cv2.LINE_AA)
    return np.asarray(grey, np.float32) / np.float32(255)


def _inverted(pixels: Pixels, _: Generator) -> Pixels:
    return 1 - pixels


def _turned(plane: Plane, degrees: float) -> Plane:
    height, width = plane.shape
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    how = cv2.INTER_NEAREST if plane.dtype == np.uint8 else cv2.INTER_LINEAR
    turned: Plane = cv2.warpAffine(plane, matrix, (width, height), flags=how)
    return turned


def _framed(plane: Plane, share: float, value: float) -> Plane:
    """Add a border of a share of each side; negative: cut it off, and stretch the rest to the same size."""
    height, width = plane.shape
    down, across = round(abs(share) * height), round(abs(share) * width)
    if share < 0:
        how = cv2.INTER_NEAREST if plane.dtype == np.uint8 else cv2.INTER_LINEAR
        cut = np.ascontiguousarray(plane[down : height - down, across : width - across])
        stretched: Plane = cv2.resize(cut, (width, height), interpolation=how)
        return stretched
    fill = value if plane.dtype != np.uint8 else 0
    return np.pad(plane, ((down, down), (across, across)), constant_values=fill)


def _streaked(pixels: Pixels, _: Generator) -> Pixels:
    side = max(3, round(5 * max(pixels.shape) / 256)) | 1
    kernel = np.zeros((side, side), np.float32)
    np.fill_diagonal(kernel, 1 / side)
    return np.asarray(cv2.filter2D(pixels, -1, kernel, borderType=cv2.BORDER_REPLICATE), np.float32)


def _shaded(pixels: Pixels, _: Generator) -> Pixels:
    height, width = pixels.shape
    down, across = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    return np.asarray(pixels * (1 - 0.25 * (down**2 + across**2)) + 0.08 * across, np.float32)


def _speckled(pixels: Pixels, rng: Generator) -> Pixels:
    drawn = rng.random(pixels.shape)
    return np.where(drawn < 0.01, 0, np.where(drawn > 0.99, 1, pixels)).astype(np.float32)


def _median(pixels: Pixels, _: Generator) -> Pixels:
    grey = np.rint(pixels * 255).astype(np.uint8)
    return np.asarray(cv2.medianBlur(grey, 3), np.float32) / np.float32(255)


def _gridded(pixels: Pixels, _: Generator) -> Pixels:
    """Lines of an anti-scatter grid, four pixels of 256 apart."""
    rows = np.arange(pixels.shape[0]) * (256 / pixels.shape[0])
    return np.asarray(pixels + 0.02 * np.sin(2 * np.pi * rows / 4)[:, None], np.float32)


def _moved(words: str, move: Callable[[Plane], Plane]) -> Shift:
    return Shift(
        words,
        lambda pixels, _: np.asarray(move(pixels), np.float32),
        lambda mask: np.asarray(move(mask), np.uint8),
    )


SHIFTS: dict[str, Shift] = {
    "up512": Shift("up to 512, linear", partial(_resized, side=512, kind="linear")),
    "up1024": Shift("up to 1024, cubic", partial(_resized, side=1024, kind="cubic")),
    "up2048": Shift("up to 2048, Lanczos", partial(_resized, side=2048, kind="lanczos")),
    "up1024area": Shift("up to 1024, squares", partial(_resized, side=1024, kind="area")),
    "down128": Shift("down to 128 and back", partial(_down_and_up, side=128)),
    "jpeg90": Shift("JPEG 90", partial(_compressed, kind=".jpg", quality=90)),
    "jpeg75": Shift("JPEG 75", partial(_compressed, kind=".jpg", quality=75)),
    "jpeg50": Shift("JPEG 50", partial(_compressed, kind=".jpg", quality=50)),
    "blur1": Shift("blur, sigma 1 of 256", partial(_blurred, sigma=1.0)),
    "blur2": Shift("blur, sigma 2 of 256", partial(_blurred, sigma=2.0)),
    "sharpen1": Shift("sharpened, unsharp mask 1", partial(_sharpened, amount=1.0)),
    "sharpen2": Shift("sharpened, unsharp mask 2", partial(_sharpened, amount=2.0)),
    "gamma0.7": Shift("gamma .7", partial(_gamma, power=0.7)),
    "gamma1.4": Shift("gamma 1.4", partial(_gamma, power=1.4)),
    "window": Shift("window of the 2 to 98 % grey values", _windowed),
    "noise0.03": Shift("noise, .03 of full scale", partial(_noisy, deviation=0.03)),
    "noise0.06": Shift("noise, .06 of full scale", partial(_noisy, deviation=0.06)),
    "levels16": Shift("16 grey levels", partial(_levels, count=16)),
    "clahe": Shift("CLAHE, clip 3", _equalised),
    "rotate+7": _moved("turned by 7 degrees", partial(_turned, degrees=7.0)),
    "rotate-7": _moved("turned by -7 degrees", partial(_turned, degrees=-7.0)),
    "border5": _moved("black border, 5 % a side", partial(_framed, share=0.05, value=0.0)),
    "border5white": _moved("white border, 5 % a side", partial(_framed, share=0.05, value=1.0)),
    "crop5": _moved("cropped, 5 % a side", partial(_framed, share=-0.05, value=0.0)),
    "letters": Shift("letters burnt in", _lettered),
    "bits12": Shift("12 bits with an offset", _twelve_bits),
    "inverted": Shift("inverted", _inverted, by_design="refused"),
    "streak": Shift("motion of 5 of 256 pixels", _streaked, seen=False),
    "shade": Shift("uneven illumination", _shaded, seen=False),
    "speckle": Shift("1 % black and 1 % white pixels", _speckled, seen=False),
    "median": Shift("median of 3 x 3", _median, seen=False),
    "grid": Shift("grid lines", _gridded, seen=False),
    "webp30": Shift("WebP 30", partial(_compressed, kind=".webp", quality=30), seen=False),
}


def chosen(names: tuple[str, ...]) -> dict[str, Shift]:
    """Return shifts by name, in the list's order; ``all`` is all of them.

    Raises
    ------
    UsageError
        When there is no such shift.
    """
    for name in names:
        if name not in (*SHIFTS, "all"):
            raise UsageError(f"no shift {name!r}{meant(name, SHIFTS)}: wanted all, or some of {', '.join(SHIFTS)}")
    return SHIFTS if "all" in names else {name: SHIFTS[name] for name in SHIFTS if name in names}


def shifted(name: str, shift: Shift, pixels: Pixels, key: str) -> Pixels:
    """Return the shifted image; what is random in it follows from the names of shift and image."""
    rng = np.random.default_rng((zlib.crc32(name.encode()), zlib.crc32(key.encode())))
    return np.clip(shift.pixels(pixels, rng), 0, 1).astype(np.float32)
