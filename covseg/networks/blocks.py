"""Blocks that networks are made of: convolution with its norm, a residual step, attention, and a step to a finer grid.

Dense 3x3 convolutions reach the arithmetic peak of a CPU where depthwise ones wait for memory; the step up is a
pixel shuffle, so that no dense work is done on the full grid.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Attention = Literal["none", "scse", "gates"]


def convolution(inputs: int, outputs: int) -> nn.Sequential:
    """Return convolution, batch normalisation and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Residual(nn.Module):
    """Two 3x3 convolutions around an identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = convolution(width, width)
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, features: Tensor) -> Tensor:
        """Keep the shape ``(N, C, H, W)``."""
        return torch.relu(features + self.second(self.first(features)))


class AttentionGate(nn.Module):
    """Additive attention: what comes from below says which part of the skip passes.

    Both have `width` channels and lie on the same grid. arXiv 1804.03999.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = width // 2
        self.signal = nn.Sequential(nn.Conv2d(width, inner, 1), nn.BatchNorm2d(inner))
        self.skip = nn.Sequential(nn.Conv2d(width, inner, 1), nn.BatchNorm2d(inner))
        self.weigh = nn.Sequential(nn.Conv2d(inner, 1, 1), nn.BatchNorm2d(1), nn.Sigmoid())

    def forward(self, signal: Tensor, skip: Tensor) -> Tensor:
        """Return the skip, each pixel weighed by a number in (0, 1)."""
        weighed: Tensor = skip * self.weigh(torch.relu(self.signal(signal) + self.skip(skip)))
        return weighed


def squeeze_excite(width: int) -> nn.Module:
    """Return scSE (arXiv 1803.02579), the library's: places and channels weighed, the shape kept."""
    from segmentation_models_pytorch.base.modules import SCSEModule

    module: nn.Module = SCSEModule(width)
    return module


class Up(nn.Module):
    """Double the grid by pixel shuffle, add the skip, refine; `inputs` channels from below, `outputs` of the skip.

    The attention ``gates`` weighs the skip's places by what comes from below; ``scse`` weighs the result's places and
    channels.
    """

    def __init__(self, inputs: int, outputs: int, attention: Attention = "none") -> None:
        super().__init__()
        self.widen = nn.Conv2d(inputs, outputs * 4, 1)
        self.refine = Residual(outputs)
        self.gate = AttentionGate(outputs) if attention == "gates" else None
        self.weigh = squeeze_excite(outputs) if attention == "scse" else nn.Identity()

    def forward(self, features: Tensor, skip: Tensor) -> Tensor:
        """Bring ``(N, I, H, W)`` to the skip's ``(N, O, 2H, 2W)``."""
        below = nn.functional.pixel_shuffle(self.widen(features), 2)
        passed = skip if self.gate is None else self.gate(below, skip)
        weighed: Tensor = self.weigh(self.refine(torch.relu(below + passed)))
        return weighed
