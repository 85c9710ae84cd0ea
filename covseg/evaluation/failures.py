"""The worst images of an evaluation as numbers: what a model card may show of them.

In: the results of an evaluation. Out: the images that its page draws as worst or with missed small lesions,
named by their row in ``cases.parquet`` alone: a file name can name a patient, a picture shows one.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from covseg.evaluation.examples import MISSED, dice_of, grade_of, groups_of
from covseg.metrics.image_results import ImageResult, ImageResults
from covseg.stages.severity import GRADES

WORST = "worst"


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

    Refused images are not among them, as the page does not draw them; images without an error are not either.
    """
    examples: dict[tuple[str, str, str], list[tuple[float, str, int, ImageResult]]] = {}
    sizes: dict[tuple[str, str, str], int] = {}
    for row, result in enumerate(results):
        for place, rank, size in groups_of(result, grade_of(result)):
            if place[2] in (WORST, MISSED) and not result.reason and result.fp + result.fn:
                sizes[place] = size
                examples.setdefault(place, []).append((rank, result.key, row, result))
    grades = {name: number for number, name in enumerate(GRADES)}
    order = sorted(examples, key=lambda place: (place[2] == MISSED, place[0], grades.get(place[1], -1)))
    return [
        _failure(place[2], row, result)
        for place in order
        for _, _, row, result in heapq.nlargest(sizes[place], examples[place])
    ]


def _failure(group: str, row: int, result: ImageResult) -> Failure:
    area = result.height * result.width
    return Failure(
        group, result.stratum, grade_of(result), row, dice_of(result), (result.tp + result.fn) / area,
        (result.tp + result.fp) / area, result.small_lesions, result.small_missed,
    )  # fmt: skip
