"""A compact residual U-Net that draws lung and infection together, from scratch, on a CPU.

In: standardised grey images ``(N, 1, S, S)`` float32, S a multiple of 32. Out: two mask logits
``(N, 2, S, S)`` (lung, infection) and one presence logit ``(N,)`` (any infection on the image).
It does not know thresholds, geometry or files.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from covseg.networks.attention import Attention, AttentionGate, squeeze_excite


def convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Return convolution, batch normalisation and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
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


class Up(nn.Module):
    """Double the grid by pixel shuffle, add the skip, refine.

    Parameters
    ----------
    inputs, outputs : int
        Channels from below, and of the skip.
    attention : str
        ``none``; ``gates`` weighs the skip's places by what comes from below; ``scse`` weighs the result's places
        and channels.
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


class CompactUNet(nn.Module):
    """Residual U-Net whose dense work stays at a quarter of the input grid and below.

    Parameters
    ----------
    widths : tuple of int
        Channels at 1/4, 1/8, 1/16 and 1/32 of the input grid.
    depths : tuple of int
        Residual blocks at the same four grids.
    stem : int
        Channels at half the input grid.
    presence : bool
        A head for it; False reads presence from the strongest infection pixel.

    Notes
    -----
    Dense 3x3 convolutions reach the arithmetic peak of a CPU where depthwise ones wait for
    memory; the full-resolution decoder of the usual U-Net is replaced by pixel shuffles.
    """

    def __init__(
        self,
        widths: tuple[int, int, int, int] = (32, 80, 192, 256),
        depths: tuple[int, int, int, int] = (1, 1, 3, 2),
        stem: int = 16,
        presence: bool = True,
    ) -> None:
        super().__init__()
        self.stem = convolution(1, stem, 5, 2)
        inputs = [stem, *widths[:-1]]
        self.encoder = nn.ModuleList(
            nn.Sequential(convolution(before, width, 3, 2), *(Residual(width) for _ in range(depth)))
            for before, width, depth in zip(inputs, widths, depths, strict=True)
        )
        self.decoder = nn.ModuleList(
            Up(deep, shallow) for deep, shallow in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.widen = nn.Conv2d(widths[0], stem * 4, 1)
        self.refine = convolution(stem, stem)
        self.head = nn.Conv2d(stem, 8, 1)
        self.presence = nn.Linear(widths[-1], 1) if presence else None

    def forward_with_features(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return mask logits, presence logits, and bottleneck features averaged per image ``(N, F)``."""
        half = self.stem(images)
        features, skips = half, []
        for stage in self.encoder:
            features = stage(features)
            skips.append(features)
        summary = features.mean(dim=(2, 3))
        for up, skip in zip(self.decoder, skips[-2::-1], strict=True):
            features = up(features, skip)
        fine = torch.relu(nn.functional.pixel_shuffle(self.widen(features), 2) + half)
        masks = nn.functional.pixel_shuffle(self.head(self.refine(fine)), 2)
        found = masks[:, -1].amax(dim=(1, 2)) if self.presence is None else self.presence(summary).squeeze(1)
        return masks, found, summary
