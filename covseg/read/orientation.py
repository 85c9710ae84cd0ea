"""EXIF orientation: how a camera or scanner says that its image lies on its side."""

from __future__ import annotations

import numpy as np
from PIL import Image

from covseg.errors import RadiographRefused, Reason
from covseg.read.grey import Samples

_ORIENTATION = 0x0112


def orient(samples: Samples, exif: bytes) -> Samples:
    """Turn an image upright as its EXIF block says; without one it stays as it is.

    Parameters
    ----------
    samples : ndarray, shape (H, W) or (H, W, 3)
    exif : bytes
        The block as it stands in the file; may be empty.

    Returns
    -------
    ndarray
        Shape (W, H) when the image lay on its side.

    Raises
    ------
    RadiographRefused
        ``corrupt`` when there is a block that cannot be read: then up is not known.
    """
    value = _orientation(exif) if exif else 1
    turned = np.swapaxes(samples, 0, 1) if value >= 5 else samples
    if value in (3, 4, 7, 8):
        turned = turned[::-1]
    if value in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    return np.ascontiguousarray(turned)


def _orientation(exif: bytes) -> int:
    block = Image.Exif()
    try:
        block.load(exif)
        value = int(block.get(_ORIENTATION, 1))
    except Exception as error:
        raise RadiographRefused(Reason.CORRUPT, "read", "the EXIF block cannot be read: which side is up?") from error
    return value if 1 <= value <= 8 else 1
