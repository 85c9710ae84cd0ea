"""Train once, or once a seed; say what came out, with the spread over seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from covseg.training import run_folder
from covseg.training.job import Hooks, TrainingJob
from covseg.training.ranks import Rank
from covseg.training.recipe import Recipe
from covseg.training.train import train


class TrainResult(BaseModel):
    """What a training came to: epochs done, images of Val, and the run's folder (of several seeds, the best one's).

    `metric` is the column of ``metrics.csv`` that chose the epoch, `best` its highest value on Val, and `epoch` the one
    that has it. With several seeds, `seeds` says how many; `mean` and `deviation` (n - 1) are of `best` over them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)

    label: str
    recipe: str
    metric: str
    best: float
    epoch: float
    epochs: int
    images: int = Field(alias="films")
    out: str
    seeds: int | None = Field(None, exclude_if=lambda seeds: seeds is None)
    mean: float | None = Field(None, exclude_if=lambda mean: mean is None)
    deviation: float | None = Field(None, exclude_if=lambda deviation: deviation is None)


def train_seeds(
    recipe: Recipe,
    job: TrainingJob,
    seeds: int = 1,
    device: str = "cpu",
    hooks: Hooks | None = None,
    train_one: Callable[[Recipe, TrainingJob], object] | None = None,
) -> TrainResult:
    """Train with `seeds` seeds in a row, each in a folder of its own when there are several; return the best one.

    `train_one` fills a job's folder; None runs the loop in this process, on `device`, with `hooks`.
    """
    run = train_one or (lambda seeded, placed: train(seeded, placed, hooks, Rank(device=device)))
    results = []
    for number in range(seeds):
        seeded = recipe.model_copy(update={"seed": recipe.seed + number})
        folder = job.out / f"seed-{seeded.seed}" if seeds > 1 else job.out
        run(seeded, replace(job, out=folder))
        results.append(outcome(folder, seeded))
    best = max(results, key=lambda result: result.best)
    if seeds == 1:
        return best
    values = [result.best for result in results]
    spread = {"seeds": seeds, "mean": float(np.mean(values)), "deviation": float(np.std(values, ddof=1))}
    return best.model_copy(update=spread)


def outcome(folder: Path, recipe: Recipe) -> TrainResult:
    """Read what a finished run came to: its best epoch's metric on Val, on the model grid."""
    rows, metric = run_folder.read_rows(folder), recipe.stop.metric
    best = max(rows, key=lambda row: row[metric])
    return TrainResult(
        label=recipe.label, recipe=recipe.name, metric=metric, best=best[metric], epoch=best["epoch"],
        epochs=len(rows), images=run_folder.read_facts(folder).images["Val"], out=str(folder),
    )  # fmt: skip
