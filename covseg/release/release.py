"""A training run to a model folder: weights, and a ``covseg.json`` that says where they come from.

In: a run folder. Out: a folder that ``covseg predict --model`` takes. A run that draws lung and infection
stands alone; one that draws infection only gets its lungs from another model folder, in one graph. Input filter,
thresholds and metrics are written into the same file by their own steps afterwards.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from covseg.errors import ModelRefused, UsageError
from covseg.model_folder.backends import open_backend
from covseg.model_folder.export import add_graph
from covseg.model_folder.folder import WEIGHTS, ModelFolder, open_folder
from covseg.model_folder.write import State, prefixed, write_model
from covseg.registry import open_model
from covseg.settings.model import ModelConfig
from covseg.stages.preprocess import prepare
from covseg.stages.segment import segment
from covseg.training import run_folder
from covseg.training.batches import prepared
from covseg.training.dataset import load_split
from covseg.training.learner import HEADED, network_arguments
from covseg.training.lungs import lung_channel
from covseg.training.recipe import Recipe

LICENCE = "Weights: research use only, under the terms of their training data ({}). Code: Apache-2.0."
PUBLISHED = {  # set: its licence, its citation
    "COVID-QU-Ex": (
        "COVID-QU-Ex, reported as CC BY-SA 4.0, not verified at the source",
        (
            "Tahir et al. 2021, COVID-19 infection localization and severity grading from chest X-ray images, "
            "doi 10.1016/j.compbiomed.2021.105002; Degerli et al. 2021, doi 10.1007/s13755-021-00146-8"
        ),
    )
}
NOT_RECORDED = ("not recorded", "not recorded")
EXPORT_TOLERANCE = 1e-3  # of a probability, on real images


def release(
    run: Path, folder: Path, model_id: str, lung_model: str = "default", licence: str = "", citation: str = ""
) -> ModelConfig:
    """Write a model folder from a run's best weights.

    Parameters
    ----------
    run : Path
        Run folder with ``recipe.json``, ``run.json``, ``metrics.csv`` and weights.
    folder : Path
        Made or overwritten.
    model_id : str
        Empty takes the recipe's name.
    lung_model : str
        Model folder that draws the lungs for a run that does not.
    licence, citation : str
        Of the training data; empty takes what is known of a published set, and else says that none was given.

    Raises
    ------
    UsageError
        When the run has no weights yet, `folder` is the run, it learnt from another model's lungs, or its images are
        prepared in a way that the lung model cannot take.
    """
    if folder.resolve() == run.resolve():
        raise UsageError(f"{folder} is the run itself: name another folder, such as {folder / 'model'}")
    if not (run / WEIGHTS).is_file():
        raise UsageError(f"{run} has no {WEIGHTS}: wanted the folder of a run with at least one epoch done")
    recipe = Recipe.model_validate_json((run / run_folder.RECIPE).read_text())
    found = run_folder.read_facts(run)
    network, arguments, state = _alone(recipe, run)
    if recipe.data.targets != ("lung", "infection"):
        _check_lungs(run, found["lung_channel"], recipe, lung_model)
        network, arguments, state = _staged(recipe, (network, arguments, state), lung_model)
    terms, cited = PUBLISHED.get(found["set"], NOT_RECORDED)
    write_model(
        folder,
        state,
        id=model_id or recipe.name,
        network=network,
        network_args=arguments,
        size=recipe.input.size,
        normalisation="standardise" if prepared(recipe) == "standardise" else "unit",
        presence_source="image-level head, sigmoid" if _has_head(recipe) else "strongest infection pixel",
        training=_facts(run, recipe, found),
        licence=LICENCE.format(licence or terms),
        citation=citation or cited,
    )
    add_graph(folder)
    return open_folder(folder).config


def check_export(folder: ModelFolder, root: Path, images: int = 12) -> float:
    """Run real Val images through torch and through the exported graph; return the largest difference.

    Raises
    ------
    ModelRefused
        When a probability differs by more than `EXPORT_TOLERANCE`: the graph is not the model.
    """
    config = folder.config
    val = load_split(root, "Val", images)
    pixels = np.stack(
        [prepare((image / 255).astype(np.float32), config.size, config.normalisation)[0] for image in val.images]
    )
    ours, exported = (segment(open_backend(folder, name), pixels) for name in ("torch", "onnx"))
    found = max(
        float(np.abs(getattr(one, name) - getattr(other, name)).max())
        for one, other in zip(ours, exported, strict=True)
        for name in ("lung", "infection")
    )
    if found > EXPORT_TOLERANCE:
        raise ModelRefused(
            f"the exported graph of {config.id} differs from torch by {found:.2g} in probability on {len(pixels)} Val "
            f"images, wanted at most {EXPORT_TOLERANCE:g}: publish it for --backend torch only, or export it otherwise"
        )
    return found


def _alone(recipe: Recipe, run: Path) -> tuple[str, dict[str, Any], State]:
    name, arguments = network_arguments(recipe)
    return name, arguments, load_file(run / WEIGHTS)


def _check_lungs(run: Path, learnt: str | None, recipe: Recipe, lung_model: str) -> None:
    if learnt not in (None, "truth") and learnt != (given := lung_channel(recipe, lung_model)):
        raise UsageError(f"{run} learnt from lungs {learnt}, {lung_model} gives lungs {given}: name that --lung-model")


def _staged(
    recipe: Recipe, own: tuple[str, dict[str, Any], State], lung_model: str
) -> tuple[str, dict[str, Any], State]:
    """Put the run's network and a lung model into one cascade."""
    network, arguments, state = own
    stage = {"network": network, "network_args": arguments}
    if recipe.data.targets == ("lung",):
        return "cascade", {"lung": stage}, prefixed(state, "lung.")
    lung = open_model(lung_model)
    config = lung.config
    standardise = prepared(recipe) == "standardise"
    if standardise and config.normalisation != "standardise":
        raise UsageError(f"{lung_model} wants images as they are, the run standardised ones: choose another lung model")
    first = {
        "network": config.network, "network_args": config.network_args, "size": config.size,
        "standardise": config.normalisation == "standardise" and not standardise,
    }  # fmt: skip
    combined = {
        "lung": first, "infection": stage, "sees_lung": recipe.input.channels == 4,
        "constrained": recipe.lung_constraint,
    }  # fmt: skip
    return "cascade", combined, prefixed(load_file(lung.weights), "lung.") | prefixed(state, "infection.")


def _has_head(recipe: Recipe) -> bool:
    return recipe.network.kind in HEADED and bool(recipe.loss.presence)


def _learnt_from(found: dict[str, Any]) -> str:
    """Say which images, in words, from a run's facts."""
    part = [f"{', '.join(found['strata'])}", f"{found['films']['Train']} images of Train"]
    part += [f"limit {found['limit']}"] if found["limit"] else []
    part += ["near-duplicates of Val left out"] if found["drop_leaks"] else []
    return f"{found['set']}: {'; '.join(part)}; epoch chosen on Val ({found['films']['Val']} images)"


def _facts(run: Path, recipe: Recipe, found: dict[str, Any]) -> dict[str, Any]:
    """Return what the card says of the training: recipe, data, seed, epochs, the best epoch's numbers."""
    rows = run_folder.read_rows(run)
    best = max(rows, key=lambda row: row[recipe.stop.metric])
    return {
        "data": _learnt_from(found),
        "recipe": recipe.model_dump(mode="json", exclude={"network": {"weights"}}),
        "run": found,
        "epochs": len(rows),
        "best_epoch": best,
    }
