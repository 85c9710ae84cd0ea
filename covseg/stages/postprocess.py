"""Probabilities to clean masks at model geometry, and back to the source size once.

In: a `Prediction` and the model's thresholds. Out: `Masks`. Holes are filled and small parts
dropped on the model grid (at 1024 x 1024 that would cost a fifth of the model); the cleaned masks
are then restored to the source size by one linear resize. It knows nothing of scores.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from covseg.records import LEFT, RIGHT, Mask, Masks, Prediction
from covseg.settings.model import Thresholds

if TYPE_CHECKING:
    from cv2.typing import MatLike

LUNG_PART_MINIMUM = 0.005  # of the grid; smaller parts of a lung mask are specks
STRAY = 0.2  # of the largest part; a second one that is smaller is no lung beside two that touch
MERGED_SPAN = 0.5  # of the grid's width; one component wider than this is two lungs that touch


def postprocess(prediction: Prediction, thresholds: Thresholds) -> Masks:
    """Threshold, clean and split into right and left, on the model grid.

    Returns
    -------
    Masks
        At model geometry. No lung found gives all-zero masks, never an error.
    """
    lung, side, merged = clean_lung((prediction.lung >= thresholds.lung).astype(np.uint8))
    raw = (prediction.infection >= thresholds.infection).astype(np.uint8)
    if prediction.presence < thresholds.presence:
        raw[:] = 0
    raw = _drop_small(raw, thresholds.min_component_share * raw.size)
    total = cv2.countNonZero(raw)
    if total < thresholds.min_infection_share * raw.size:
        raw[:], total = 0, 0
    infection = raw & lung
    outside = (total - cv2.countNonZero(infection)) / total if total else 0.0
    return Masks(lung, infection, side, merged, outside, *_components(infection))


def raw_presence(thresholds: Thresholds) -> float:
    """Bring an image-level threshold from the tempered scale back to the network's own."""
    if not thresholds.presence or thresholds.presence_temperature == 1:
        return thresholds.presence
    return temper(thresholds.presence, 1 / thresholds.presence_temperature)


def temper(probability: float, temperature: float) -> float:
    """Divide a probability's logit by a temperature (Guo et al. 2017, arXiv:1706.04599); 1 changes nothing.

    Examples
    --------
    >>> temper(0.9, 1.0), round(temper(0.9, 2.0), 6)
    (0.9, 0.75)
    """
    if temperature == 1:
        return probability
    clipped = min(max(probability, 1e-7), 1 - 1e-7)
    return 1 / (1 + ((1 - clipped) / clipped) ** (1 / temperature))


def _components(infection: Mask) -> tuple[int, float | None]:
    """Count 8-connected parts and give the share of the largest."""
    left, top, width, height = cv2.boundingRect(infection)
    if not width:
        return 0, None
    _, areas = _parts(infection[top : top + height, left : left + width])
    return len(areas) - 1, float(areas[1:].max() / areas[1:].sum())


