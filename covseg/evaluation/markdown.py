"""An evaluation as Markdown sections, for a model's card: tables by stratum and convention, and failures.

In: an `Evaluation`, and failures by row. Out: lines of Markdown; no picture and no image's name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from covseg.evaluation.document import CASES
from covseg.evaluation.examples import Failure
from covseg.evaluation.records import Evaluation, MetricLine
from covseg.metrics.intervals import short

# parts beside the overlap of infection masks, in order
_FIRST = ("image level", "lung", "surface", "fraction", "error")


def results(evaluation: Evaluation) -> list[str]:
    """Return the tables of one evaluation, every number with its interval and n."""
    data, conventions = evaluation.data, evaluation.conventions
    headline = [(name, measured, measured.n) for name, measured in evaluation.headline.items()]
    averaged = (
        f"Averaged over: {conventions['reduction']}. 0/0: {conventions['empty']}. "
        f"Refused images: {conventions['refused']}."
    )
    return [
        f"## Results on {plain(data.name)}, split {plain(data.split)}", "", _images(evaluation), "",
        *table(("headline", "value", "n"), headline), "",
        *(f"- {plain(warning)}" for warning in evaluation.warnings), "",
        "### Infection masks, every convention", "", f"{averaged} Negatives: {conventions['negatives']}.", "",
        *table(("images", "averaged over", "0/0 is", "Dice", "IoU", "n"), _overlap(evaluation)), "",
        "### Image level, lung, boundaries, fraction, errors", "",
        *table(("images", "measure", "value", "n"), _others(evaluation.lines)),
    ]  # fmt: skip


def gallery(split: str, listed: list[Failure], cases_sha256: str) -> list[str]:
    """Return the failures as numbers, named by their row in the ``cases.parquet`` of that digest."""
    head = ("group", "images", "true grade", "row", "Dice", "truth, of image", "predicted", "small lesions missed")
    words = (
        "The worst images by stratum and true severity, and those with the most missed small lesions. A row is one of "
        f"`{CASES}` (sha256 `{cases_sha256}`), counted from 0; `evaluation.html` beside it shows the pictures. Both "
        f"stay with the images; `covseg evaluate MODEL --data ROOT --split {plain(split)}` makes them again."
    )
    rows = table(head, map(_failure, listed)) if listed else ["None: no scored image has a wrong pixel."]
    return ["## Failure gallery", "", words, "", *rows]


def table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> list[str]:
    r"""Return a Markdown table; no cell can break out of it.

    Examples
    --------
    >>> table(("a", "b"), [(1, "x|y")])
    ['| a | b |', '| --- | --- |', '| 1 | x\\|y |']
    """
    lines = [head, ("---",) * len(head), *rows]
    return ["| " + " | ".join(plain(cell).replace("|", "\\|") for cell in line) + " |" for line in lines]


def plain(value: object) -> str:
    """Return text on one line that no Markdown reader takes for HTML."""
    return " ".join(str(value).split()).replace("<", "&lt;")


def _images(evaluation: Evaluation) -> str:
    """Say which images were scored, and which were not."""
    data = evaluation.data
    refused = {
        f"{stratum} {reason}": count for stratum, reasons in data.refused.items() for reason, count in reasons.items()
    }
    return (
        f"{data.images} images ({plain(data.counted)}), listing `{data.digest}`. Lung mask: {evaluation.lung_mask}. "
        f"Refused: {_counted(refused)}. Left out, because their truth cannot be believed: "
        f"{_counted(data.excluded_counts)}. In brackets: {evaluation.conventions['interval']}."
    )


def _counted(counts: dict[str, int]) -> str:
    return plain(", ".join(f"{name} {count}" for name, count in counts.items())) or "none"


def _overlap(evaluation: Evaluation) -> Iterator[tuple[object, ...]]:
    """Yield one row per stratum and convention; Dice and IoU are 0/0 on the same images."""
    for line in evaluation.lines:
        if (line.part, line.metric) == ("infection", "dice"):
            iou = evaluation.line(line.stratum, "infection", "iou", line.reduction, line.empty)
            yield line.stratum, line.reduction, line.empty, line, iou, line.n


def _others(lines: tuple[MetricLine, ...]) -> Iterator[tuple[object, ...]]:
    """Yield what else was measured, per image; a lung is never empty, so one policy says all."""
    for part in dict.fromkeys([*_FIRST, *(line.part for line in lines if line.part != "infection")]):
        for line in lines:
            per_image = line.reduction == "image" and line.empty in ("", "one")
            if line.part == part and per_image and line.known:
                yield line.stratum, f"{part} {line.metric.replace('_', ' ')}", line, line.n


def _failure(failure: Failure) -> tuple[object, ...]:
    dice = "-" if failure.dice is None else short(failure.dice)
    missed = f"{failure.small_missed} of {failure.small_lesions}"
    shares = f"{failure.truth:.1%}", f"{failure.predicted:.1%}"
    return failure.group, failure.stratum, failure.grade, failure.row, dice, *shares, missed
