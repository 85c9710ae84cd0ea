"""Small pictures for the report: film, contours, probability; the worst and a random sample.

A `Gallery` sees every scored film once and keeps a bounded number of them, so memory does not grow
with the archive; which it keeps depends on the films alone, not on their order.
"""

from __future__ import annotations

import base64
import hashlib
import heapq
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from covseg.records import Masks

THUMBNAIL = 224  # longer side, pixels


@dataclass(frozen=True)
class Picture:
    """What the report shows of one film.

    Parameters
    ----------
    input_id : str
    width, height : int
        Of the thumbnail, pixels.
    film, probability : str
        ``data:`` URIs; probability may be empty.
    lung, infection : str
        SVG path data in thumbnail pixels.
    """

    input_id: str
    width: int
    height: int
    film: str
    probability: str
    lung: str
    infection: str


def picture(
    input_id: str, pixels: NDArray[np.float32], masks: Masks, probability: NDArray[np.float32] | None
) -> Picture:
    """Shrink a film, its masks and its infection probability to one `Picture`."""
    scale = THUMBNAIL / max(pixels.shape)
    height, width = (max(1, round(side * scale)) for side in pixels.shape)
    film = cv2.resize((pixels * 255).astype(np.uint8), (width, height), interpolation=cv2.INTER_AREA)
    heat = "" if probability is None else _heat(probability, height, width)
    lung, infection = (_path(mask, height, width) for mask in (masks.lung, masks.infection))
    return Picture(input_id, width, height, _uri(".jpg", film, "image/jpeg"), heat, lung, infection)


def _heat(probability: NDArray[np.float32], height: int, width: int) -> str:
    small = cv2.resize((probability * 255).astype(np.uint8), (width, height), interpolation=cv2.INTER_LINEAR)
    return _uri(".png", small // 8 * 8, "image/png")


def _uri(suffix: str, image: NDArray[np.uint8], mime: str) -> str:
    _, data = cv2.imencode(suffix, image)
    return f"data:{mime};base64,{base64.b64encode(data.tobytes()).decode()}"


def _path(mask: NDArray[np.uint8], height: int, width: int) -> str:
    small = cv2.resize(mask * 255, (width, height), interpolation=cv2.INTER_AREA)
    contours, _ = cv2.findContours((small > 127).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    return " ".join("M" + "L".join(f"{x} {y}" for x, y in contour[:, 0]) + "Z" for contour in contours if len(contour) > 2)


class Gallery:
    """Keeps the `worst` films by infected fraction and a random `sample` by hash of the id."""

    def __init__(self, worst: int = 400, sample: int = 100) -> None:
        self._limits = {"worst": worst, "sample": sample}
        self._kept: dict[str, list[tuple[float, str]]] = {"worst": [], "sample": []}
        self._pictures: dict[str, Picture] = {}

    def offer(
        self,
        input_id: str,
        infected_fraction: float | None,
        pixels: NDArray[np.float32],
        masks: Masks,
        probability: NDArray[np.float32] | None,
    ) -> None:
        """Show one film to the gallery; it is drawn only when it is kept."""
        chance = int(hashlib.sha256(input_id.encode()).hexdigest()[:8], 16)
        ranks = {"worst": -1.0 if infected_fraction is None else infected_fraction, "sample": -float(chance)}
        if any([self._push(shelf, (rank, input_id)) for shelf, rank in ranks.items()]):
            self._pictures[input_id] = picture(input_id, pixels, masks, probability)
            self._forget()

    def _push(self, shelf: str, item: tuple[float, str]) -> bool:
        heap = self._kept[shelf]
        if len(heap) < self._limits[shelf]:
            heapq.heappush(heap, item)
            return True
        return bool(heap) and heapq.heappushpop(heap, item) != item

    def _forget(self) -> None:
        if len(self._pictures) > 2 * sum(self._limits.values()):
            self._pictures = {one.input_id: one for one in self.pictures()}

    def pictures(self) -> list[Picture]:
        """Return the kept pictures, worst first, then the sample."""
        worst = [name for _, name in sorted(self._kept["worst"], key=lambda item: (-item[0], item[1]))]
        sample = sorted(name for _, name in self._kept["sample"])
        return [self._pictures[name] for name in dict.fromkeys(worst + sample)]
