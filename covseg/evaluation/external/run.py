"""Compare one model with readers' scores and leave ``external.json``, ``scores.parquet`` and a page."""

from __future__ import annotations

import os
from collections.abc import Callable

from covseg.data.scores import open_scores
from covseg.errors import SetRefused, UsageError
from covseg.evaluation.external.answers import Answers
from covseg.evaluation.external.document import document, write
from covseg.evaluation.external.page import render
from covseg.evaluation.external.records import ExternalEvaluation
from covseg.evaluation.run import entries_of
from covseg.model_folder.backends import open_backend
from covseg.pipeline import Pipeline, resolve, stream
from covseg.registry import open_model
from covseg.settings.evaluate import EvaluateSettings
from covseg.storage import LocalStore


def evaluate_scores(
    settings: EvaluateSettings, progress: Callable[[int, int], None] = lambda *_: None
) -> ExternalEvaluation:
    """Score every image, compare, write, and return the content of ``external.json``.

    Raises
    ------
    UsageError
        When ``scores.csv`` is wrong, before the first image, or no image gets an answer.
    """
    if settings.lung == "truth":
        raise UsageError(f"--lung truth wants lung masks, and {settings.data} has scores: leave --lung out")
    scores = open_scores(settings.data, settings.split).select(settings.strata, settings.limit)
    folder = open_model(settings.model)
    backend = open_backend(folder, settings.backend)
    pipeline = Pipeline(folder.config, resolve(folder, backend, settings.batch))
    streams = settings.streams or len(os.sched_getaffinity(0))
    source, total, rows = LocalStore(scores.images.root), len(scores.images.images), []
    for row in stream(pipeline, backend, source, entries_of(scores.images), streams, lambda result: result.row):
        rows.append(row)
        progress(len(rows), total)
    answers = Answers(rows)
    if answers.refused.all():
        raise SetRefused(f"all {total} images of {settings.data} were refused; the first: {rows[0].detail}")
    evaluation = document(scores, answers, pipeline.config, settings.draws)
    write(settings.output, evaluation, scores, answers, render(evaluation, scores, answers))
    return evaluation
