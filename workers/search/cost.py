"""What an image costs a recipe's network: operations and time of a forward pass, of one empty image."""

from __future__ import annotations

import functools
import json
import time

from covseg.networks.table import build
from covseg.training.learner import network_arguments
from covseg.training.recipe import Recipe

PASSES = 6  # the first ones are slower


def gflop(recipe: Recipe) -> float:
    """Return the GFLOP of one forward pass; a training step takes about three times that per image.

    Raises
    ------
    UsageError
        When the network cannot be built.
    """
    name, arguments = network_arguments(recipe)
    return _gflop(name, json.dumps(arguments, sort_keys=True), recipe.input.planes, recipe.input.size)


def milliseconds(recipe: Recipe) -> float:
    """Return the time of one forward pass of one image on one core of this machine, the fastest of `PASSES`.

    It says what others on the machine leave: compare within one call of a page, not between machines.
    """
    name, arguments = network_arguments(recipe)
    return _milliseconds(name, json.dumps(arguments, sort_keys=True), recipe.input.planes, recipe.input.size)


@functools.lru_cache(maxsize=4096)
def _milliseconds(name: str, arguments: str, planes: int, size: int) -> float:
    import torch

    network, image = build(name, json.loads(arguments)).eval(), torch.zeros(1, planes, size, size)
    cores, fastest = torch.get_num_threads(), float("inf")
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            for _ in range(PASSES):
                start = time.perf_counter()
                network.forward_with_features(image)
                fastest = min(fastest, time.perf_counter() - start)
    finally:
        torch.set_num_threads(cores)
    return 1000 * fastest


@functools.lru_cache(maxsize=4096)
def _gflop(name: str, arguments: str, planes: int, size: int) -> float:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    network = build(name, json.loads(arguments)).eval()
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network.forward_with_features(torch.zeros(1, planes, size, size))
    return float(counter.get_total_flops() / 1e9)
