"""A training run to a model folder: weights, and a ``covseg.json`` that says where they come from.

In: a run folder. Out: a folder that ``covseg predict --model`` takes. A run that draws lung and infection
stands alone; one that draws infection only gets its lungs from another model folder, in one graph. Input filter,
thresholds and metrics are written into the same file by their own steps afterwards.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file

from covseg.errors import ModelRefused, UsageError
from covseg.model_folder.backends import open_backend
from covseg.model_folder.export import add_graph
from covseg.model_folder.folder import WEIGHTS, ModelFolder, open_folder
from covseg.model_folder.write import State, prefixed, whole_folder, write_model
from covseg.registry import open_model
from covseg.settings.model import ModelConfig
from covseg.stages.segment import segment
from covseg.training import run_folder
from covseg.training.batches import prepared
from covseg.training.dataset import load_split
from covseg.training.learner import has_head, network_arguments
from covseg.training.lungs import drawn_by, on_grid
from covseg.training.recipe import Recipe
from covseg.training.run_folder import RunFacts

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
        Made or overwritten, when all is well; else left as it was.
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
    facts = run_folder.read_facts(run)
    built = _Built(*network_arguments(recipe), load_file(run / WEIGHTS))
    if recipe.data.targets != ("lung", "infection"):
        _check_lungs(run, facts.lung_channel, lung_model)
        built = _behind_lungs(recipe, built, lung_model)
    terms, cited = PUBLISHED.get(facts.data_set, NOT_RECORDED)
    with whole_folder(folder) as place:
        write_model(
            place,
            built.state,
            id=model_id or recipe.name,
            network=built.network,
            network_args=built.arguments,
            size=recipe.input.size,
            source_side=facts.side,
            normalisation="standardise" if prepared(recipe) == "standardise" else "unit",
            presence_source="image-level head, sigmoid" if has_head(recipe) else "strongest infection pixel",
            training=_training(run, recipe, facts) | ({"lungs": built.lungs} if built.lungs else {}),
            licence=LICENCE.format(licence or terms),
            citation=citation or cited,
        )
        add_graph(place)
    return open_folder(folder).config


def val_images(root: Path, count: int = 12) -> NDArray[np.uint8]:
    """Read the Val images for `check_export`, ``(N, H, W)``; masks are not needed."""
    return load_split(root, "Val", count, targets=()).images


def check_export(folder: ModelFolder, images: NDArray[np.uint8]) -> float:
    """Run real images through torch and through the exported graph; return the largest difference.

    Raises
    ------
    ModelRefused
        When a probability differs by more than `EXPORT_TOLERANCE`: the graph is not the model.
    """
    config = folder.config
    pixels = on_grid(images, config)
    outputs = (segment(open_backend(folder, name), pixels) for name in ("torch", "onnx"))
    difference = max(
        float(np.abs(getattr(torch_output, name) - getattr(onnx_output, name)).max())
        for torch_output, onnx_output in zip(*outputs, strict=True)
        for name in ("lung", "infection")
    )
    if difference > EXPORT_TOLERANCE:
        raise ModelRefused(
            f"the exported graph of {config.id} differs from torch by {difference:.2g} in probability on "
            f"{len(pixels)} images, wanted at most {EXPORT_TOLERANCE:g}: publish it for --backend torch only, or "
            "export it otherwise"
        )
    return difference


class _Built(NamedTuple):
    """A network's name in the table of networks, its arguments as JSON values, its weights, and whose lungs it has."""

    network: str
    arguments: dict[str, Any]
    state: State
    lungs: dict[str, object] | None = None


def _check_lungs(run: Path, learnt: str | None, lung_model: str) -> None:
    if learnt not in (None, "truth") and learnt != (drawn := drawn_by(open_model(lung_model))):
        raise UsageError(f"{run} learnt from lungs {learnt}, {lung_model} gives lungs {drawn}: name that --lung-model")


def _behind_lungs(recipe: Recipe, own: _Built, lung_model: str) -> _Built:
    """Put the run's network and a lung model into one cascade."""
    stage = {"network": own.network, "network_args": own.arguments}
    if recipe.data.targets == ("lung",):
        return _Built("cascade", {"lung": stage}, prefixed(own.state, "lung."))
    lung = open_model(lung_model)
    config = lung.config
    standardise = prepared(recipe) == "standardise"
    if standardise and config.normalisation != "standardise":
        raise UsageError(f"{lung_model} wants images as they are, the run standardised ones: choose another lung model")
    first, weights = _lung_stage(config, load_file(lung.weights))
    first["standardise"] = first.get("standardise") or (config.normalisation == "standardise" and not standardise)
    combined = {
        "lung": first, "infection": stage, "sees_lung": recipe.input.sees_lung,
        "constrained": recipe.lung_constraint,
    }  # fmt: skip
    state = prefixed(weights, "lung.") | prefixed(own.state, "infection.")
    drawn = {"id": config.id, "weights_sha256": config.weights_sha256, **config.training}
    return _Built("cascade", combined, state, drawn)


def _lung_stage(config: ModelConfig, state: State) -> tuple[dict[str, Any], State]:
    """Return what draws a model's lungs, and its weights: of a cascade its first stage alone."""
    if config.network != "cascade":
        return {"network": config.network, "network_args": config.network_args, "size": config.size}, state
    stage = dict(config.network_args["lung"])
    weights = {name.removeprefix("lung."): value for name, value in state.items() if name.startswith("lung.")}
    return stage | {"size": stage.get("size") or config.size}, weights


def _learnt_from(facts: RunFacts) -> str:
    """Say which images, in words, from a run's facts."""
    parts = [f"{', '.join(facts.strata)}", f"{facts.images['Train']} images of Train"]
    parts += [f"limit {facts.limit}"] if facts.limit else []
    parts += [f"lungs {facts.lung_channel}"] if facts.lung_channel not in (None, "truth") else []
    parts += ["near-duplicates of Val left out"] if facts.drop_leaks else []
    return f"{facts.data_set}: {'; '.join(parts)}; epoch chosen on Val ({facts.images['Val']} images)"


def _training(run: Path, recipe: Recipe, facts: RunFacts) -> dict[str, object]:
    """Return what the model config says of the training: recipe, data, seed, epochs, the best epoch's numbers."""
    rows = run_folder.read_rows(run)
    best = max(rows, key=lambda row: row[recipe.stop.metric])
    return {
        "data": _learnt_from(facts),
        "recipe": recipe.model_dump(mode="json", exclude={"network": {"weights"}}),
        "run": facts.model_dump(mode="json"),
        "epochs": len(rows),
        "best_epoch": best,
    }
