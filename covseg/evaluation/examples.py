"""Pictures of single films: best, worst and random ones per stratum and severity, and missed small lesions.

In: a judged film, once. Out: a bounded number of strips of five squares (film, lung, truth,
prediction, overlay). Which are kept depends on the films alone, not on their order.
"""

from __future__ import annotations

import hashlib
import heapq
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from covseg.metrics.image_results import Case
from covseg.pages.drawing import jpeg
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
    """One kept film.

    Parameters
    ----------
    stratum, grade, shelf : str
        Where it is shown; the grade is of the true fraction.
    key : str
    dice : float or None
        None where truth and prediction are empty.
    note : str
        Areas in words.
    uri : str
        ``data:`` URI of the five squares side by side.
    """

    stratum: str
    grade: str
    shelf: str
    key: str
    dice: float | None
    note: str
    uri: str


def dice_of(case: Case) -> float | None:
    """Return the film's Dice; None where both masks are empty."""
    total = 2 * case.tp + case.fp + case.fn
    return 2 * case.tp / total if total else None


def grade_of(case: Case) -> str:
    """Name the severity bin of the truth."""
    return GRADES[step(case.fraction_truth)] if np.isfinite(case.fraction_truth) else "unknown"


class Shelves:
    """Keeps a few films per (stratum, grade, shelf)."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str, str], list[tuple[float, str, Strip]]] = {}

    def offer(self, case: Case, pixels: NDArray[np.float32], masks: Masks, truth: Truth) -> None:
        """Show one film; it is drawn only when a shelf keeps it."""
        grade, drawn = grade_of(case), None
        for (stratum, bin_, shelf), rank, size in shelves_of(case, grade):
            heap = self._kept.setdefault((stratum, bin_, shelf), [])
            if len(heap) == size and (rank, case.key) <= heap[0][:2]:
                continue
            drawn = drawn or draw(pixels, masks, truth)
            strip = Strip(case.stratum, grade, shelf, case.key, dice_of(case), _note(case), drawn)
            (heapq.heappush if len(heap) < size else heapq.heappushpop)(heap, (rank, case.key, strip))

    def strips(self) -> list[Strip]:
        """Return the kept strips: by stratum, grade, shelf; best ranks first; missed small lesions last."""
        order = {name: number for number, name in enumerate([*KEEP, MISSED])}
        grades = {name: number for number, name in enumerate(GRADES)}
        rows = [
            ((shelf == MISSED, stratum, grades.get(grade, -1), order[shelf], -rank, key), strip)
            for (stratum, grade, shelf), heap in self._kept.items()
            for rank, key, strip in heap
        ]
        return [strip for _, strip in sorted(rows, key=lambda row: row[0])]


def shelves_of(case: Case, grade: str) -> list[tuple[tuple[str, str, str], float, int]]:
    """Return the shelves (stratum, grade, shelf) that may want the film, its rank there, and their size."""
    dice = dice_of(case)
    # on negatives every clean film is as good as the next: rank by the area that was invented
    quality = -float(case.fp) if case.tp + case.fn == 0 else float(dice or 0)
    chance = int(hashlib.sha256(case.key.encode()).hexdigest()[:8], 16)
    ranks = {"best": quality, "worst": -quality, "random": float(chance)}
    place = (case.stratum, grade)
    wanted = [((*place, shelf), ranks[shelf], size) for shelf, size in KEEP.items()]
    if case.small_missed:
        wanted.append(((ANY, ANY, MISSED), float(case.small_missed), KEEP_MISSED))
    return wanted


def _note(case: Case) -> str:
    area = case.height * case.width
    true, guess = (100 * (case.tp + part) / area for part in (case.fn, case.fp))
    return f"truth {true:.1f} % of the film, prediction {guess:.1f} %"


def draw(pixels: NDArray[np.float32], masks: Masks, truth: Truth) -> str:
    """Draw the five squares side by side; a JPEG ``data:`` URI."""
    grey = cv2.resize((pixels * 255).astype(np.uint8), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    film = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
    guess, real, lung = (_small(mask) for mask in (masks.infection, truth.infection, masks.lung))
    true_lung = None if truth.lung is None else _small(truth.lung)
    squares = [
        film,
        _outline(_tint(film, lung, LUNG), true_lung),
        _tint(film, real, INK),
        _tint(film, guess, INK),
        _tint(_tint(_tint(film, guess & real, RIGHT), guess & (1 - real), FALSE), real & (1 - guess), LOST),
    ]
    return jpeg(np.concatenate(squares, axis=1))


def _small(mask: Mask) -> Mask:
    return (cv2.resize(mask * 255, (SIDE, SIDE), interpolation=cv2.INTER_AREA) > 127).astype(np.uint8)


def _tint(film: NDArray[np.uint8], mask: Mask, colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    mixed = film.copy()
    mixed[mask > 0] = (film[mask > 0] * 0.55 + np.array(colour) * 0.45).astype(np.uint8)
    return mixed


def _outline(film: NDArray[np.uint8], mask: Mask | None) -> NDArray[np.uint8]:
    if mask is None:
        return film
    contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(film, contours, -1, (255, 255, 255), 1, cv2.LINE_AA), np.uint8)
