"""Charts of an evaluation, most telling first: by stratum and severity, then what changes and where it errs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from covseg.evaluation.examples import UNKNOWN, grade_of
from covseg.evaluation.records import DoubtLine, Evaluation, Measured, Robustness, ShiftLine
from covseg.metrics.convention import RATIOS, Empty, ratios
from covseg.metrics.image_level import Booleans, reliability, roc_curve
from covseg.metrics.image_results import ImageResults
from covseg.metrics.intervals import Floats, estimates, weighted_mean
from covseg.pages import charts
from covseg.pages.charts import Dot
from covseg.stages.severity import GRADES

Drawn = tuple[str, str]  # URI, words for those who cannot see it
EVERY = "all with infection"
FLAGGED = 0.5  # share of a shift's images; above it the pipeline says by itself that something is odd


def quality(evaluation: Evaluation, results: ImageResults, infected: dict[str, Measured]) -> list[Drawn]:
    """Draw how well images are marked, and where that fails, as far as these images allow."""
    drawn = []
    if infected[EVERY].known:
        rows = [_dot(f"{words} (n {line.n})", line) for words, line in infected.items()]
        drawn.append((charts.dots(rows, "Dice per image, by true severity", "Dice"), "Dice by stratum and severity"))
    if rows := list(_image_level(evaluation)):
        plot = charts.dots(rows, "Image level: is anything marked?", "share of images")
        drawn.append((plot, "Sensitivity and specificity of each stratum"))
    presence, positive = results.column("presence"), results.positive
    scored = ~np.isnan(presence)
    if positive[scored].any() and not positive[scored].all():
        drawn += reversed(presence_charts(presence[scored], positive[scored]))
    return [*drawn, *_errors(results), *([_doubt(evaluation.doubt)] if evaluation.doubt else [])]


def same_image(found: Robustness) -> list[Drawn]:
    """Draw what shifts and twins cost, what the lungs painted flat leave, and what doubt finds; [] without any."""
    lines = [*found.twins, *(line for line in found.worst_first if not line.by_design)]
    drawn = []
    for name, title in (("covid_dice_lost", "COVID-19 Dice lost"), ("specificity_lost", "Specificity lost")):
        rows = [_lost(line, getattr(line, name)) for line in lines if getattr(line, name).known]
        if rows:
            drawn.append((charts.dots(rows, title, "lost, paired", reference=0.0), f"{title} by each shift"))
    if found.control:
        rows = [_dot(line.words, line.auroc, f"against {line.against}") for line in found.control]
        plot = charts.dots(rows, "The control: what still tells infection", "AUROC", reference=0.5)
        drawn.append((plot, "AUROC with parts of the image painted flat"))
    return drawn


def _doubt(line: DoubtLine) -> Drawn:
    rows = [_dot(f"first {words} by doubt", getattr(line, words)) for words in ("tenth", "fifth", "third")]
    plot = charts.dots(rows, "What doubt finds", "share of the worst tenth of errors")
    return plot, "Share of the worst errors among the first images by doubt"


def infected_dice(results: ImageResults, draws: int = 1000) -> dict[str, Measured]:
    """Return Dice per image with infection: all, then by stratum and true severity; a refused image counts 0."""
    values = ratios(results.counts(), Empty.ZERO, results.refused)[:, list(RATIOS).index("dice")]
    grades = np.array([grade_of(result) for result in results])
    groups = {EVERY: results.positive}
    for stratum in dict.fromkeys(results.strata[results.positive].tolist()):
        for grade in [*GRADES, UNKNOWN]:
            groups[stratum if grade == UNKNOWN else f"{stratum}, {grade}"] = (
                results.positive & (results.strata == stratum) & (grades == grade)
            )
    return {name: _mean(values[kept], draws) for name, kept in groups.items() if name == EVERY or kept.any()}


def _mean(values: Floats, draws: int) -> Measured:
    one_group = np.zeros(len(values), np.int64)
    [found] = estimates(weighted_mean(values[:, None]), one_group, np.array([len(values)]), draws)
    return Measured(**vars(found))


def _dot(words: str, line: Measured, group: str = "") -> Dot:
    return Dot(words, line.value, line.low, line.high, group)


def _image_level(evaluation: Evaluation) -> Iterator[Dot]:
    for stratum in evaluation.data.strata:
        for metric in ("sensitivity", "specificity"):
            line = evaluation.line(stratum, "image level", metric)
            if line and line.known:
                yield Dot(f"{stratum}, {metric} (n {line.n})", line.value, line.low, line.high, metric)


def _lost(line: ShiftLine, lost: Measured) -> Dot:
    group = "flagged on most images" if line.flagged > FLAGGED else "without a flag on most"
    return _dot(f"{line.words}{'' if line.seen else ' *'}", lost, group)


def _errors(results: ImageResults) -> list[Drawn]:
    """Draw the spread of Dice, its fall with lesion size, and the agreement of the fraction."""
    drawn, positive = [], results.positive
    dice = ratios(results.counts(), Empty.ZERO, results.refused)[:, list(RATIOS).index("dice")]
    if positive.any():
        named = {str(name): dice[positive & (results.strata == name)] for name in np.unique(results.strata[positive])}
        drawn.append((charts.histogram(named, "Dice per image, images with infection", "Dice"), "Histogram of Dice"))
        area = (results.column("tp") + results.column("fn")) / (results.column("height") * results.column("width"))
        labels = "true infected share of the image, %", "Dice"
        plot = charts.scatter(100 * area[positive], dice[positive], "Dice against lesion size", labels, log=True)
        drawn.append((plot, "Dice against lesion size"))
    predicted, truth = results.column("fraction"), results.column("fraction_truth")
    known = ~np.isnan(predicted) & ~np.isnan(truth)
    if known.sum() > 1:
        labels = "mean of predicted and true fraction", "predicted - true"
        plot = charts.bland_altman(predicted[known], truth[known], "Infected fraction: agreement", labels)
        drawn.append((plot, "Bland-Altman plot of the infected fraction"))
    return drawn


def presence_charts(presence: Floats, positive: Booleans) -> list[Drawn]:
    """Draw ROC and reliability of the image-level probability; both classes must be there."""
    roc = charts.lines(
        {"image-level probability": roc_curve(presence, positive)}, "ROC: any infection",
        ("1 - specificity", "sensitivity"), diagonal=True,
    )  # fmt: skip
    predicted, observed, _ = map(np.array, zip(*reliability(presence, positive), strict=True))
    bins = charts.lines(
        {"bins of .1": (predicted, observed)}, "Reliability of the probability", ("predicted", "observed"),
        diagonal=True, markers=True,
    )  # fmt: skip
    return [(roc, "ROC curve"), (bins, "Reliability curve")]
