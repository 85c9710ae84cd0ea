"""Flow `train`: data check, train, calibrate, evaluate on Val, register; ``covseg train`` under Prefect.

Its parameters are the fields of `covseg.settings.train.TrainSettings` and a few of its own (`TrainFlow`). What
stands in Prefect is counts, numbers and links: no pixels, no keys, no names of images. Run it here with
``python -m flows.train RECIPE --data ROOT --out DIR``; ``infra/prefect.yaml`` deploys it.

Cancelling sends SIGTERM to the flow's process; its ranks go down with it, and the last state stays.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast
from uuid import UUID

from cyclopts import App, Parameter
from prefect import flow, get_run_logger, task
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow
from prefect.logging.loggers import flow_run_logger
from prefect.runtime import flow_run as current_run
from pydantic import Field

from covseg.errors import CovsegError, UsageError
from covseg.settings.calibrate import CalibrateSettings
from covseg.settings.evaluate import EvaluateSettings
from covseg.settings.train import TrainSettings
from flows.parameters import take
from flows.progress import show
from flows.redaction import redact, worth_a_retry
from flows.server import configured_or_local

if TYPE_CHECKING:
    from covseg.evaluation.records import Evaluation
    from covseg.training.train import Hooks

UPDATE_S = 5.0  # between two updates of the progress artifact
SPLITS = ("Train", "Val")
FILTER_IMAGES = 900  # of Train, where no limit is given


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
        from covseg.training.recipe import load_recipe

        return self.name or load_recipe(self.recipe, self.settings).name


@task(name="check", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=10, retry_condition_fn=worth_a_retry)
@redact
def check_data(settings: TrainFlow) -> Path:
    """Bring the set here when it lies in a bucket, look at every image, and refuse a set that is not whole."""
    from covseg.data.cache import local_copy
    from covseg.datacheck.check import check, record
    from covseg.training.recipe import load_recipe

    root = local_copy(settings.data, SPLITS)
    checked = check(root, want_infection="infection" in load_recipe(settings.recipe, settings.settings).data.targets)
    splits = record(checked).splits
    table = [{"split": split.split, **split.counts, "left_out": len(split.excluded)} for split in splits]
    create_table_artifact(table, key="train-data", description=f"duplicates across splits: {len(checked.across)} pairs")
    for split in splits:
        if split.split in SPLITS and split.excluded:
            reasons = ", ".join(f"{reason} {n}" for reason, n in Counter(e.reason for e in split.excluded).items())
            raise UsageError(f"{split.split} is not whole ({reasons}): covseg data check ROOT names the images")
    if checked.across:
        get_run_logger().warning("%d near-duplicates across splits; drop_leaks leaves Train's out", len(checked.across))
    return root


@task(name="train", cache_policy=NO_CACHE)  # no retries: Ray restarts ranks, and resume goes on
@redact
def train_recipe(settings: TrainFlow) -> dict[str, Any]:
    """Train, here or on Ray."""
    from workers.training_job import run as train_job

    artifact = cast(UUID, create_progress_artifact(0.0, key="train-progress", description=settings.model_name))
    found = train_job(settings, _hooks(artifact))
    show(artifact, 100.0, f"best epoch {found['epoch']:.0f} of {found['epochs']}")
    get_run_logger().info("best epoch %d, %s %.4f", found["epoch"], found["metric"], found["best"])
    return found


def _hooks(artifact: UUID) -> Hooks:
    from covseg.training.train import Hooks

    logger, said = get_run_logger(), [time.monotonic()]

    def tell(step: int, steps: int, row: dict[str, float]) -> None:
        if time.monotonic() - said[0] >= UPDATE_S:
            told = f"step {step} of {steps}, train loss {row['train_loss']:.4f}"
            show(artifact, 100 * step / steps, told)
            said[0] = time.monotonic()

    def epoch_done(row: dict[str, float], _: Path) -> None:
        logger.info("epoch %d: train loss %.4f, Val loss %.4f", row["epoch"], row["train_loss"], row["val_loss"])

    return Hooks(tell=tell, epoch_done=epoch_done)


@task(name="calibrate", cache_policy=NO_CACHE)
@redact
def calibrate_model(settings: TrainFlow, root: Path, run: Path) -> Path:
    """Make the run a model folder, prove its export, fit its input filter, and choose its thresholds on Val."""
    from covseg.calibration.run import run as calibrate
    from covseg.registry import open_model
    from covseg.release.fit_input_filter import renew
    from covseg.release.release import check_export, release

    model = run / "model"
    config = release(run, model, settings.model_name, settings.lung_model, settings.licence, settings.citation)
    get_run_logger().info("export differs from torch by %.1e at most", check_export(open_model(model), root))
    if settings.input_filter:
        renew(model, root, settings.limit or FILTER_IMAGES)
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
    from covseg.evaluation.evaluate import evaluate
    from covseg.registry import open_model
    from covseg.release.card import evidence, write

    evaluation = evaluate(
        EvaluateSettings(model=str(model), data=root, output=run / "evaluation", limit=settings.limit)
    )
    folder = open_model(model)
    write(folder, evidence(folder, run / "evaluation"))
    return evaluation


@task(name="register", cache_policy=NO_CACHE, retries=2, retry_delay_seconds=10, retry_condition_fn=worth_a_retry)
@redact
def register_model(settings: TrainFlow, model: Path) -> str:
    """Make the model the next version, and the candidate; the same content is one version, however often."""
    from covseg.registry.registry import open_registry, promote, push

    registry = open_registry(settings.registry)
    pushed = push(model, registry, settings.model_name)
    reference = f"{registry.url}/{settings.model_name}@{pushed.version.tag}"
    promote(reference, "candidate", "flow train", f"{settings.recipe}, evaluated on Val")
    get_run_logger().info("%s is the candidate", reference)
    return reference


def _finish(settings: TrainFlow) -> None:
    """Send what came after training to the run's bucket, where it has one."""
    from covseg.storage import local_path
    from covseg.training.remote import folder_of, push

    if local_path(settings.out) is None:
        push(folder_of(settings.out), settings.out)


