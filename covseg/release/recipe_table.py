"""The recipes side by side: what was published, what we measured, and with how much training.

In: run folders that hold ``model`` and ``evaluation`` beside the run (the flow `train` leaves them so).
Out: a Markdown table. Every number names stratum, reduction, what an empty answer is worth, and n.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from covseg.errors import UsageError
from covseg.evaluation.document import METRICS, read_metrics
from covseg.evaluation.records import MetricLine
from covseg.training.recipe import load_recipe, shipped

COLUMNS = {
    "COVID-19 Dice, per image": ("COVID-19", "infection", "dice", "image", "one"),
    "COVID-19 IoU, per image": ("COVID-19", "infection", "iou", "image", "one"),
    "Non-COVID Dice, per image, empty = 1": ("Non-COVID", "infection", "dice", "image", "one"),
    "all Dice, batches of 8, empty = 1": ("all", "infection", "dice", "batch(8)", "one"),
    "specificity of images without infection": ("negatives", "image level", "specificity", "image", ""),
    "lung Dice, per image": ("all", "lung", "dice", "image", "one"),
}
TOLD = {"network.weights", "stop.epochs", "seed", "ours"}  # told elsewhere, or no setting
_WANTED = f"no {{}}: wanted a run folder with recipe.json, run.json and evaluation/{METRICS}"


def table(runs: list[Path]) -> str:
    """Return the table of several runs in Markdown.

    Raises
    ------
    UsageError
        When a run has not been evaluated.
    """
    rows = [row(run) for run in runs]
    names = list(rows[0])
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    return "\n".join([*lines, *("| " + " | ".join(one[name] for name in names) + " |" for one in rows)])


def row(run: Path) -> dict[str, str]:
    """Return one recipe's cells: label, published numbers, budget, our numbers with intervals and n."""
    recipe, facts = _read(run / "recipe.json"), _read(run / "run.json")
    if not (run / "evaluation" / METRICS).is_file():
        raise UsageError(_WANTED.format(run / "evaluation" / METRICS))
    evaluation = read_metrics(run / "evaluation")
    cells = {
        "recipe": str(facts["label"]),
        "published": recipe["published"] or "ours",
        "budget": budget(run, recipe, facts),
        "split": f"{evaluation.data.split}, {evaluation.lung_mask} lungs",
    }
    drawn = recipe["data"]["targets"]
    return cells | {
        name: _cell(evaluation.line(*key)) if key[1] == "lung" or "infection" in drawn else "-"
        for name, key in COLUMNS.items()
    }


def budget(run: Path, recipe: dict[str, Any], facts: dict[str, Any]) -> str:
    """Say how much training there was against what the recipe asks for, and every field that was changed."""
    epochs = sum(1 for line in (run / "metrics.csv").read_text().splitlines() if line) - 1
    images = facts["films"]["Train"]
    name = recipe["name"]
    asked = load_recipe(name).model_dump(mode="json") if name in shipped() else recipe
    told = f"{epochs} of {asked['stop']['epochs']} epochs, {images} images, seed {facts['seed']}, {facts['device']}"
    start = facts["weights"].partition(",")[0]  # of a file the digest stands in run.json
    return "; ".join([told, *([] if start == "none" else [f"encoder from {start}"]), *_changes(recipe, asked)])


def _changes(found: dict[str, Any], asked: dict[str, Any], path: str = "") -> Iterator[str]:
    """Name the fields that are not the recipe's own; weights and epochs are told elsewhere."""
    for key, value in found.items():
        name = f"{path}{key}"
        if isinstance(value, dict):
            yield from _changes(value, asked.get(key, {}), f"{name}.")
        elif name not in TOLD and value != asked.get(key):
            yield f"{name} {value} (recipe: {asked.get(key)})"


def _cell(line: MetricLine | None) -> str:
    return f"{line} n {line.n}" if line and line.known else "-"


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UsageError(_WANTED.format(path))
    content: dict[str, Any] = json.loads(path.read_text())
    return content
