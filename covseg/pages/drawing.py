"""Pictures inside a page: ``data:`` URIs."""

from __future__ import annotations

import base64

import cv2
import numpy as np
from numpy.typing import NDArray


def jpeg(image: NDArray[np.uint8]) -> str:
    """Return a ``data:`` URI."""
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 82])
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"


def outline(
    canvas: NDArray[np.uint8], mask: NDArray[np.uint8], colour: tuple[int, int, int], thickness: int = 1
) -> None:
    """Draw the borders of a mask ``(H, W)``, 0 or 1, on a BGR canvas ``(H, W, 3)``, in place; an empty one has none."""
    borders, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, borders, -1, colour, thickness)
