"""A comparison with readers as one offline HTML page: a pure function of its numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from covseg.data.scores import ALL, PRESENT, ScoreSet, scale_of
from covseg.evaluation.external import text
from covseg.evaluation.external.answers import Answers, raters
from covseg.evaluation.external.records import Agreement, ExternalEvaluation, ScoreFacts
from covseg.evaluation.figures import presence_charts
from covseg.pages import charts
from covseg.pages.environment import render_page

APART = 10  # images listed where covseg and the readers are furthest apart
COLUMNS = {**text.HEADS, "limit_low": "lower limit", "limit_high": "upper limit"}


@dataclass(frozen=True)
class Block:
    """One score on the page: a table by stratum, charts, and the images where it differs most."""

    facts: ScoreFacts
    heads: dict[str, str]
    rows: list[tuple[str, str, list[Agreement | None]]]  # stratum, who against whom, a cell a head
    charts: list[tuple[str, str]]
    apart: list[tuple[str, float, float]]  # key, reader, covseg


def render(evaluation: ExternalEvaluation, scores: ScoreSet, answers: Answers) -> bytes:
    """Return the page."""
    refused = [(key, reason) for key, reason in zip(answers.keys, answers.reasons, strict=True) if reason]
    return render_page(
        "covseg.evaluation",
        "external.html.j2",
        content=evaluation,
        blocks=[_block(evaluation, facts, scores, answers) for facts in evaluation.scores],
        refused=refused,
        digits=text.digits,
        every=ALL,
    )


def _block(evaluation: ExternalEvaluation, facts: ScoreFacts, scores: ScoreSet, answers: Answers) -> Block:
    measured = {line.metric for line in evaluation.lines if line.score == facts.name}
    heads = {metric: words for metric, words in COLUMNS.items() if metric in measured}
    strata = dict.fromkeys(line.stratum for line in evaluation.lines if line.score == facts.name)
    rows = []
    for stratum in strata:
        for pair in evaluation.pairs(stratum, facts.name):
            cells = [evaluation.line(stratum, facts.name, *pair, metric) for metric in heads]
            rows.append((stratum, text.pair_name(facts, *pair), cells))
    return Block(facts, heads, rows, *_pictures(facts.name, scores, answers))


def _pictures(
    score: str, scores: ScoreSet, answers: Answers
) -> tuple[list[tuple[str, str]], list[tuple[str, float, float]]]:
    """Draw covseg against the last of the raters, who is all readers together if there are several."""
    read = raters(scores, score)
    if not read:
        return [], []
    reader, values = list(read.items())[-1]
    scale, drawn, apart = scale_of(score), [], []
    for ours in scale.ours:
        column = answers.columns[ours]
        known = ~np.isnan(values) & ~np.isnan(column)
        scored, found = values[known], column[known]
        if len(scored) < 2:
            continue
        if score == PRESENT:
            if len(set(scored)) == 2:
                drawn += presence_charts(found, scored == 1)
            continue
        title = f"{score} of {reader}"
        plot = charts.scatter(scored, found, title, (f"{score}, {reader}", ours), diagonal=scale.same_units)
        drawn.append((plot, f"Scatter plot of {ours} against {title}"))
        if scale.same_units:
            words = f"mean of covseg and {reader}", f"covseg - {reader}"
            drawn.append((charts.bland_altman(found, scored, f"{score}: agreement", words), "Bland-Altman plot"))
            keys = [key for key, there in zip(answers.keys, known, strict=True) if there]
            worst = np.argsort(-np.abs(found - scored), kind="stable")[:APART]
            apart = [(keys[place], float(scored[place]), float(found[place])) for place in worst]
    return drawn, apart
