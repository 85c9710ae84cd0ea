"""Pictures inside a page: ``data:`` URIs, contours."""

from __future__ import annotations

import base64

import cv2
import numpy as np
from numpy.typing import NDArray

from covseg.records import Mask


def data_uri(kind: str, data: bytes) -> str:
    """Return an image's encoded bytes as a ``data:`` URI; `kind` is ``jpeg``, ``png`` or ``svg+xml``."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def jpeg(image: NDArray[np.uint8], quality: int = 82) -> str:
    """Encode a grey or BGR image as a JPEG ``data:`` URI."""
    return data_uri("jpeg", cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes())


def outline(image: NDArray[np.uint8], mask: Mask, colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Draw the contours of a mask ``(H, W)`` on a BGR image of its size, in place, one pixel wide."""
    contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(image, contours, -1, colour, 1, cv2.LINE_AA), np.uint8)
