"""The images that changed most, drawn from what lies in both destinations: an overlay, or else the mask alone.

In: a `Difference` and its two stores. Out: small pictures side by side. The source is not asked: an image without
overlay is its lungs and its mark on black.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from covseg.difference.records import Changed, Difference
from covseg.pages.drawing import jpeg
from covseg.records import INFECTION
from covseg.storage import Store, entries

DRAWN = 12  # images at most
SIDE = 320  # longer side, pixels
LUNG, MARK = (110, 95, 40), (0, 140, 255)  # BGR, as in an overlay: lungs cyan, the mark orange


@dataclass(frozen=True)
class Pair:
    """An image that changed, as ``data:`` URIs before and after; empty where nothing of it lies there."""

    changed: Changed
    before: str
    after: str


def draw_changed(content: Difference, before: Store, after: Store) -> list[Pair]:
    """Draw the images that changed most; one of which neither side keeps anything is left out."""
    drawn = (
        Pair(one, _picture(before, one.input_id), _picture(after, one.input_id)) for one in content.changed[:DRAWN]
    )
    return [pair for pair in drawn if pair.before or pair.after]


def _picture(store: Store, input_id: str) -> str:
    if not input_id.isalnum():  # of a table that is not ours: no name to ask a store for
        return ""
    for folder in ("overlays/", "masks/"):
        for entry in entries(store, folder + input_id):
            image = cv2.imdecode(np.frombuffer(store.read(entry.key), np.uint8), cv2.IMREAD_COLOR)
            if image is not None:
                return jpeg(_shrunk(np.asarray(image, np.uint8), is_mask=folder == "masks/"))
    return ""


def _shrunk(image: NDArray[np.uint8], *, is_mask: bool) -> NDArray[np.uint8]:
    """Shrink a picture ``(H, W, 3)``; a label map is coloured first, so that its edges are smooth."""
    if is_mask:
        labels, image = image[..., 0], np.zeros_like(image)
        image[labels > 0], image[labels == INFECTION] = LUNG, MARK
    scale = min(1.0, SIDE / max(image.shape[:2]))
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
