"""An evaluation as Markdown sections, for a model's card: tables by stratum and convention, and failures.

In: the content of ``metrics.json``, and failures by row. Out: lines of Markdown; no picture and no image's name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from covseg.evaluation.document import CASES
from covseg.evaluation.failures import Failure
from covseg.metrics.intervals import short

_OTHERS = ("image level", "lung", "surface", "fraction", "error")  # parts beside the overlap of infection masks


def results(content: dict[str, Any]) -> list[str]:
    """Return the tables of one evaluation, every number with its interval and n."""
    data, said = content["data"], content["conventions"]
    headline = [(name, interval(one), one["n"]) for name, one in content["headline"].items()]
    averaged = f"Averaged over: {said['reduction']}. 0/0: {said['empty']}. Refused images: {said['refused']}."
    return [
        f"## Results on {plain(data['set'])}, split {plain(data['split'])}", "", _judged(content), "",
        *table(("headline", "value", "n"), headline), "",
        *(f"- {plain(warning)}" for warning in content["warnings"]), "",
        "### Infection masks, every convention", "", f"{averaged} Negatives: {said['negatives']}.", "",
        *table(("images", "averaged over", "0/0 is", "Dice", "IoU", "n"), _overlap(content["lines"])), "",
        "### Image level, lung, boundaries, fraction, errors", "",
        *table(("images", "measure", "value", "n"), _others(content["lines"])),
    ]  # fmt: skip


def gallery(split: str, found: list[Failure], cases_sha256: str) -> list[str]:
    """Return the failures as numbers, named by their row.

    Parameters
    ----------
    split : str
    found : list of Failure
    cases_sha256 : str
        Of the ``cases.parquet`` that the rows are of.
    """
    head = ("group", "images", "true grade", "row", "Dice", "truth, of image", "predicted", "small lesions missed")
    said = (
        "The worst images by stratum and true severity, and those with the most missed small lesions. A row is one of "
        f"`{CASES}` (sha256 `{cases_sha256}`), counted from 0; `evaluation.html` beside it shows the pictures. Both "
        f"stay with the images; `covseg evaluate MODEL --data ROOT --split {plain(split)}` makes them again."
    )
    listed = table(head, map(_failure, found)) if found else ["None: no scored image has a wrong pixel."]
    return ["## Failure gallery", "", said, "", *listed]


def table(head: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> list[str]:
    r"""Return a Markdown table; no cell can break out of it.

    Examples
    --------
    >>> table(("a", "b"), [(1, "x|y")])
    ['| a | b |', '| --- | --- |', '| 1 | x\\|y |']
    """
    lines = [head, ("---",) * len(head), *rows]
    return ["| " + " | ".join(plain(cell).replace("|", "\\|") for cell in line) + " |" for line in lines]


def plain(value: Any) -> str:
    """Return text on one line that no Markdown reader takes for HTML."""
    return " ".join(str(value).split()).replace("<", "&lt;")


def interval(estimate: dict[str, Any]) -> str:
    """Write an estimate of ``metrics.json``: value and interval."""
    value, low, high = (
        short(float("nan") if estimate[name] is None else float(estimate[name])) for name in ("value", "low", "high")
    )
    return f"{value} [{low}, {high}]"


def _judged(content: dict[str, Any]) -> str:
    """Say which images were judged, and which were not."""
    data = content["data"]
    counts = ", ".join(f"{name} {count or 'absent'}" for name, count in data["counts"].items())
    refused = {
        f"{stratum} {reason}": count for stratum, one in data["refused"].items() for reason, count in one.items()
    }
    return (
        f"{data['films']} images ({plain(counts)}), listing `{data['digest']}`. Lung mask: {content['lung_mask']}. "
        f"Refused: {_counted(refused)}. Left out, because their truth cannot be believed: "
        f"{_counted(data['excluded_counts'])}. In brackets: {content['conventions']['interval']}."
    )


def _counted(counts: dict[str, int]) -> str:
    return plain(", ".join(f"{name} {count}" for name, count in counts.items())) or "none"


def _overlap(lines: list[dict[str, Any]]) -> Iterator[tuple[Any, ...]]:
    """Yield one row per stratum and convention; Dice and IoU are 0/0 on the same images."""
    by_key = {
        (line["stratum"], line["reduction"], line["empty"], line["metric"]): line
        for line in lines
        if line["part"] == "infection"
    }
    for (stratum, reduction, empty, metric), line in by_key.items():
        if metric == "dice":
            iou = by_key[stratum, reduction, empty, "iou"]
            yield stratum, reduction, empty, interval(line), interval(iou), line["n"]


def _others(lines: list[dict[str, Any]]) -> Iterator[tuple[Any, ...]]:
    """Yield what else was measured, per image; a lung is never empty, so one policy says all."""
    for part in _OTHERS:
        for line in lines:
            per_image = line["reduction"] == "image" and line["empty"] in ("", "one")
            if line["part"] == part and per_image and line["value"] is not None:
                yield line["stratum"], f"{part} {line['metric'].replace('_', ' ')}", interval(line), line["n"]


def _failure(one: Failure) -> tuple[Any, ...]:
    dice = "-" if one.dice is None else short(one.dice)
    missed = f"{one.small_missed} of {one.small_lesions}"
    return one.group, one.stratum, one.grade, one.row, dice, f"{one.truth:.1%}", f"{one.predicted:.1%}", missed
