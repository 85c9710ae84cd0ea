"""The worst films of an evaluation as numbers: what a model card may show of them.

In: the cases of an evaluation. Out: the films that its page draws as worst or with missed small lesions,
named by their row in ``cases.parquet`` alone: a file name can name a patient, a picture shows one.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from covseg.evaluation.examples import MISSED, dice_of, grade_of, shelves_of
from covseg.metrics.image_results import Case, Cases
from covseg.stages.severity import GRADES

WORST = "worst"


@dataclass(frozen=True)
class Failure:
    """One film that went wrong.

    Parameters
    ----------
    shelf : str
        ``worst``, or `MISSED`.
    stratum, grade : str
        The grade is of the true infected fraction.
    row : int
        In ``cases.parquet``, counted from 0.
    dice : float or None
        None where truth and prediction are empty.
    truth, predicted : float
        Infected share of the film.
    small_lesions, small_missed : int
        Small connected parts of truth, and those without one predicted pixel.
    """

    shelf: str
    stratum: str
    grade: str
    row: int
    dice: float | None
    truth: float
    predicted: float
    small_lesions: int
    small_missed: int


def failures(cases: Cases) -> list[Failure]:
    """Return the worst films by stratum and true severity, then those with missed small lesions.

    Refused films are not among them, as the page does not draw them; films without an error are not either.
    """
    shelves: dict[tuple[str, str, str], list[tuple[float, str, int, Case]]] = {}
    sizes: dict[tuple[str, str, str], int] = {}
    for row, values in enumerate(cases.to_arrow().to_pylist()):
        case = Case(**values)
        for place, rank, size in shelves_of(case, grade_of(case)):
            if place[2] in (WORST, MISSED) and not case.reason and case.fp + case.fn:
                sizes[place] = size
                shelves.setdefault(place, []).append((rank, case.key, row, case))
    grades = {name: number for number, name in enumerate(GRADES)}
    order = sorted(shelves, key=lambda place: (place[2] == MISSED, place[0], grades.get(place[1], -1)))
    return [
        _failure(place[2], row, case)
        for place in order
        for _, _, row, case in heapq.nlargest(sizes[place], shelves[place])
    ]


def _failure(shelf: str, row: int, case: Case) -> Failure:
    area = case.height * case.width
    return Failure(
        shelf, case.stratum, grade_of(case), row, dice_of(case), (case.tp + case.fn) / area,
        (case.tp + case.fp) / area, case.small_lesions, case.small_missed,
    )  # fmt: skip
