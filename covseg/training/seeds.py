"""Train once, or once a seed; say what came out, with the spread over seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from covseg.training import run_folder
from covseg.training.batches import Rank
from covseg.training.recipe import Recipe
from covseg.training.train import Hooks, Job, train


def train_seeds(
    recipe: Recipe,
    job: Job,
    seeds: int = 1,
    device: str = "cpu",
    hooks: Hooks | None = None,
    train_one: Callable[[Recipe, Job], object] | None = None,
) -> dict[str, Any]:
    """Train with `seeds` seeds in a row, each in a folder of its own when there are several.

    Parameters
    ----------
    train_one : callable or None
        Fills a job's folder; None runs the loop in this process, on `device`, with `hooks`.

    Returns
    -------
    dict
        Of the best seed what `outcome` says; with several also ``mean`` and ``deviation`` (n - 1) of the metric.
    """
    here = train_one or (lambda one, told: train(one, told, hooks, Rank(device=device)))
    found = []
    for number in range(seeds):
        one = recipe.model_copy(update={"seed": recipe.seed + number})
        folder = job.out / f"seed-{one.seed}" if seeds > 1 else job.out
        here(one, replace(job, out=folder))
        found.append(outcome(folder, one))
    best = max(found, key=lambda one: float(one["best"]))
    if seeds == 1:
        return best
    values = [float(one["best"]) for one in found]
    return best | {"seeds": seeds, "mean": float(np.mean(values)), "deviation": float(np.std(values, ddof=1))}


def outcome(folder: Path, recipe: Recipe) -> dict[str, Any]:
    """Read what a finished run came to: its best epoch's metric on Val, on the model grid."""
    rows, metric = run_folder.read_rows(folder), recipe.stop.metric
    best = max(rows, key=lambda row: row[metric])
    return {
        "label": recipe.label, "recipe": recipe.name, "metric": metric, "best": best[metric], "epoch": best["epoch"],
        "epochs": len(rows), "films": run_folder.read_facts(folder)["films"]["Val"], "out": str(folder),
    }  # fmt: skip
