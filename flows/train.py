"""Flow `train`: data check, train, calibrate, evaluate on Val, register; ``covseg train`` under Prefect.

Its parameters are the fields of `covseg.settings.train.TrainSettings` and a few of its own (`TrainFlow`). What
stands in Prefect is counts, numbers and links: no pixels, no keys, no names of images. Run it here with
``python -m flows.train RECIPE --data ROOT --out DIR``; ``covseg deploy`` deploys it.

Cancelling sends SIGTERM to the flow's process; its ranks go down with it, and the last state stays.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run as current_run
from pydantic import Field

from covseg.calibration.run import run as calibrate
from covseg.data.cache import local_copy
from covseg.datacheck.check import check, record
from covseg.errors import UsageError
from covseg.evaluation.evaluate import evaluate
from covseg.evaluation.records import Evaluation
from covseg.registry import open_model
from covseg.registry import registry as models
from covseg.release.card import read_evidence, write_card
from covseg.release.fit_input_filter import fit_input_filter
from covseg.release.release import check_export, release, val_images
from covseg.settings.calibrate import CalibrateSettings
from covseg.settings.evaluate import EvaluateSettings
from covseg.settings.train import TrainSettings
from covseg.storage import local_path
from covseg.training.epoch_words import epoch_line, strata_columns
from covseg.training.job import Hooks
from covseg.training.recipe import load_recipe
from covseg.training.remote import folder_of, push
from covseg.training.run_folder import read_rows
from covseg.training.seeds import TrainResult
from flows.artifacts import show_evaluation, show_link, show_progress, start_progress, throttled
from flows.main import logged_when_stopped, main
from flows.parameters import take
from flows.redaction import redact, worth_a_retry
from workers.training_job import run as train_job

SPLITS = ("Train", "Val")
FILTER_IMAGES = 900  # of Train, where no limit is given
KEPT = "the last state is kept; run the flow again with the same parameters and resume to go on"
STOPPED = [logged_when_stopped(KEPT)]
LOSSES = ("epoch", "learning_rate", "train_loss", "val_loss")
COLUMNS = (*LOSSES, "train_dice", "val_dice", "val_lung_dice")  # of the artifact with the epochs, and every stratum's


class TrainFlow(TrainSettings):
    """What the flow `train` can be told: the command's fields, and what comes after training."""

    registry: str | None = Field(default=None, description="Folder or bucket URL; without it nothing is registered.")
    name: str | None = Field(default=None, description="Of the model, there and in its card; default: the recipe's.")
    licence: str = Field(default="", description="Of the training data, where it is no published set.")
    citation: str = Field(default="", description="Of the training data, where it is no published set.")
    input_filter: bool = Field(
        default=True, description="Fit an input filter that refuses what is no frontal chest radiograph; minutes."
    )
    specificity: float = Field(default=0.98, gt=0, le=1, description="Least specificity that calibration may choose.")

    @property
    def model_name(self) -> str:
        """Name of the model that comes out."""
        return self.name or load_recipe(self.recipe, self.settings).name


@task(name="check", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=10, retry_condition_fn=worth_a_retry)
@redact
def check_data(settings: TrainFlow) -> Path:
    """Bring the set here when it lies in a bucket, look at every image, and refuse a set that is not whole."""
    root = local_copy(settings.data, SPLITS)
    checked = check(root, want_infection="infection" in load_recipe(settings.recipe, settings.settings).data.targets)
    splits, across = record(checked).splits, len(checked.across)
    table = [{"split": split.split, **split.counts, "left_out": len(split.excluded)} for split in splits]
    create_table_artifact(table, key="train-data", description=f"duplicates across splits: {across} pairs")
    for split in splits:
        if split.split in SPLITS and split.excluded:
            counts = Counter(image.reason for image in split.excluded)
            reasons = ", ".join(f"{reason} {count}" for reason, count in counts.items())
            raise UsageError(f"{split.split} is not whole ({reasons}): covseg data check ROOT names the images")
    if across:
        get_run_logger().warning("%d near-duplicates across splits; drop_leaks leaves Train's out", across)
    return root


@task(name="train", cache_policy=NO_CACHE)  # no retries: Ray restarts ranks, and resume goes on
@redact
def train_recipe(settings: TrainFlow) -> TrainResult:
    """Train, here or on Ray."""
    artifact = start_progress("train-progress", settings.model_name)
    result = train_job(settings, _hooks(artifact))
    show_progress(artifact, 100.0, f"best epoch {result.epoch:.0f} of {result.epochs}")
    get_run_logger().info("best epoch %d, %s %.4f", result.epoch, result.metric, result.best)
    return result


