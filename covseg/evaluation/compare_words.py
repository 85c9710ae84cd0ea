"""What a comparison is called and came to, in words: names of measures, and one sentence an evaluation."""

from __future__ import annotations

from collections.abc import Sequence

from covseg.evaluation.compare import Contrast
from covseg.metrics.measures import Name
from covseg.metrics.summary import ALL, NEGATIVES

WORDS = {
    Name("infection", "dice", "image", "skip"): "Dice",
    Name("infection", "iou", "image", "skip"): "IoU",
    Name("infection", "dice", "image", "one"): "Dice, empty counts 1",
    Name("infection", "dice", "dataset", "one"): "Dice, all pixels pooled",
    Name("image level", "sensitivity"): "sensitivity: something marked",
    Name("image level", "specificity"): "specificity: nothing marked",
    Name("image level", "auroc"): "AUROC of the probability",
    Name("surface", "nsd"): "boundary agreement (NSD)",
    Name("fraction", "mae"): "error of the fraction",
    Name("fraction", "pearson_r"): "Pearson's r of the fraction",
    Name("lung", "dice", "image", "one"): "lung Dice",
}
LOWER_IS_BETTER = {"mae"}
TOLD = (("infection", "dice", "skip"), ("image level", "sensitivity", ""), ("image level", "specificity", ""))


def words_of(name: Name) -> str:
    """Name a measure as a reader would; one without words by its parts."""
    return WORDS.get(name) or " ".join(filter(None, (name.part, name.metric, name.reduction, name.empty)))


def direction(row: Contrast) -> int:
    """Return 1 where the interval says better than the base, -1 where it says worse, else 0.

    A measure without words here has no known direction.
    """
    gap = row.difference
    if row.name not in WORDS or gap.low <= 0 <= gap.high:
        return 0
    return (1 if gap.value > 0 else -1) * (-1 if row.name.metric in LOWER_IS_BETTER else 1)


def worth_showing(row: Contrast) -> bool:
    """Tell whether a row can say anything: an overlap with nothing is 0 for everybody."""
    return not (row.name.part == "infection" and row.first == row.other == 0)


def verdicts(rows: Sequence[Contrast], base: str) -> list[str]:
    """Return a sentence for each evaluation beside the base: in what it is better, worse, and not to be told apart."""
    return [_verdict(label, rows, base) for label in dict.fromkeys(row.label for row in rows)]


def _verdict(label: str, rows: Sequence[Contrast], base: str) -> str:
    groups: dict[int, list[str]] = {1: [], -1: [], 0: []}
    for row in rows:
        wanted = (row.name.part, row.name.metric, row.name.empty) in TOLD and row.name.reduction == "image"
        if row.label == label and wanted and worth_showing(row) and row.stratum not in (ALL, NEGATIVES):
            what = f"{row.stratum} {words_of(row.name).partition(':')[0]}"
            sign = direction(row)
            groups[sign].append(f"{what} {row.difference.value:+.3f}" if sign else what)
    heads = {1: "better in", -1: "worse in", 0: "no clear difference in"}
    parts = [f"{heads[sign]} {', '.join(found)}" for sign, found in groups.items() if found]
    return f"{label} beside {base}: {'; '.join(parts) or 'nothing to compare'}."
