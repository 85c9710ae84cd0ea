"""Small pictures for the report: image, contours, probability; a quota of each group of images.

In: source pixels, masks and the model's probability, one image at a time. Out: at most 500
`Picture` records. A `Gallery` keeps a bounded number of them, so memory does not grow with the
archive; which it keeps depends on the images alone, not on their order. It knows nothing of the page.
"""

from __future__ import annotations

import heapq
import io
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from covseg.pages.drawing import data_uri, jpeg
from covseg.records import Grey, Mask, Masks, Row, as_bytes
from covseg.report.quota import GROUPS, Group

THUMBNAIL = 256  # longer side, pixels: the model's own grid, nothing finer was measured
HEAT = 128  # longer side of the probability layer; the browser smooths it
JPEG_QUALITY = 72
LEVELS = 16  # of probability, so that the layer is a four-bit indexed PNG


@dataclass(frozen=True)
class Picture:
    """What the report shows of one image: a thumbnail and its size in pixels.

    `image` is the ``data:`` URI of a grey JPEG; `probability` that of a PNG whose colour and opacity grow with the
    probability, and may be empty. `lung` and `infection` are SVG path data in thumbnail pixels; empty without lung or
    infection.
    """

    input_id: str
    width: int
    height: int
    image: str
    probability: str
    lung: str
    infection: str


def picture(
    input_id: str,
    samples: Grey,
    lung: Mask,
    infection: Mask,
    probability: NDArray[np.float32] | None = None,
) -> Picture:
    """Shrink an image, its masks and its infection probability to one `Picture`.

    Parameters
    ----------
    samples : ndarray of uint8 or float32, shape (H, W)
        Grey values of 255, or in [0, 1].
    lung, infection : ndarray of uint8, shape (H, W)
        0 or 1; shown as outlines.
    probability : ndarray of float32, shape (S, S), or None
        On the model's grid, which is the image stretched to a square.
    """
    height, width = _fit(samples.shape, THUMBNAIL)
    image = as_bytes(_shrink(samples, height, width))
    # a mask was made on a grid no finer than the thumbnail, so nothing slips through
    small = (cv2.resize(mask, (width, height), interpolation=cv2.INTER_LINEAR) for mask in (lung, infection))
    heat = (
        "" if probability is None else _heat(np.asarray(_shrink(probability, *_fit(samples.shape, HEAT)), np.float32))
    )
    return Picture(input_id, width, height, jpeg(image, JPEG_QUALITY), heat, *map(_path, small))


def _fit(shape: tuple[int, ...], longest: int) -> tuple[int, int]:
    """Return height and width with the longer side at `longest`."""
    scale = longest / max(shape)
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def _shrink(image: Grey, height: int, width: int) -> Grey:
    """Average areas, so that ribs do not alias."""
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def _palette() -> tuple[bytes, bytes]:
    """Colours (RGB) and opacities of the probability levels: clear, yellow, orange, magenta."""
    stops = [0.0, 0.35, 0.65, 1.0]
    level = np.linspace(0, 1, LEVELS)
    colour = [
        np.interp(level, stops, channel) for channel in ([255, 255, 250, 190], [240, 220, 130, 24], [170, 90, 50, 93])
    ]
    opacity = np.interp(level, [0.0, 0.1, 1.0], [0, 0, 205])
    return np.stack(colour, axis=1).round().astype(np.uint8).tobytes(), opacity.round().astype(np.uint8).tobytes()


_COLOURS, _OPACITIES = _palette()


def _heat(probability: NDArray[np.float32]) -> str:
    """Encode as an indexed PNG; Pillow, because OpenCV writes no palette."""
    indices = np.rint(np.clip(probability, 0, 1) * (LEVELS - 1)).astype(np.uint8)
    image = Image.fromarray(indices)
    image.putpalette(_COLOURS)
    sink = io.BytesIO()
    image.save(sink, "PNG", bits=4, transparency=_OPACITIES, compress_level=6)
    return data_uri("png", sink.getvalue())


def _path(mask: Mask) -> str:
    """Trace a mask as closed SVG paths: one absolute start, then relative steps, which are short."""
    contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return "".join(_trace(cv2.approxPolyDP(contour, 0.8, closed=True)[:, 0]) for contour in contours)


def _trace(points: NDArray[np.int32]) -> str:
    """Draw one contour; a single pixel has a length of zero and is drawn as a dot by its round cap."""
    steps = np.diff(points, axis=0).ravel().tolist() or [0, 0]
    return f"M{points[0][0]} {points[0][1]}l{' '.join(map(str, steps))}z"


class Gallery:
    """Keeps a quota of images of each group, see `covseg.report.quota`."""

    def __init__(self, groups: tuple[Group, ...] = GROUPS) -> None:
        self._groups = groups
        self._kept: dict[str, list[tuple[float, int, str]]] = {group.name: [] for group in groups}
        self._pictures: dict[str, Picture] = {}

    def offer(
        self,
        row: Row,
        samples: Grey,
        masks: Masks | None = None,
        probability: NDArray[np.float32] | None = None,
    ) -> bool:
        """Show one image to the gallery; it is drawn when it is kept, which is told. A refused one has no masks."""
        draw = -int.from_bytes(row.input_id.encode())
        wanted = [group for group in self._groups if group.holds(row)]
        kept = [self._push(group, (round(group.rank(row), 6), draw, row.input_id)) for group in wanted]
        if any(kept):
            empty = np.zeros(samples.shape, np.uint8)
            lung, infection = (masks.lung, masks.infection) if masks else (empty, empty)
            self._pictures[row.input_id] = picture(row.input_id, samples, lung, infection, probability)
            self._forget()
        return any(kept)

    def _push(self, group: Group, item: tuple[float, int, str]) -> bool:
        """Keep an item when it ranks high enough; among equals the lower id stays."""
        heap = self._kept[group.name]
        if len(heap) < group.quota:
            heapq.heappush(heap, item)
            return True
        return bool(heap) and heapq.heappushpop(heap, item) != item

    def _forget(self) -> None:
        if len(self._pictures) > 2 * sum(group.quota for group in self._groups):
            self._pictures = {one.input_id: one for one in self.pictures()}

    def pictures(self) -> list[Picture]:
        """Return the kept pictures, group by group, the highest rank first; ties by id."""
        kept = [sorted(self._kept[group.name], reverse=True) for group in self._groups]
        return [self._pictures[name] for name in dict.fromkeys(name for group in kept for *_, name in group)]
