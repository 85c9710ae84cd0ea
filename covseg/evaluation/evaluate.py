"""Evaluate one model on one split and leave ``metrics.json``, ``cases.parquet`` and a page.

The command and the flow call the same entry, `evaluate`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from math import prod
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from safetensors import safe_open

from covseg.data import LabelledSet, open_set
from covseg.errors import SetRefused
from covseg.evaluation.conditions import PLAIN, TWIN, controls, of_shift, plain, walk
from covseg.evaluation.document import Identity, document, write
from covseg.evaluation.page import render
from covseg.evaluation.records import Cost, Evaluation, Robustness
from covseg.evaluation.robustness import control_lines, doubt_lines, line, shift_lines
from covseg.evaluation.run import evaluate_set, with_lung
from covseg.evaluation.twins import as_one, of_twins, read_twins, with_twins
from covseg.model_folder import test_uses as ledger
from covseg.model_folder.backends import open_backend
from covseg.model_folder.folder import ModelFolder
from covseg.pipeline import Pipeline, resolve
from covseg.registry import open_model
from covseg.settings.evaluate import EvaluateSettings
from covseg.stages.segment import Backend
from covseg.synthetic.shifts import Shift, chosen

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")  # of batch normalisation: stored, never learnt


def evaluate(settings: EvaluateSettings, progress: Callable[[int, int], None] = lambda *_: None) -> Evaluation:
    """Evaluate, write, and return the content of ``metrics.json``; `progress` hears images done and images in all.

    Raises
    ------
    UsageError
        When the split or a stratum does not exist, no image can be judged, or a use of the Test split
        cannot be recorded.
    """
    dataset = open_set(settings.data, settings.split).select(settings.strata, settings.limit)
    shifts = chosen(settings.shifts)
    twins = read_twins(settings.twins, open_set(settings.data, settings.split)) if settings.twins else {}
    folder = open_model(settings.model)
    if ledger.is_test(dataset.split):
        ledger.check_writable(folder.path, folder.reference)
    backend = open_backend(folder, settings.backend)
    plain_pipeline = Pipeline(folder.config, resolve(folder, backend, settings.batch))
    total = len(dataset.images)
    pipeline = with_lung(plain_pipeline, dataset, settings.lung)
    streams = settings.streams or len(os.sched_getaffinity(0))
    evaluated = evaluate_set(pipeline, backend, dataset, streams, lambda done: progress(done, total))
    if not len(evaluated.results):
        first = evaluated.excluded[0].detail if evaluated.excluded else "the listing is empty"
        raise SetRefused(f"no image of {settings.data} split {dataset.split} can be judged; first reason: {first}")
    evaluation = document(evaluated, Identity(pipeline.config, dataset, settings.lung, _cost(folder)), settings.draws)
    robustness, answers = _robustness(settings, plain_pipeline, backend, dataset, shifts, twins, progress)
    left_out = _left_out(settings, dataset)
    evaluation = evaluation.model_copy(update={"robustness": robustness, "warnings": (*evaluation.warnings, *left_out)})
    if ledger.is_test(dataset.split):
        evaluation = evaluation.model_copy(update={"test_use": _record(folder.path, evaluation)})
    page = render(evaluation, evaluated.results, evaluated.examples.strips())
    write(settings.output, evaluation, evaluated.results, page, answers)
    return evaluation


def _robustness(
    settings: EvaluateSettings,
    pipeline: Pipeline,
    backend: Backend,
    dataset: LabelledSet,
    shifts: dict[str, Shift],
    twins: dict[str, list[Path]],
    progress: Callable[[int, int], None],
) -> tuple[Robustness, pa.Table | None]:
    """Walk the set once more under every condition that is wanted, with the predicted lung; return the rows too."""
    conditions = [of_shift(name, shift) for name, shift in shifts.items()]
    conditions += controls() if settings.control and any(image.lung for image in dataset.images) else []
    found, draws, threshold = Robustness(), settings.draws, pipeline.model.thresholds.presence
    walked: list[pa.Table] = []
    if conditions:
        table = walk(pipeline, backend, dataset, [plain(), *conditions], settings.streams, progress)
        control = control_lines(table, draws) if settings.control else ()
        doubts = doubt_lines(table, {name: shift.words for name, shift in shifts.items()}, threshold, draws)
        found = Robustness(control=control, shifts=shift_lines(table, shifts, draws), doubt=doubts)
        walked += [table.filter(pc.is_in(table.column("condition"), pa.array(shifts)))] if shifts else []
    if twins:
        pairs = with_twins(open_set(settings.data, settings.split), twins)
        every = walk(pipeline, backend, pairs, [plain(), *of_twins(twins)], settings.streams, progress)
        walked.append(every.filter(pc.not_equal(every.column("condition"), PLAIN)))
        table = as_one(every)
        words = f"real size, {settings.twins.parent.name if settings.twins else ''}"
        doubts = (*doubt_lines(table, {TWIN: words}, threshold, draws), *found.doubt)
        found = found.model_copy(update={"twins": (line(table, TWIN, words, draws),), "doubt": doubts})
    return found, pa.concat_tables(walked) if walked else None


def _left_out(settings: EvaluateSettings, dataset: LabelledSet) -> list[str]:
    bare = sum(image.lung is None for image in dataset.images)
    if not settings.control or not bare:
        return []
    return [
        f"the control paints the true lungs: {bare} of {len(dataset.images)} images have none and are left out of it"
    ]


def _record(model: Path, evaluation: Evaluation) -> int:
    """Write the use into the ledger before anybody sees a number."""
    headline = evaluation.model_dump(mode="json", include={"headline"})["headline"]
    return ledger.append(
        model,
        {
            "weights_sha256": evaluation.model.weights_sha256, "config_sha256": evaluation.model.config_sha256,
            "digest": evaluation.data.digest, "counts": evaluation.data.counts, "lung_mask": evaluation.lung_mask,
            "headline": {name: estimate["value"] for name, estimate in headline.items()},
        },
    )  # fmt: skip


def _cost(folder: ModelFolder) -> Cost:
    """Count parameters in the header of the weights, and an image's operations where torch is installed (else NaN)."""
    return Cost(parameters=_parameters(folder), gflop=_gflop(folder) if find_spec("torch") else float("nan"))


def _parameters(folder: ModelFolder) -> int:
    with safe_open(folder.weights, framework="numpy") as weights:
        learnt = [name for name in weights.keys() if not name.endswith(BUFFERS)]  # noqa: SIM118 - no mapping
        return sum(prod(weights.get_slice(name).get_shape()) for name in learnt)


def _gflop(folder: ModelFolder) -> float:
    """Run the network once on an empty image."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from covseg.model_folder.load import Answer, load

    network = Answer(load(folder))
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 1, folder.config.size, folder.config.size))
    return float(counter.get_total_flops() / 1e9)
