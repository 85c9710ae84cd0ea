"""Masks, overlays and probabilities of one image as PNG bytes, at its own size; each says what it may be used for."""

from __future__ import annotations

import zlib

import cv2
import numpy as np
from numpy.typing import NDArray

from covseg.records import RESEARCH_ONLY, Masks, Prediction

FLAT_PNG = [
    cv2.IMWRITE_PNG_COMPRESSION, 1,
    cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE,
    cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE,
]  # fmt: skip


def _text_chunk(keyword: str, text: str) -> bytes:
    content = b"tEXt" + keyword.encode("latin-1") + b"\0" + text.encode("latin-1")
    return (len(content) - 4).to_bytes(4, "big") + content + zlib.crc32(content).to_bytes(4, "big")


_HEAD = 33  # bytes of a PNG's signature and its IHDR chunk, behind which other chunks may stand
_LABEL = _text_chunk("Disclaimer", RESEARCH_ONLY)  # one of the keywords that the PNG specification names


def _encode(image: NDArray[np.uint8], options: list[int]) -> bytes:
    data = cv2.imencode(".png", image, options)[1].tobytes()
    return data[:_HEAD] + _LABEL + data[_HEAD:]


def overlay(pixels: NDArray[np.float32], masks: Masks) -> NDArray[np.uint8]:
    """Draw lung (cyan) and infection (orange) contours on the image; BGR uint8 ``(H, W, 3)``."""
    canvas = cv2.cvtColor((pixels * 255).astype(np.uint8), cv2.COLOR_GRAY2BGR)
    thickness = max(1, round(max(pixels.shape) / 512))
    for mask, colour in ((masks.lung, (255, 255, 0)), (masks.infection, (0, 140, 255))):
        contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(canvas, contours, -1, colour, thickness, cv2.LINE_AA)
    return canvas


def mask_png(masks: Masks) -> bytes:
    """Return the label map as a PNG at source size; runs of equal pixels need no filter and no search."""
    return _encode(masks.label_map, FLAT_PNG)


def probability_png(prediction: Prediction, height: int, width: int) -> bytes:
    """Return the infection probability as an 8-bit PNG at source size, 255 = 1.0."""
    probability = cv2.resize(prediction.infection, (width, height), interpolation=cv2.INTER_LINEAR)
    return png(np.rint(probability * 255).astype(np.uint8))


def png(image: NDArray[np.uint8]) -> bytes:
    """Return a PNG, lightly compressed."""
    return _encode(image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
