"""The recipes side by side: what was published, what we measured, and with how much training.

In: run folders that hold ``model`` and ``evaluation`` beside the run (the flow `train` leaves them so).
Out: a Markdown table. Every number names stratum, reduction, what an empty answer is worth, and n.
"""

from __future__ import annotations

from pathlib import Path

from covseg.errors import UsageError
from covseg.evaluation import markdown
from covseg.evaluation.document import METRICS, read_metrics
from covseg.evaluation.records import Evaluation, MetricLine
from covseg.training import run_folder
from covseg.training.recipe import Recipe, load_recipe, shipped

COLUMNS = {
    "COVID-19 Dice, per image": ("COVID-19", "infection", "dice", "image", "one"),
    "COVID-19 IoU, per image": ("COVID-19", "infection", "iou", "image", "one"),
    "Non-COVID Dice, per image, empty = 1": ("Non-COVID", "infection", "dice", "image", "one"),
    "all Dice, batches of 8, empty = 1": ("all", "infection", "dice", "batch(8)", "one"),
    "specificity of images without infection": ("negatives", "image level", "specificity", "image", ""),
    "lung Dice, per image": ("all", "lung", "dice", "image", "one"),
}
ELSEWHERE = {"network.weights", "stop.epochs", "seed", "ours"}  # said elsewhere in the row, or no setting


def table(runs: list[Path]) -> str:
    """Return the table of several runs in Markdown.

    Raises
    ------
    UsageError
        When a run has not been evaluated.
    """
    rows = [row(run) for run in runs]
    return "\n".join(markdown.table(tuple(rows[0]), (tuple(cells.values()) for cells in rows)))


def row(run: Path) -> dict[str, str]:
    """Return one recipe's cells: label, published numbers, budget, our numbers with intervals and n."""
    evaluation = _evaluation(run)
    recipe = Recipe.model_validate_json((run / run_folder.RECIPE).read_text())
    facts = run_folder.read_facts(run)
    cells = {
        "recipe": facts.label,
        "published": recipe.published or "ours",
        "budget": budget(run, recipe, facts),
        "split": f"{evaluation.data.split}, {evaluation.lung_mask} lungs",
    }
    return cells | {
        name: _cell(evaluation.line(*key)) if key[1] == "lung" or "infection" in recipe.data.targets else "-"
        for name, key in COLUMNS.items()
    }


def budget(run: Path, recipe: Recipe, facts: run_folder.RunFacts) -> str:
    """Say how much training there was against what the recipe wants, and every field that was changed."""
    epochs, images = len(run_folder.read_rows(run)), facts.images["Train"]
    original = load_recipe(recipe.name) if recipe.name in shipped() else recipe
    trained = f"{epochs} of {original.stop.epochs} epochs, {images} images, seed {facts.seed}, {facts.device}"
    start = facts.weights.partition(",")[0]  # of a file the digest stands in run.json
    encoder = [] if start == "none" else [f"encoder from {start}"]
    changes = run_folder.differences(original.model_dump(mode="json"), recipe.model_dump(mode="json"))
    own = [f"{name} {value} (recipe: {wanted})" for name, wanted, value in changes if name not in ELSEWHERE]
    return "; ".join([trained, *encoder, *own])


def _cell(line: MetricLine | None) -> str:
    return f"{line} n {line.n}" if line and line.known else "-"


def _evaluation(run: Path) -> Evaluation:
    """Read ``metrics.json`` of a run that holds all that the table needs."""
    wanted = run_folder.RECIPE, run_folder.FACTS, f"evaluation/{METRICS}"
    for name in wanted:
        if not (run / name).is_file():
            raise UsageError(f"no {run / name}: wanted a run folder with {', '.join(wanted)}")
    return read_metrics(run / "evaluation")
