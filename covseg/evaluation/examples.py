"""Pictures of single images: best, worst and random ones per stratum and severity, and missed small lesions.

In: a scored image, once. Out: a bounded number of strips of five squares (image, lung, truth,
prediction, overlay). Which are kept depends on the images alone, not on their order.
"""

from __future__ import annotations

import hashlib
import heapq
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from covseg.metrics.image_results import ImageResult
from covseg.pages.drawing import jpeg, outline
from covseg.records import Mask, Masks, Truth
from covseg.stages.severity import GRADES, step

SIDE = 132  # pixels of one square
COLUMNS = ("image", "lung", "truth", "prediction", "overlay")
KEEP = {"best": 1, "worst": 2, "random": 1}
KEEP_MISSED = 6
ANY = ""
MISSED = "missed small lesions"
# BGR; agreement, false infection, missed infection: told apart without red against green
RIGHT, FALSE, LOST, LUNG, INK = (160, 200, 60), (40, 120, 250), (240, 110, 200), (220, 190, 60), (60, 170, 250)


@dataclass(frozen=True)
class Strip:
    """One kept image.

    Parameters
    ----------
    stratum, grade, group : str
        Where it is shown; the grade is of the true fraction.
    dice : float or None
        None where truth and prediction are empty.
    note : str
        Areas in words.
    uri : str
        ``data:`` URI of the five squares side by side.
    """

    stratum: str
    grade: str
    group: str
    key: str
    dice: float | None
    note: str
    uri: str


def dice_of(result: ImageResult) -> float | None:
    """Return the image's Dice; None where both masks are empty."""
    total = 2 * result.tp + result.fp + result.fn
    return 2 * result.tp / total if total else None


def grade_of(result: ImageResult) -> str:
    """Name the severity bin of the truth."""
    return GRADES[step(result.fraction_truth)] if np.isfinite(result.fraction_truth) else "unknown"


class Examples:
    """Keeps a few images per (stratum, grade, group)."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str, str], list[tuple[float, str, Strip]]] = {}

    def offer(self, result: ImageResult, pixels: NDArray[np.float32], masks: Masks, truth: Truth) -> None:
        """Offer an image; it is drawn only when a group keeps it."""
        grade, drawn = grade_of(result), None
        for place, rank, size in groups_of(result, grade):
            heap = self._kept.setdefault(place, [])
            if len(heap) == size and (rank, result.key) <= heap[0][:2]:
                continue
            drawn = drawn or draw(pixels, masks, truth)
            strip = Strip(result.stratum, grade, place[-1], result.key, dice_of(result), _note(result), drawn)
            (heapq.heappush if len(heap) < size else heapq.heappushpop)(heap, (rank, result.key, strip))

    def strips(self) -> list[Strip]:
        """Return the kept strips: by stratum, grade, group; best ranks first; missed small lesions last."""
        order = {name: number for number, name in enumerate([*KEEP, MISSED])}
        grades = {name: number for number, name in enumerate(GRADES)}
        rows = [
            ((group == MISSED, stratum, grades.get(grade, -1), order[group], -rank, key), strip)
            for (stratum, grade, group), heap in self._kept.items()
            for rank, key, strip in heap
        ]
        return [strip for _, strip in sorted(rows, key=lambda row: row[0])]


def groups_of(result: ImageResult, grade: str) -> list[tuple[tuple[str, str, str], float, int]]:
    """Return the groups (stratum, grade, group) that may want the image, its rank there, and their size."""
    dice = dice_of(result)
    # on negatives every clean image is as good as the next: rank by the area that was invented
    quality = -float(result.fp) if result.tp + result.fn == 0 else float(dice or 0)
    chance = int(hashlib.sha256(result.key.encode()).hexdigest()[:8], 16)
    ranks = {"best": quality, "worst": -quality, "random": float(chance)}
    place = (result.stratum, grade)
    wanted = [((*place, group), ranks[group], size) for group, size in KEEP.items()]
    if result.small_missed:
        wanted.append(((ANY, ANY, MISSED), float(result.small_missed), KEEP_MISSED))
    return wanted


def _note(result: ImageResult) -> str:
    area = result.height * result.width
    true, guess = (100 * (result.tp + part) / area for part in (result.fn, result.fp))
    return f"truth {true:.1f} % of the image, prediction {guess:.1f} %"


def draw(pixels: NDArray[np.float32], masks: Masks, truth: Truth) -> str:
    """Draw the five squares side by side; a JPEG ``data:`` URI."""
    grey = cv2.resize((pixels * 255).astype(np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    image = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
    guess, real, lung = (_small(mask) for mask in (masks.infection, truth.infection, masks.lung))
    tinted = _tint(image, lung, LUNG)
    squares = [
        image,
        tinted if truth.lung is None else outline(tinted, _small(truth.lung), (255, 255, 255)),
        _tint(image, real, INK),
        _tint(image, guess, INK),
        _tint(_tint(_tint(image, guess & real, RIGHT), guess & (1 - real), FALSE), real & (1 - guess), LOST),
    ]
    return jpeg(np.concatenate(squares, axis=1))


def _small(mask: Mask) -> Mask:
    return (cv2.resize(mask * 255, (SIDE, SIDE), interpolation=cv2.INTER_AREA) > 127).astype(np.uint8)


def _tint(image: NDArray[np.uint8], mask: Mask, colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    mixed = image.copy()
    mixed[mask > 0] = (image[mask > 0] * 0.55 + np.array(colour) * 0.45).astype(np.uint8)
    return mixed
