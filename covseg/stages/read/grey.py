"""Grey values: how decoded samples of any depth and colour become [0, 1], and which images are refused by them.

In: decoded integer samples. Out: float32 in [0, 1]. It knows nothing of file formats.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from covseg.errors import Reason
from covseg.records import Grey, unit
from covseg.stages.read.sniff import refusal

Samples = NDArray[Any]  # uint8 or uint16, (H, W) or (H, W, 3)


@dataclass(frozen=True)
class DecodedImage:
    """What a reader returns.

    Parameters
    ----------
    samples : ndarray of uint8 or float32, shape (H, W)
        Of 255, or in [0, 1]; bone bright.
    view_position, orientation : str or None
        As in `covseg.records.Radiograph`; None where the format does not say it.
    pixel_spacing_mm : float or None
    """

    samples: Grey
    view_position: str | None = None
    pixel_spacing_mm: float | None = None
    orientation: str | None = None


MIN_SIDE = 64  # the lungs of a smaller image span fewer pixels than one rib of a full-size one
MAX_PIXELS = 64_000_000  # 35 x 43 cm image scanned at 50 micrometres has 60 million; flat panels stay below 20
BLANK_SPAN = 0.05
MIN_LEVELS = 8  # masks and label maps have two or three; the flattest real image has dozens
CHROMA_LIMIT, COLOURED_SHARE = 64 / 255, 0.1

# A detector digitises at one of these depths.
_DEPTHS = (8, 10, 12, 14, 15, 16)


def check_size(width: int, height: int) -> None:
    """Refuse an image by the size that its header claims, before anything is decoded.

    Raises
    ------
    RadiographRefused
        ``too_small`` below 64 pixels on a side, ``too_large`` above 64 million pixels.
    """
    if width * height > MAX_PIXELS:
        raise refusal(
            Reason.TOO_LARGE,
            f"the header claims {width} x {height} pixels: wanted at most {MAX_PIXELS // 1_000_000} million",
        )
    if min(width, height) < MIN_SIDE:
        raise refusal(Reason.TOO_SMALL, f"{width} x {height} pixels: wanted at least {MIN_SIDE} on each side")


def grey(samples: Samples) -> Grey:
    """Scale decoded samples of a PNG or JPEG to [0, 1], unless they have 8 bits: then they stay as they are, of 255.

    16-bit samples are divided by the full scale of the smallest usual detector
    depth (8, 10, 12, 14, 15 or 16 bits) that holds the image's maximum, for the file does not say it: a 12-bit
    image in a 16-bit file has no value above 4095. The image's own minimum and maximum are not used: a dim image
    stays dim, and an image and its crop keep the same grey values.

    Parameters
    ----------
    samples : ndarray of uint8 or uint16, shape (H, W) or (H, W, 3)
        Colour in the order R, G, B.

    Returns
    -------
    ndarray of uint8 or float32, shape (H, W)

    Raises
    ------
    RadiographRefused
        ``not_radiograph`` when the image is clearly coloured.
    """
    if samples.ndim == 3:
        samples = luma(samples)
    if samples.dtype == np.uint8:
        return samples
    return np.divide(samples, full_scale(samples), dtype=np.float32)


def full_scale(samples: Samples) -> int:
    """Return the value of white: 255, or that of the smallest usual depth that holds the maximum."""
    if samples.dtype == np.uint8:
        return 255
    bits = max(int(samples.max()).bit_length(), 8)
    return 2 ** next(depth for depth in _DEPTHS if depth >= bits) - 1


def luma(samples: Samples) -> Samples:
    """Return the luma (ITU-R BT.601) of an image stored in colour; R = G = B comes back unchanged.

    A tinted film base or a coloured marker is read. Refused is an image of which more than a tenth differs by more
    than a quarter of the scale between its channels: a photograph in colour, a heat map, a rendering.

    Parameters
    ----------
    samples : ndarray of uint8 or uint16, shape (H, W, 3)

    Raises
    ------
    RadiographRefused
        ``not_radiograph``.
    """
    red, green, blue = cv2.split(samples)
    chroma = cv2.subtract(cv2.max(cv2.max(red, green), blue), cv2.min(cv2.min(red, green), blue))
    coloured = float((chroma > CHROMA_LIMIT * full_scale(samples)).mean())
    if coloured > COLOURED_SHARE:
        raise refusal(Reason.NOT_RADIOGRAPH, f"{coloured:.0%} of the image is strongly coloured: wanted a grey image")
    return cv2.cvtColor(samples, cv2.COLOR_RGB2GRAY)


def check_contrast(samples: Grey, kind: str) -> None:
    """Refuse a blank image, and an image of a few flat levels.

    Parameters
    ----------
    samples : ndarray of uint8 or float32, shape (H, W)
        Of 255, or in [0, 1].
    kind : str
        The reader's name. A picture file of zeros alone is an empty mask, as archives that hold images
        beside their masks have by the hundred; a DICOM image of zeros is a failed exposure.

    Raises
    ------
    RadiographRefused
        ``no_contrast`` for a constant image, or a few levels that lie together; ``not_radiograph`` for a few levels
        that lie apart, as in a mask, a label map or a 1-bit scan.
    """
    # A coarse sample settles it for every real image without sorting millions of values.
    if np.unique(samples[::16, ::16]).size >= MIN_LEVELS:
        return
    levels = np.unique(unit(samples))
    if levels.size >= MIN_LEVELS:
        return
    if kind != "dicom" and levels[-1] == 0:
        raise refusal(Reason.NOT_RADIOGRAPH, "every pixel is 0: an empty mask, wanted an image")
    # A label map counts from 0; noise on a blank image lies around its base.
    if levels.size == 1 or (levels[0] > 0 and levels[-1] - levels[0] < BLANK_SPAN):
        raise refusal(Reason.NO_CONTRAST, f"a blank image: {levels.size} grey level(s), side by side")
    raise refusal(Reason.NOT_RADIOGRAPH, f"{levels.size} grey levels: a mask or drawing, wanted an image")