def _show(settings: TrainFlow, run: Path, evaluation: Evaluation, reference: str | None) -> None:
    """Leave the epochs, the whole table, and the ways to page and curves as artifacts."""
    from covseg.evaluation.text import screen
    from covseg.storage import local_path
    from covseg.training.remote import folder_of
    from covseg.training.run_folder import read_rows

    kept = (
        "epoch",
        "learning_rate",
        "train_loss",
        "val_loss",
        "train_dice",
        "val_dice",
        "val_covid_dice",
        "val_lung_dice",
    )
    rows = [{name: f"{row[name]:.4g}" for name in kept if name in row} for row in read_rows(run)]
    create_table_artifact(rows, key="train-epochs", description="on the model grid, threshold .5")
    table = [
        "```",
        *screen(evaluation),
        "```",
        "",
        f"registered: {reference or 'no'}",
        "",
        "Research use only, not for diagnosis.",
    ]
    create_markdown_artifact("\n".join(table), key="train-evaluation", description=f"{settings.model_name} on Val")
    bucket = local_path(settings.out) is None
    start = settings.out.rstrip("/") if bucket else f"file://{Path(settings.out).absolute()}"
    inside = f"{start}/{run.relative_to(folder_of(settings.out)).as_posix()}".removesuffix("/.")
    create_link_artifact(f"{inside}/evaluation/evaluation.html", link_text="evaluation", key="train-page")
    create_link_artifact(f"{inside}/curves.png", link_text="curves", key="train-curves")


def _name() -> str:
    """Name a run by its recipe and what it was told to change."""
    given = current_run.parameters
    return " ".join(["train", str(given["recipe"]), *map(str, given.get("settings") or ())])[:120]


def say_how_to_resume(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Say what a stopped run leaves behind; its ranks are gone with its process."""
    told = "the last state is kept; run the flow again with the same parameters and resume to go on"
    flow_run_logger(flow_run, flow).info("%s: %s", state.name, told)


@flow(
    name="train",
    flow_run_name=_name,
    persist_result=False,
    on_cancellation=[say_how_to_resume],
    on_crashed=[say_how_to_resume],
)
@take(TrainFlow)
def train(**parameters: Any) -> dict[str, Any]:
    """Check the data, train a recipe, calibrate and evaluate it on Val, and register it."""
    return _train(TrainFlow(**parameters))


@redact
def _train(settings: TrainFlow) -> dict[str, Any]:
    root = check_data(settings)
    found = train_recipe(settings)
    run = Path(found["out"])
    model = calibrate_model(settings, root, run)
    evaluation = evaluate_model(settings, root, run, model)
    reference = register_model(settings, model) if settings.registry else None
    _finish(settings)
    _show(settings, run, evaluation, reference)
    return {**found, **evaluation.model_dump(mode="json", include={"headline"}), "reference": reference}


def main(words: list[str] | None = None) -> int:
    """Run the flow once from the command line, with a Prefect server of its own unless one is given."""
    app = App(name="python -m flows.train", help="Run the flow `train` once, here or where RAY_ADDRESS says.")

    @app.default
    def run(settings: Annotated[TrainFlow, Parameter(name="*")]) -> int:
        with configured_or_local():
            train(**settings.model_dump(mode="json"))
        return 0

    try:
        return int(app(words, result_action="return_value") or 0)
    except CovsegError as error:
        print(f"covseg: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except KeyboardInterrupt:
        print("covseg: interrupted; the last state is kept, add --resume to go on", file=sys.stderr)  # noqa: T201
        return 130


if __name__ == "__main__":
    sys.exit(main())
