"""Judge one model on one split and leave ``metrics.json``, ``cases.parquet`` and a page.

The command and the flow call the same entry, `evaluate`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from covseg.data import open_set
from covseg.errors import SetRefused
from covseg.evaluation.cost import cost_of
from covseg.evaluation.document import Identity, document, write
from covseg.evaluation.page import render
from covseg.evaluation.run import evaluate_set, with_lung
from covseg.model_folder import test_uses as ledger
from covseg.model_folder.backends import open_backend
from covseg.pipeline import Pipeline, resolve
from covseg.registry import open_model
from covseg.settings.evaluate import EvaluateSettings


def evaluate(settings: EvaluateSettings, progress: Callable[[int, int], None] = lambda *_: None) -> dict[str, Any]:
    """Judge, write, and return the content of ``metrics.json``.

    Parameters
    ----------
    settings : EvaluateSettings
    progress : callable
        Called with images done and images in all.

    Raises
    ------
    UsageError
        When the split or a stratum does not exist, no image can be judged, or a use of the Test split
        cannot be recorded.
    """
    images = open_set(settings.data, settings.split).select(settings.strata, settings.limit)
    folder = open_model(settings.model)
    if ledger.is_test(images.split):
        ledger.check_writable(folder.path, folder.reference)
    backend = open_backend(folder, settings.backend)
    pipeline = Pipeline(folder.config, resolve(folder, backend, settings.batch))
    total = len(images.images)
    pipeline = with_lung(pipeline, images, settings.lung)
    streams = settings.streams or len(os.sched_getaffinity(0))
    evaluated = evaluate_set(pipeline, backend, images, streams, lambda done: progress(done, total))
    if not len(evaluated.results):
        first = evaluated.excluded[0].detail if evaluated.excluded else "the listing is empty"
        raise SetRefused(f"no image of {settings.data} split {images.split} can be judged; first reason: {first}")
    content = document(evaluated, Identity(pipeline.config, images, settings.lung, cost_of(folder)), settings.draws)
    if ledger.is_test(images.split):
        content["test_use"] = _record(folder.path, content)
    write(settings.output, content, evaluated.results, render(content, evaluated.results, evaluated.examples.strips()))
    return content


def _record(model: Path, content: dict[str, Any]) -> int:
    """Write the use into the ledger before anybody sees a number."""
    return ledger.append(
        model,
        {
            "weights_sha256": content["model"]["weights_sha256"], "config_sha256": content["model"]["config_sha256"],
            "digest": content["data"]["digest"], "counts": content["data"]["counts"], "lung_mask": content["lung_mask"],
            "headline": {name: value["value"] for name, value in content["headline"].items()},
        },
    )  # fmt: skip
