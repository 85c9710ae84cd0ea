"""The best trials of a search and its recipe, trained again with new seeds, released, calibrated and evaluated on Val.

Each run is an ordinary one in ``finalists/<name>/seed-<n>``, with ``model``, ``calibration`` and ``evaluation`` beside
it. One whose evaluation is there is not made again, so the same command goes on.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import NodeDiedError, RayError, RayTaskError

from covseg.calibration.run import run as calibrate
from covseg.data.cache import local_copy
from covseg.errors import Stopped, TrainingFailed
from covseg.evaluation.document import CONDITIONS, METRICS
from covseg.evaluation.evaluate import evaluate
from covseg.model_folder.folder import amend_config
from covseg.registry import open_model
from covseg.release.fit_input_filter import fit_input_filter
from covseg.release.release import check_export, release, val_images
from covseg.settings.calibrate import CalibrateSettings
from covseg.settings.evaluate import EvaluateSettings
from covseg.synthetic.shifts import SHIFTS
from covseg.training.job import TrainingJob
from covseg.training.preflight import SPLITS
from covseg.training.recipe import Recipe
from covseg.training.shifted import CHOSEN_BY
from workers.cluster import Handle
from workers.search import trial as trials
from workers.search.driver import CRASHES, LISTEN_S, SearchHooks
from workers.search.plan import SearchPlan
from workers.search.records import TrialRecord
from workers.search.trial import TrialEnd, Verdict

FINALISTS, RECIPE = "finalists", "recipe"
UNSEEN = tuple(name for name, shift in SHIFTS.items() if not shift.seen)  # neither training nor a search looks at them
FILTER_IMAGES = 900  # of Train, where no limit is given
LEAST_CALIBRATED = 10  # images that a calibration takes


@dataclass(frozen=True)
class Finalist:
    """A recipe that is trained again: the search's own, or a trial's."""

    name: str
    recipe: Recipe
    trial: TrialRecord | None = None


@dataclass(frozen=True)
class Finish:
    """What follows a finalist's training, the same for all: the model's name, what its card says of the search, twins.

    `input_filter` fits one too, which takes minutes.
    """

    model_name: str
    search: dict[str, object]
    twins: Path | None = None
    input_filter: bool = False


@dataclass(frozen=True)
class Run:
    """One training of a finalist: its recipe with its seed, and its job, whose folder it fills."""

    label: str
    recipe: Recipe
    job: TrainingJob


def finalists_of(plan: SearchPlan, records: Sequence[TrialRecord], count: int) -> list[Finalist]:
    """Return the recipe and the `count` best complete trials that are not the recipe, all at the full budget."""
    full = replace(plan, budget=1.0)
    done = [one for one in records if one.state == "complete" and one.value is not None and one.point != plan.start]
    best = sorted(done, key=lambda one: (-(one.value or 0.0), one.number))[:count]
    own = Finalist(RECIPE, full.at({}))
    return [own, *(Finalist(f"trial-{one.number:04d}", full.at(one.point), one) for one in best)]


def runs_of(finalists: Sequence[Finalist], job: TrainingJob, seeds: int) -> list[Run]:
    """Return the runs, seed by seed; the first seed is the one after the recipe's, which the search has used."""
    runs = []
    for number in range(1, seeds + 1):
        for one in finalists:
            recipe = one.recipe.model_copy(update={"seed": one.recipe.seed + number})
            folder = job.out / FINALISTS / one.name / f"seed-{recipe.seed}"
            runs.append(Run(f"{one.name}, seed {recipe.seed}", recipe, replace(job, out=folder, resume=True)))
    return runs


def run_finalist(number: int, run: Run, finish: Finish, cores: int, device: str, board: Handle) -> TrialEnd:
    """Train one run to its end, and finish it."""
    end = trials.run_trial(number, run.recipe, run.job, cores, device, board)
    if end.kind == "done":
        finish_run(run, finish, cores, run.job.out)
    return end


def finish_run(run: Run, finish: Finish, cores: int, folder: Path) -> None:
    """Make a trained run a model in `folder`, and calibrate and evaluate it on Val; the evaluation comes last."""
    root, limit = local_copy(run.job.data, SPLITS), run.job.limit
    model = folder / "model"
    release(run.job.out, model, finish.model_name, run.job.lung_model)
    amend_config(model, lambda config: config["training"].update(search=finish.search))
    check_export(open_model(model), val_images(root))
    if finish.input_filter:
        fit_input_filter(model, root, limit or FILTER_IMAGES)
    calibrate(CalibrateSettings(
        model=str(model), data=root, output=folder / "calibration", limit=limit and max(limit, LEAST_CALIBRATED),
        streams=cores,
    ))  # fmt: skip
    evaluate(EvaluateSettings(
        model=str(model), data=root, output=folder / "evaluation", limit=limit, shifts=CHOSEN_BY + UNSEEN,
        twins=finish.twins, streams=cores, control=finish.input_filter,
    ))  # fmt: skip


def train_finalists(
    runs: Sequence[Run], finish: Finish, parallel: int, cores: int, gpus: float, hooks: SearchHooks
) -> None:
    """Train and finish the runs that are not, some at once.

    Raises
    ------
    Stopped
        When asked to; the states are saved.
    TrainingFailed
        When a run failed, or its process was lost twice.
    """
    board: Handle = ray.remote(trials.TrialBoard).options(num_cpus=0).remote()
    start = ray.remote(run_finalist).options(num_cpus=cores, num_gpus=gpus, max_retries=0)
    waiting = [number for number, run in enumerate(runs) if not _finished(run)]
    running: dict[Any, int] = {}
    crashes = dict.fromkeys(waiting, 0)
    stopping, failed = False, ""
    while (waiting and not stopping) or running:
        while waiting and len(running) < parallel and not stopping:
            number = waiting.pop(0)
            hooks.note(f"finalist {runs[number].label} begins")
            task = start.remote(number, runs[number], finish, cores, "cuda:0" if gpus else "cpu", board)
            running[task] = number
        ray.get(board.judge.remote(dict.fromkeys(running.values(), Verdict(stopping, 2**31))))
        ready, _ = ray.wait(list(running), timeout=LISTEN_S)
        for task in ready:
            number = running.pop(task)
            if reason := _reason(task):
                crashes[number] += not isinstance(reason, NodeDiedError)
                if isinstance(reason, RayError) and crashes[number] < CRASHES:
                    waiting.insert(0, number)
                else:
                    failed = failed or f"finalist {runs[number].label} failed: {reason}".splitlines()[0]
            elif not stopping:
                hooks.note(f"finalist {runs[number].label} ends")
        stopping = bool(stopping or failed or hooks.stop())
        time.sleep(0 if ready else LISTEN_S)
    if failed:
        raise TrainingFailed(f"{failed}. Mend that; the same command goes on")
    if stopping:
        raise Stopped("the finalists are stopped, their states are saved; the same command goes on")


def _finished(run: Run) -> bool:
    return all((run.job.out / "evaluation" / name).exists() for name in (METRICS, CONDITIONS))


def _reason(task: Any) -> Exception | str:
    """Return why a run failed, a `RayError` where its process was lost; empty where it did not."""
    try:
        end = ray.get(task)
    except RayTaskError as error:
        return f"{type(error.cause).__name__}: {error.cause}"
    except RayError as error:
        return error
    return end.reason if end.kind == "failed" else ""
