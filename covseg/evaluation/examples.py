"""Single images: best, worst and random ones per stratum and severity, and missed small lesions.

In: a scored image, once. Out: a bounded number of strips of five squares (image, lung, truth, prediction, overlay) for
the evaluation's page; and of its worst images the numbers, without a picture or a name, for a model's card. Which are
kept depends on the images alone, not on their order.
"""

from __future__ import annotations

import hashlib
import heapq
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from covseg.metrics.image_results import ImageResult, ImageResults
from covseg.pages.drawing import jpeg, outline
from covseg.records import Mask, Masks, Truth
from covseg.stages.severity import GRADES, step

SIDE = 132  # pixels of one square
COLUMNS = ("image", "lung", "truth", "prediction", "overlay")
KEEP = {"best": 1, "worst": 2, "random": 1}
KEEP_MISSED = 6
SPARE = KEEP["best"] + KEEP["worst"]  # random ones kept beyond what is shown: so many are the best or worst
ANY, UNKNOWN = "", "unknown"
MISSED = "missed small lesions"
GROUPS = (*KEEP, MISSED)
Place = tuple[str, str, str]  # stratum, grade, group
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
    return GRADES[step(result.fraction_truth)] if np.isfinite(result.fraction_truth) else UNKNOWN


class Examples:
    """Keeps a few images per (stratum, grade, group)."""

    def __init__(self) -> None:
        self._kept: dict[Place, list[tuple[float, str, Strip]]] = {}

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
        """Return the kept strips: by stratum, grade, group; best ranks first; missed small lesions last.

        No image is shown twice in its stratum and severity.
        """
        shown: list[Strip] = []
        for place in sorted(self._kept, key=_order):
            ranked = [strip for *_, strip in sorted(self._kept[place], key=lambda kept: (-kept[0], kept[1]))]
            if place[-1] in KEEP:
                before = {strip.key for strip in shown}
                ranked = [strip for strip in ranked if strip.key not in before][: KEEP[place[-1]]]
            shown += ranked
        return shown


def _order(place: Place) -> tuple[bool, str, int, int]:
    """Sort places by stratum, true severity and group; missed small lesions come last."""
    stratum, grade, group = place
    severity = list(GRADES).index(grade) if grade in GRADES else -1
    return group == MISSED, stratum, severity, GROUPS.index(group)


def groups_of(result: ImageResult, grade: str) -> list[tuple[Place, float, int]]:
    """Return the groups (stratum, grade, group) that may want the image, its rank there, and their size."""
    dice = dice_of(result)
    # on negatives every clean image is as good as the next: rank by the area that was invented
    quality = -float(result.fp) if result.tp + result.fn == 0 else float(dice or 0)
    chance = int(hashlib.sha256(result.key.encode()).hexdigest()[:8], 16)
    ranks = {"best": quality, "worst": -quality, "random": float(chance)}
    place = (result.stratum, grade)
    sizes = KEEP | {"worst": KEEP["worst"] + KEEP["best"], "random": KEEP["random"] + SPARE}
    if not result.fp + result.fn:
        del sizes["worst"]  # an image without an error is none of the worst
    wanted = [((*place, group), ranks[group], size) for group, size in sizes.items()]
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


@dataclass(frozen=True)
class Failure:
    """One image that went wrong, by its row in ``cases.parquet``, counted from 0, and its group, ``worst`` or `MISSED`.

    The grade is of the true infected fraction; `dice` is None where truth and prediction are empty; `truth` and
    `predicted` are infected shares of the image. `small_lesions` are small connected parts of truth, `small_missed`
    those without one predicted pixel.
    """

    group: str
    stratum: str
    grade: str
    row: int
    dice: float | None
    truth: float
    predicted: float
    small_lesions: int
    small_missed: int


def failures(results: ImageResults) -> list[Failure]:
    """Return the worst images by stratum and true severity, then those with missed small lesions.

    They are named by their row alone: a file name can name a patient. Refused images are not among them, as the page
    does not draw them; images without an error are not either.
    """
    examples: dict[Place, list[tuple[float, str, int, ImageResult]]] = {}
    sizes: dict[Place, int] = {}
    for row, result in enumerate(results):
        for place, rank, size in groups_of(result, grade_of(result)):
            if place[2] in ("worst", MISSED) and not result.reason:
                sizes[place] = KEEP.get(place[2], size)
                examples.setdefault(place, []).append((rank, result.key, row, result))
    return [
        _failure(place[2], row, result)
        for place in sorted(examples, key=_order)
        for _, _, row, result in heapq.nlargest(sizes[place], examples[place])
    ]


def _failure(group: str, row: int, result: ImageResult) -> Failure:
    area = result.height * result.width
    return Failure(
        group, result.stratum, grade_of(result), row, dice_of(result), (result.tp + result.fn) / area,
        (result.tp + result.fp) / area, result.small_lesions, result.small_missed,
    )  # fmt: skip