def _hooks(artifact: UUID) -> Hooks:
    logger, update = get_run_logger(), throttled(artifact)

    def step_done(step: int, steps: int, row: dict[str, float]) -> None:
        update(100 * step / steps, f"step {step} of {steps}, train loss {row['train_loss']:.4f}")

    def epoch_done(row: dict[str, float], _: Path) -> None:
        logger.info(epoch_line(row))

    return Hooks(step_done=step_done, epoch_done=epoch_done)


@task(name="calibrate", cache_policy=NO_CACHE)
@redact
def calibrate_model(settings: TrainFlow, root: Path, run: Path) -> Path:
    """Make the run a model folder, prove its export, fit its input filter, and choose its thresholds on Val."""
    model = run / "model"
    images = val_images(root)
    config = release(run, model, settings.model_name, settings.lung_model, settings.licence, settings.citation)
    get_run_logger().info("export differs from torch by %.1e at most", check_export(open_model(model), images))
    if settings.input_filter:
        fit_input_filter(model, root, settings.limit or FILTER_IMAGES)
    if "infection" in config.training["recipe"]["data"]["targets"]:
        calibrate(CalibrateSettings(
            model=str(model), data=root, output=run / "calibration", specificity=settings.specificity,
            limit=settings.limit and max(settings.limit, 10),
        ))  # fmt: skip
    return model


@task(name="evaluate", cache_policy=NO_CACHE)
@redact
def evaluate_model(settings: TrainFlow, root: Path, run: Path, model: Path) -> Evaluation:
    """Judge the model on Val, and write its card."""
    output = run / "evaluation"
    evaluation = evaluate(EvaluateSettings(model=str(model), data=root, output=output, limit=settings.limit))
    folder = open_model(model)
    write_card(folder, read_evidence(folder, output))
    return evaluation


@task(name="register", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=10, retry_condition_fn=worth_a_retry)
@redact
def register_model(settings: TrainFlow, model: Path) -> str:
    """Make the model the next version, and the candidate; the same content is one version, however often."""
    registry = models.open_registry(settings.registry)
    pushed = models.push(model, registry, settings.model_name)
    reference = f"{registry.url}/{settings.model_name}@{pushed.version.tag}"
    models.promote(reference, "candidate", "flow train", f"{settings.recipe}, evaluated on Val")
    get_run_logger().info("%s is the candidate", reference)
    return reference


def _show(settings: TrainFlow, run: Path, evaluation: Evaluation, reference: str | None) -> None:
    """Leave the epochs, the whole table, and the ways to page and curves as artifacts."""
    rows = [
        {name: f"{row[name]:.4g}" for name in (*COLUMNS, *strata_columns(row)) if name in row} for row in read_rows(run)
    ]
    create_table_artifact(rows, key="train-epochs", description="on the model grid, threshold .5")
    registered = f"registered: {reference or 'no'}"
    show_evaluation(evaluation, "train-evaluation", f"{settings.model_name} on Val", "", registered)
    inside = f"{settings.out.rstrip('/')}/{run.relative_to(folder_of(settings.out)).as_posix()}".removesuffix("/.")
    show_link(f"{inside}/evaluation/evaluation.html", "evaluation", "train-page")
    show_link(f"{inside}/curves.png", "curves", "train-curves")


def _name() -> str:
    """Name a run by its recipe and what it was told to change."""
    parameters = current_run.parameters
    return " ".join(["train", str(parameters["recipe"]), *map(str, parameters.get("settings") or ())])[:120]


@flow(name="train", flow_run_name=_name, persist_result=False, on_cancellation=STOPPED, on_crashed=STOPPED)
@take(TrainFlow)
def train(**parameters: Any) -> dict[str, Any]:
    """Check the data, train a recipe, calibrate and evaluate it on Val, and register it."""
    return _train(TrainFlow(**parameters))


@redact
def _train(settings: TrainFlow) -> dict[str, Any]:
    root = check_data(settings)
    result = train_recipe(settings)
    run = Path(result.out)
    model = calibrate_model(settings, root, run)
    evaluation = evaluate_model(settings, root, run, model)
    reference = register_model(settings, model) if settings.registry else None
    if local_path(settings.out) is None:  # a bucket, which has not seen what came after training
        push(folder_of(settings.out), settings.out)
    _show(settings, run, evaluation, reference)
    headline = evaluation.model_dump(mode="json", include={"headline"})
    return {**result.model_dump(mode="json"), **headline, "reference": reference}


if __name__ == "__main__":
    sys.exit(main(train, TrainFlow, KEPT))
