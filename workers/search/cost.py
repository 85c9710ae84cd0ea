"""What an image costs a recipe's network: operations of a forward pass, counted on one empty image."""

from __future__ import annotations

import functools
import json

from covseg.networks.table import build
from covseg.training.learner import network_arguments
from covseg.training.recipe import Recipe


def gflop(recipe: Recipe) -> float:
    """Return the GFLOP of one forward pass; a training step takes about three times that per image.

    Raises
    ------
    UsageError
        When the network cannot be built.
    """
    name, arguments = network_arguments(recipe)
    return _gflop(name, json.dumps(arguments, sort_keys=True), recipe.input.planes, recipe.input.size)


@functools.lru_cache(maxsize=4096)
def _gflop(name: str, arguments: str, planes: int, size: int) -> float:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    network = build(name, json.loads(arguments)).eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network.forward_with_features(torch.zeros(1, planes, size, size))
    return float(counter.get_total_flops() / 1e9)
