"""Attention that a decoder can be given: gates on its skips, or weights for places and channels."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Attention = Literal["none", "scse", "gates"]


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
