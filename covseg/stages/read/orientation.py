"""EXIF orientation: how a camera or scanner says that its image lies on its side."""

from __future__ import annotations

import struct

import numpy as np

from covseg.errors import Reason
from covseg.stages.read.grey import Samples
from covseg.stages.read.sniff import refusal

_ORIENTATION = 0x0112
_BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}


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
    """Find the orientation tag in the first directory; by hand, as Pillow only warns about a damaged block."""
    tiff = exif.removeprefix(b"Exif\0\0")
    try:
        order = _BYTE_ORDERS[tiff[:4]]
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        fields = [struct.unpack_from(f"{order}HHIH", tiff, start + 2 + 12 * index) for index in range(count)]
    except (KeyError, struct.error) as error:
        raise refusal(Reason.CORRUPT, "the EXIF block cannot be read: which side is up?") from error
    value = next((field[3] for field in fields if field[0] == _ORIENTATION), 1)
    return value if 1 <= value <= 8 else 1
