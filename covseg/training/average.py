"""The mean of several trainings' weights: one network that costs no more than each, and forgets what only one learnt.

In: run folders of one recipe's network. Out: a state dict that ``network.weights`` of a further training takes. The
statistics of batch norms are no mean of means: they are taken anew, from augmented Train images (Izmailov et al. 2018,
doi 10.48550/arXiv.1803.05407; Wortsman et al. 2022, doi 10.48550/arXiv.2203.05482).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from covseg.errors import UsageError
from covseg.networks.table import build
from covseg.training import run_folder
from covseg.training.batches import Samples, training_batches
from covseg.training.dataset import load_split
from covseg.training.learner import network_arguments
from covseg.training.lungs import lung_masks
from covseg.training.ranks import Rank
from covseg.training.recipe import Recipe

State = dict[str, torch.Tensor]


def average(runs: Sequence[Path], root: Path, target: Path, images: int = 960, lung_model: str = "default") -> None:
    """Write the mean of the weights of several runs, batch statistics taken anew.

    Parameters
    ----------
    runs : sequence of Path
        Two or more run folders; the last one's recipe draws the images.
    root : Path
        Labelled set with Train.
    target : Path
        The safetensors file, floats as float16; replaced whole.
    images : int
        About so many Train images, augmented, pass through the network for its batch statistics.
    lung_model : str
        Draws the lungs where the recipe's network sees predicted ones.

    Raises
    ------
    UsageError
        When there are fewer than two runs, one has no weights, or their networks are not the same.
    """
    if len(runs) < 2:
        raise UsageError(f"{len(runs)} run given: the mean needs two or more run folders")
    recipes = [_recipe(run) for run in runs]
    for run, recipe in zip(runs, recipes, strict=True):
        if network_arguments(recipe) != network_arguments(recipes[-1]):
            found, wanted = network_arguments(recipe), network_arguments(recipes[-1])
            raise UsageError(f"{run} trained {found}, {runs[-1]} {wanted}: average runs of one network")
    recipe = recipes[-1]
    network = build(*network_arguments(recipe))
    network.load_state_dict(_mean([load_file(run / run_folder.WEIGHTS) for run in runs]))
    train = load_split(root, "Train", images, recipe.data.strata)
    _take_statistics(network, Samples(train, recipe, lung_masks(train, recipe, lung_model)))
    run_folder.write_weights(target, network)


def _recipe(run: Path) -> Recipe:
    if not (run / run_folder.WEIGHTS).is_file():
        raise UsageError(f"{run} has no {run_folder.WEIGHTS}: wanted the folder of a run with at least one epoch done")
    return Recipe.model_validate_json((run / run_folder.RECIPE).read_text())


def _mean(states: Sequence[State]) -> State:
    """Return the mean of floats; counters are the first one's."""
    return {
        name: torch.stack([state[name].float() for state in states]).mean(dim=0) if first.is_floating_point() else first
        for name, first in states[0].items()
    }


def _take_statistics(network: nn.Module, samples: Samples) -> None:
    """Let every batch norm see the samples once, each batch with the same weight; nothing else changes."""
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.reset_running_stats()
            part.momentum = None
    network.train()
    with torch.inference_mode():
        for batch in training_batches(samples, 0, 0, Rank(), 0):
            network.forward_with_features(batch.images)  # type: ignore[operator]
