"""A comparison with readers as one screen of text."""

from __future__ import annotations

from covseg.data.scores import ALL, MODEL, PRESENT
from covseg.evaluation.external.agreement import CORRELATIONS, YES_NO
from covseg.evaluation.external.records import Agreement, ExternalEvaluation, ScoreFacts
from covseg.metrics.intervals import short

IMAGE_LEVEL = ("auroc", "sensitivity", "specificity")
LIMITS_OF_AGREEMENT = "limit_low", "limit_high"
HEADS = {
    "pearson_r": "Pearson r", "spearman_r": "Spearman r", "bias": "bias", "mae": "mean abs. error", "auroc": "AUROC",
    "sensitivity": "sensitivity", "specificity": "specificity", "agreement": "equal answers", "kappa": "kappa",
}  # fmt: skip


def metrics(score: str) -> tuple[str, ...]:
    """Return the measures of a score in the order of the columns, the limits of agreement apart."""
    return (*IMAGE_LEVEL, *YES_NO) if score == PRESENT else (*CORRELATIONS, "bias", "mae")


def digits(metric: str, score: str) -> int:
    """Return how many decimals a number has on the screen and the page: two where it is in steps of a score."""
    return 2 if metric in ("bias", "mae", *LIMITS_OF_AGREEMENT) and score != "fraction" else 3


def pair_name(score: ScoreFacts, reader: str, found: str) -> str:
    """Name who is compared with whom: ``covseg - A``, or of several columns of ours the column."""
    one = MODEL if len(score.ours) == 1 and found in score.ours else found
    return f"{one} - {reader}"


def screen(evaluation: ExternalEvaluation) -> list[str]:
    """Lay the comparison of all images on one screen; strata, and the limits' intervals, are on the page."""
    data = evaluation.data
    counts = ", ".join(f"{name} {count}" for name, count in data.counts.items() if name != ALL)
    lines = [
        f"{evaluation.model.id} on {data.name}: {data.images} images" + (f" ({counts})" if counts else ""),
        f"scored by: {', '.join(f'{name} {count}' for name, count in data.readers.items())}",
        f"refused {data.refused_count}; no lung found {data.no_lung}",
        *(f"WARNING  {warning}" for warning in evaluation.warnings),
    ]
    for score in evaluation.scores:
        lines += _score(evaluation, score)
    return lines


def _score(evaluation: ExternalEvaluation, score: ScoreFacts) -> list[str]:
    pairs = evaluation.pairs(ALL, score.name)
    between = [pair for pair in pairs if pair[1] not in score.ours]
    apart = score.name == PRESENT  # readers have other measures there
    tables = [[pair for pair in pairs if pair not in between], between] if apart else [pairs]
    rows = [row for chosen in tables if chosen for row in _table(evaluation, score, chosen)]
    return ["", f"{score.name}: {score.words}; beside {', '.join(score.ours)}", *rows]


def _table(evaluation: ExternalEvaluation, score: ScoreFacts, pairs: list[tuple[str, str]]) -> list[str]:
    lines = [line for line in evaluation.lines if line.score == score.name]
    measured = {line.metric for line in lines if (line.reader, line.found) in pairs}
    shown = [metric for metric in metrics(score.name) if metric in measured]
    rows = [["", "n", *(HEADS[metric] for metric in shown), "95 % limits" if "bias" in shown else ""]]
    for reader, found in pairs:
        named = {metric: evaluation.line(ALL, score.name, reader, found, metric) for metric in measured}
        n = max(line.n for line in named.values() if line)
        low, high = (named.get(metric) for metric in LIMITS_OF_AGREEMENT)
        limits = f"{_value(low)} to {_value(high)}" if low and high else ""
        rows.append([pair_name(score, reader, found), str(n), *(cell(named[metric]) for metric in shown), limits])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _value(line: Agreement) -> str:
    return short(line.value, digits(line.metric, line.score))


def cell(line: Agreement | None) -> str:
    """Write a number with its interval; a dash where there is none, nothing where it is not measured."""
    if line is None:
        return ""
    if not line.known:
        return "-"
    low, high = (short(end, digits(line.metric, line.score)) for end in (line.low, line.high))
    return f"{_value(line)} [{low}, {high}]"
