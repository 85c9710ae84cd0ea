"""Epochs of a run into MLflow or Weights & Biases: a hook for `covseg.training.job.Hooks`, of a few lines each.

Neither is a dependency; each is asked for by name and imported then. Their own settings say where the numbers go
(``MLFLOW_TRACKING_URI``; ``WANDB_MODE=offline``). Numbers and the recipe are told, no image and no name of one.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from covseg.errors import UsageError
from covseg.training.recipe import Recipe

Tracker = Literal["none", "mlflow", "wandb"]
EpochDone = Callable[[dict[str, float], Path], None]
PROJECT = "covseg"


def epochs_to(tracker: Tracker, recipe: Recipe) -> EpochDone:
    """Return a hook that tells a tracker each epoch; one that says nothing for ``none``.

    Raises
    ------
    UsageError
        When the tracker is not installed.
    """
    made: dict[Tracker, Callable[[Recipe], EpochDone]] = {"mlflow": _mlflow, "wandb": _wandb}
    return made[tracker](recipe) if tracker in made else lambda *_: None


def _mlflow(recipe: Recipe) -> EpochDone:
    mlflow = _library("mlflow")
    mlflow.set_experiment(PROJECT)

    def epoch_done(row: dict[str, float], _: Path) -> None:
        if mlflow.active_run() is None:
            mlflow.start_run(run_name=recipe.label)
            mlflow.log_dict(recipe.model_dump(mode="json"), "recipe.json")
        mlflow.log_metrics(_finite(row), step=int(row["epoch"]))

    return epoch_done


def _wandb(recipe: Recipe) -> EpochDone:
    wandb = _library("wandb")

    def epoch_done(row: dict[str, float], _: Path) -> None:
        if wandb.run is None:
            wandb.init(project=PROJECT, name=recipe.label, config=recipe.model_dump(mode="json"))
        wandb.log(_finite(row), step=int(row["epoch"]), commit=True)

    return epoch_done


def _finite(row: dict[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if math.isfinite(value)}


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise UsageError(f"--track {name}: {name} is not installed, wanted beside covseg: pip install {name}") from None
