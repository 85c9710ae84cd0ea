"""Masks, overlays and probabilities of one image as bytes; each says what it may be used for.

Masks and probabilities are PNG at the image's own size. An overlay is for looking at: a JPEG of bounded size costs a
fifteenth of a PNG at 1024 pixels (WebP more than either).
"""

from __future__ import annotations

import zlib
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from covseg.records import RESEARCH_ONLY, Grey, Mask, Masks, Prediction, as_bytes
from covseg.stages.label_png import label_png

OVERLAY_SIDE = 1024  # longer side at most, pixels


def _text_chunk(keyword: str, text: str) -> bytes:
    content = b"tEXt" + keyword.encode("latin-1") + b"\0" + text.encode("latin-1")
    return (len(content) - 4).to_bytes(4, "big") + content + zlib.crc32(content).to_bytes(4, "big")


_HEAD = 33  # bytes of a PNG's signature and its IHDR chunk, behind which other chunks may stand
_LABEL = _text_chunk("Disclaimer", RESEARCH_ONLY)  # one of the keywords that the PNG specification names
_COMMENT = b"\xff\xfe" + (len(RESEARCH_ONLY) + 2).to_bytes(2, "big") + RESEARCH_ONLY.encode()  # of a JPEG


def _labelled(png: bytes) -> bytes:
    return png[:_HEAD] + _LABEL + png[_HEAD:]


class Outlined(Protocol):
    """What has a lung and an infection, uint8 ``(H, W)``, 0 or 1."""

    @property
    def lung(self) -> Mask: ...  # noqa: D102
    @property
    def infection(self) -> Mask: ...  # noqa: D102


def overlay(samples: Grey, masks: Outlined, longest: int | None = None) -> NDArray[np.uint8]:
    """Draw lung (cyan) and infection (orange) contours on the image; BGR uint8 ``(H, W, 3)``.

    Parameters
    ----------
    samples : ndarray of uint8 or float32, shape (H, W)
    masks : Masks, or whatever has the two
        Of the same size.
    longest : int or None
        A larger image is shrunk to that many pixels on its longer side.
    """
    grey, lung, infection = as_bytes(samples), masks.lung, masks.infection
    scale = 1.0 if longest is None else longest / max(grey.shape)
    if scale < 1:
        width, height = (max(1, round(side * scale)) for side in reversed(grey.shape))
        grey, lung, infection = (
            cv2.resize(plane, (width, height), interpolation=how)
            for plane, how in ((grey, cv2.INTER_AREA), (lung, cv2.INTER_NEAREST), (infection, cv2.INTER_NEAREST))
        )
    canvas = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
    thickness = max(1, round(max(grey.shape) / 512))
    for mask, colour in ((lung, (255, 255, 0)), (infection, (0, 140, 255))):
        contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(canvas, contours, -1, colour, thickness, cv2.LINE_AA)
    return np.asarray(canvas, np.uint8)


def overlay_jpeg(samples: Grey, masks: Outlined) -> bytes:
    """Return an overlay of at most `OVERLAY_SIDE` pixels a side as a JPEG."""
    drawn = overlay(samples, masks, OVERLAY_SIDE)
    data = cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
    return data[:2] + _COMMENT + data[2:]


def overlay_png(samples: Grey, masks: Masks) -> bytes:
    """Return an overlay as a PNG at source size."""
    return png(overlay(samples, masks))


def mask_png(masks: Masks) -> bytes:
    """Return the label map as a PNG at source size."""
    return _labelled(label_png(masks.label_map))


def probability_png(prediction: Prediction, height: int, width: int) -> bytes:
    """Return the infection probability as an 8-bit PNG at source size, 255 = 1.0."""
    probability = cv2.resize(prediction.infection, (width, height), interpolation=cv2.INTER_LINEAR)
    return png(np.rint(probability * 255).astype(np.uint8))


def png(image: NDArray[np.uint8]) -> bytes:
    """Return a PNG, lightly compressed."""
    return _labelled(cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes())
