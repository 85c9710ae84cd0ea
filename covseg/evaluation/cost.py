"""What a model costs: parameters and floating-point operations of one image."""

from __future__ import annotations

from dataclasses import dataclass

from covseg.model_folder.folder import ModelFolder


@dataclass(frozen=True)
class Cost:
    """Cost of one model.

    Parameters
    ----------
    parameters : int
    gflop : float
        10^9 floating-point operations of one image at model size (a multiply-add counts as two).
    """

    parameters: int
    gflop: float


def cost_of(folder: ModelFolder) -> Cost:
    """Count parameters and operations by running the network once on an empty image."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from covseg.model_folder.load import Answer, load

    network = Answer(load(folder))
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 1, folder.config.size, folder.config.size))
    return Cost(sum(part.numel() for part in network.parameters()), counter.get_total_flops() / 1e9)
