"""What a model costs: parameters and floating-point operations of one image."""

from __future__ import annotations

from importlib.util import find_spec
from math import prod

from safetensors import safe_open

from covseg.evaluation.records import Cost
from covseg.model_folder.folder import ModelFolder

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")  # of batch normalisation: stored, never learnt


def cost_of(folder: ModelFolder) -> Cost:
    """Count parameters in the header of the weights, and operations where torch is installed (else NaN)."""
    return Cost(parameters=_parameters(folder), gflop=_gflop(folder) if find_spec("torch") else float("nan"))


def _parameters(folder: ModelFolder) -> int:
    with safe_open(folder.weights, framework="numpy") as weights:
        learnt = [name for name in weights.keys() if not name.endswith(BUFFERS)]  # noqa: SIM118 - no mapping
        return sum(prod(weights.get_slice(name).get_shape()) for name in learnt)


def _gflop(folder: ModelFolder) -> float:
    """Run the network once on an empty image."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from covseg.model_folder.load import Answer, load

    network = Answer(load(folder))
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 1, folder.config.size, folder.config.size))
    return float(counter.get_total_flops() / 1e9)
