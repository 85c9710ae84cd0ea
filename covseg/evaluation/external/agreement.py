"""Scores and answers to numbers: covseg against each reader and all together, and reader against reader.

In: a `ScoreSet` and `Answers`. Out: `Agreement` lines with intervals over images, in the order of the tables.
Readers are compared with each other on images that covseg answered, so that both can be laid side by side.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from covseg.data.scores import ALL, MAJORITY, MEAN, PRESENT, ScoreSet, scale_of
from covseg.evaluation.external.answers import Answers, raters
from covseg.evaluation.external.records import Agreement
from covseg.metrics.intervals import DRAWS, Estimate, Floats, Statistic, estimates
from covseg.metrics.measures import AGREEMENT, Measure, Name, agreement, image_level
from covseg.metrics.score_agreement import spearman, yes_no

CORRELATIONS = ("pearson_r", "spearman_r")
DIFFERENCES = ("bias", "limit_low", "limit_high", "mae")
YES_NO = ("agreement", "kappa")
LEAST = 3  # images; two points always correlate


def compare(scores: ScoreSet, answers: Answers, draws: int = DRAWS, seed: int = 0) -> list[Agreement]:
    """Compare every score, stratum by stratum, every image first."""
    named = np.array([image.stratum for image in scores.images.images])
    groups = np.unique(named, return_inverse=True)[1].astype(np.int64)
    strata = {ALL: np.ones(len(named), bool)}
    strata |= {stratum: named == stratum for stratum in scores.images.strata if (named == stratum).any()}
    return [
        _line(name.metric, estimate, stratum=stratum, score=score, reader=reader, found=found)
        for stratum, kept in strata.items()
        for score in scores.scores
        for reader, found, measure in _measures(scores, answers, score, kept, groups)
        for name, estimate in zip(measure.names, _estimates(measure, draws, seed), strict=True)
    ]


def _line(metric: str, estimate: Estimate, **names: str) -> Agreement:
    value, low, high = (round(number, 6) for number in (estimate.value, estimate.low, estimate.high))
    return Agreement(**names, metric=metric, value=value, low=low, high=high, n=estimate.n)


def _estimates(measure: Measure, draws: int, seed: int) -> Iterable[Estimate]:
    if len(measure.groups) < LEAST:
        return [Estimate(np.nan, np.nan, np.nan, int(n)) for n in measure.n]
    return estimates(measure.statistic, measure.groups, measure.n, draws, seed)


def _measures(
    scores: ScoreSet, answers: Answers, score: str, kept: NDArray[np.bool_], groups: NDArray[np.int64]
) -> Iterator[tuple[str, str, Measure]]:
    """Yield reader, what is compared with it, and the measures of a score over the kept images."""
    read = raters(scores, score)
    scale = scale_of(score)
    for reader, values in read.items():
        for ours in scale.ours:
            if score == PRESENT:
                known = kept & ~np.isnan(values)
                chosen = values[known] == 1, answers.marked[known], answers.refused[known]
                for measure in image_level(*chosen, answers.columns[ours][known], groups[known]):
                    yield reader, ours, measure
            else:
                pair = answers.columns[ours], values
                yield reader, ours, _numbers(*pair, kept, groups, scale.same_units)
    answered = kept & ~np.isnan(answers.columns[scale.ours[0]])
    for reader, other in combinations([name for name in read if name not in (MEAN, MAJORITY)], 2):
        if score == PRESENT:
            yield reader, other, _answers(read[other], read[reader], answered, groups)
        else:
            yield reader, other, _numbers(read[other], read[reader], answered, groups, same_units=True)


def _numbers(
    found: Floats, read: Floats, kept: NDArray[np.bool_], groups: NDArray[np.int64], same_units: bool
) -> Measure:
    known = kept & ~np.isnan(found) & ~np.isnan(read)
    found, read = found[known], read[known]
    names = CORRELATIONS + DIFFERENCES * same_units
    order = [(*AGREEMENT, "spearman_r").index(name) for name in names]
    parts = agreement(found, read), spearman(found, read)

    def statistic(weights: Floats) -> Floats:
        return np.concatenate([part(weights) for part in parts], axis=1)[:, order]

    return _measure(names, statistic, groups[known])


def _answers(found: Floats, read: Floats, kept: NDArray[np.bool_], groups: NDArray[np.int64]) -> Measure:
    known = kept & ~np.isnan(found) & ~np.isnan(read)
    return _measure(YES_NO, yes_no(found[known] == 1, read[known] == 1), groups[known])


def _measure(names: tuple[str, ...], statistic: Statistic, groups: NDArray[np.int64]) -> Measure:
    return Measure(tuple(Name("score", name) for name in names), statistic, groups, np.full(len(names), len(groups)))
