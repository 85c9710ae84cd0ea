"""An evaluation as Markdown sections, for a model's card: tables by stratum and convention, and failures.

In: an `Evaluation`, and failures by row. Out: lines of Markdown; no picture and no image's name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from covseg.evaluation.document import CASES
from covseg.evaluation.examples import Failure
from covseg.evaluation.records import DoubtLine, Evaluation, MetricLine, Robustness, ShiftLine
from covseg.metrics.intervals import short

_COLUMNS = (
    "images", "n", "COVID-19 Dice", "lost", "specificity", "lost", "marked", "lung Dice", "fraction r", "refused",
    "flagged", "mask kept",
)  # fmt: skip
_CHANGED = (
    "Each image as it is and changed, paired; a refused image counts as Dice 0 and as wrong. Mask kept: share of the "
    "unflagged images whose mask agrees with that of the image as it is at Dice .9 or more. A star: training draws "
    "nothing like it."
)
_DOUBT = (
    "Share of the worst tenth of errors (absolute, of the infected fraction) that the first images by `doubt` hold; "
    "chance gives .1, .2 and .333. Beside it, images sorted by the presence's nearness to its threshold alone."
)
_CONTROL = (
    "AUROC of the image-level probability, images with infection against others. With the lungs painted flat there is "
    "nothing to see: .5 is what a model gives that reads the lungs alone."
)
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
        *table(("images", "measure", "value", "n"), _others(evaluation.lines)), "",
        *_doubt([evaluation.doubt, *evaluation.robustness.doubt]),
        *_robustness(evaluation.robustness),
    ]  # fmt: skip


def _doubt(lines: list[DoubtLine | None]) -> Iterator[str]:
    """Yield what doubt finds, a line for the images as they are, the twins and each shift."""
    known = [line for line in lines if line]
    if known:
        yield from ("### Doubt", "", _DOUBT, "")
        rows = ((one.words, one.tenth, one.fifth, one.third, short(one.presence_fifth), one.fifth.n) for one in known)
        yield from table(("images", "first tenth", "first fifth", "first third", "fifth, presence alone", "n"), rows)
        yield ""


def _robustness(found: Robustness) -> Iterator[str]:
    """Yield what twins, shifts and the control showed, the worst shift first."""
    if found.twins or found.shifts:
        yield from ("### The same images, changed", "", f"{_CHANGED}", "")
        yield from table(_COLUMNS, map(_changed, (*found.twins, *found.worst_first)))
        yield ""
    if found.control:
        yield from ("### The control: what is read beside the lungs", "", _CONTROL, "")
        rows = ((line.words, line.against, line.auroc, line.auroc.n) for line in found.control)
        yield from table(("image", "against", "AUROC", "n"), rows)


def _changed(line: ShiftLine) -> tuple[object, ...]:
    words = line.words + ("" if line.seen else " *") + (f", {line.by_design} by design" if line.by_design else "")
    shares = line.marked, line.lung_dice.value, line.fraction_r.value, line.refused, line.flagged, line.kept
    dice = f"{short(line.covid_dice_as_it_is)} to {short(line.covid_dice.value)}"
    specificity = f"{short(line.specificity_as_it_is)} to {short(line.specificity.value)}"
    return words, line.images, dice, line.covid_dice_lost, specificity, line.specificity_lost, *map(short, shares)


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
