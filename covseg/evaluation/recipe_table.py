"""The recipes side by side: what was published, what we measured, and with how much training.

In: run folders that hold ``model`` and ``evaluation`` beside the run (the flow `train` leaves them so).
Out: a Markdown table. Every number names stratum, reduction, what an empty answer is worth, and n.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from covseg.errors import UsageError
from covseg.evaluation.document import METRICS
from covseg.evaluation.intervals import short

COLUMNS = {
    "COVID-19 Dice, per film": ("COVID-19", "infection", "dice", "image", "one"),
    "COVID-19 IoU, per film": ("COVID-19", "infection", "iou", "image", "one"),
    "Non-COVID Dice, per film, empty = 1": ("Non-COVID", "infection", "dice", "image", "one"),
    "all Dice, batches of 8, empty = 1": ("all", "infection", "dice", "batch(8)", "one"),
    "specificity of films without infection": ("negatives", "image level", "specificity", "image", ""),
    "lung Dice, per film": ("all", "lung", "dice", "image", "one"),
}
_KEY = ("stratum", "part", "metric", "reduction", "empty")


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
    metrics = _read(run / "evaluation" / METRICS)
    found = {tuple(line[part] for part in _KEY): line for line in metrics["lines"]}
    cells = {
        "recipe": str(facts["label"]),
        "published": recipe["published"] or "ours",
        "budget": budget(run, recipe, facts),
        "split": f"{metrics['data']['split']}, {metrics['lung_mask']} lungs",
    }
    return cells | {name: _cell(found.get(key)) for name, key in COLUMNS.items()}


def budget(run: Path, recipe: dict[str, Any], facts: dict[str, Any]) -> str:
    """Say how much training there was, against what the recipe asks for."""
    epochs = sum(1 for line in (run / "metrics.csv").read_text().splitlines() if line) - 1
    films = facts["films"]["Train"]
    return f"{epochs} of {recipe['stop']['epochs']} epochs, {films} films, seed {facts['seed']}, {facts['device']}"


def _cell(line: dict[str, Any] | None) -> str:
    if line is None or line["value"] is None:
        return "-"
    value, low, high = (short(line[name]) for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}] n {line['n']}"


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UsageError(f"no {path}: wanted a run folder with recipe.json, run.json and evaluation/{METRICS}")
    content: dict[str, Any] = json.loads(path.read_text())
    return content