def _parts(mask: Mask) -> tuple[NDArray[np.uint16], NDArray[np.int32]]:
    """Return the number of each pixel's 8-connected part, 0 for the background, and the pixels of each number."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(np.ascontiguousarray(mask), connectivity=8, ltype=cv2.CV_16U)
    return np.asarray(parts, np.uint16), np.asarray(stats[:, cv2.CC_STAT_AREA], np.int32)


def clean_lung(raw: Mask) -> tuple[Mask, Mask, bool]:
    """Fill holes, keep the two largest parts, and tell right from left.

    Returns
    -------
    lung : ndarray of uint8, shape (S, S)
    side : ndarray of uint8, shape (S, S)
        1 the patient's right (image left), 2 the left.
    merged : bool
        One part spans both sides and was split at its midline.
    """
    outlines, _ = cv2.findContours(raw, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = [_fill(outline) for outline in outlines]
    least = LUNG_PART_MINIMUM * raw.size
    large = [part for part in filled if part.area >= least]
    kept = sorted(large, key=lambda part: (-part.area, part.top, part.left))[:2]
    side, merged = np.zeros_like(raw), False
    if len(kept) == 2 and kept[0].width > MERGED_SPAN * raw.shape[1] and kept[1].area < STRAY * kept[0].area:
        kept = kept[:1]  # two lungs that touch, and something else
    if len(kept) == 2:
        for part, name in zip(sorted(kept, key=lambda part: part.middle), (RIGHT, LEFT), strict=True):
            part.put(side, name)
    elif kept:
        merged = _split_single(side, kept[0])
    return np.minimum(side, 1), side, merged


class _Part(NamedTuple):
    """One part of a mask without its holes: ``pixels`` of its box, whose top left corner lies at `left`, `top`."""

    pixels: Mask
    left: int
    top: int
    area: int

    @property
    def width(self) -> int:
        return self.pixels.shape[1]

    @property
    def middle(self) -> float:
        """Mean column."""
        return float(self.left + self.pixels.sum(axis=0, dtype=np.int64) @ np.arange(self.width) / self.area)

    def put(self, side: Mask, name: int) -> None:
        height, width = self.pixels.shape
        side[self.top : self.top + height, self.left : self.left + width] += self.pixels * np.uint8(name)


def _fill(outline: MatLike) -> _Part:
    left, top, width, height = cv2.boundingRect(outline)
    pixels = np.zeros((height, width), np.uint8)
    cv2.drawContours(pixels, [outline], 0, 1, cv2.FILLED, offset=(-left, -top))
    return _Part(pixels, left, top, cv2.countNonZero(pixels))


def _split_single(side: Mask, part: _Part) -> bool:
    """Fill `side` for a single part; a wide one is two lungs, a narrow one lies on one side of the image."""
    width = side.shape[1]
    if part.width <= MERGED_SPAN * width:
        part.put(side, RIGHT if part.left + part.width / 2 < width / 2 else LEFT)
        return False
    part.put(side, RIGHT)
    right = side[:, part.left + part.width // 2 :]
    np.multiply(right, LEFT, out=right)
    return True


def _drop_small(mask: Mask, minimum: float) -> Mask:
    """Drop 8-connected parts of fewer than `minimum` pixels."""
    left, top, width, height = cv2.boundingRect(mask)
    if minimum <= 1 or not width:
        return mask
    parts, areas = _parts(mask[top : top + height, left : left + width])
    if areas[1:].min() < minimum:
        keep = (areas >= minimum).astype(np.uint8)
        keep[0] = 0
        mask[top : top + height, left : left + width] = keep[parts]
    return mask


def restore(masks: Masks, height: int, width: int) -> Masks:
    """Bring cleaned masks back to the source size; the identity when it is the model's.

    Edges are placed by linear interpolation of the masks at one half; sides by the nearest pixel.
    """
    if masks.lung.shape == (height, width):
        return masks
    lung, infection = (_restore_binary(mask, height, width) for mask in (masks.lung, masks.infection))
    reach = max(1, math.ceil(masks.side.shape[0] / min(height, width)))
    sides = _nearest(_spread_sides(masks.side, reach), height, width)
    return replace(masks, lung=lung, infection=infection & lung, side=sides * lung)


def _restore_binary(mask: Mask, height: int, width: int) -> Mask:
    if not cv2.countNonZero(mask):
        return np.zeros((height, width), np.uint8)
    large = cv2.resize(mask * 255, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.threshold(large, 127, 1, cv2.THRESH_BINARY, dst=large)[1], np.uint8)


def _nearest(mask: Mask, height: int, width: int) -> Mask:
    """Resize by the nearest pixel: across first, then whole rows are copied, in a third of the time of both at once."""
    rows = np.arange(len(mask), dtype=np.float32)[:, None]
    rows = cv2.resize(rows, (1, height), interpolation=cv2.INTER_NEAREST).ravel().astype(np.intp)
    return np.asarray(cv2.resize(mask, (width, len(mask)), interpolation=cv2.INTER_NEAREST)[rows], np.uint8)


def _spread_sides(side: Mask, reach: int) -> Mask:
    """Grow sides `reach` pixels outwards, so that an interpolated edge pixel always has a side."""
    grown = cv2.dilate(side, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))
    return np.where(side > 0, side, grown).astype(np.uint8)
