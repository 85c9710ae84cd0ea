"""U-Nets from scratch: the plain one (Ronneberger 2015) and the one with attention gates (Oktay 2018).

In: images ``(N, C, S, S)`` float32, S a multiple of 2 to the number of levels less one. Out: mask logits
``(N, M, S, S)``. Convolutions are padded, so that the mask has the image's size; the papers' own are not.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from covseg.networks.blocks import AttentionGate


def _double(inputs: int, outputs: int, norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before in (inputs, outputs):
        layers += [nn.Conv2d(before, outputs, 3, padding=1)]
        layers += [nn.BatchNorm2d(outputs)] if norm else []
        layers += [nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _repeated(deep: int, shallow: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Upsample(scale_factor=2), nn.Conv2d(deep, shallow, 3, padding=1), nn.BatchNorm2d(shallow), nn.ReLU()
    )


def _start(network: nn.Module) -> None:
    """He's normal start: without normalisation a deep net from PyTorch's default one fades out."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class PlainUNet(nn.Module):
    """Two 3x3 convolutions a level, max pooling down, doubled grids up.

    Parameters
    ----------
    masks : int
        Masks to draw; the infection comes last.
    channels : int
        Of the input.
    widths : tuple of int
        Channels of each level, top first, the bottleneck last.
    gates : bool
        A gate on every skip, batch normalisation, and up by repetition and a 3x3 convolution; without, no
        normalisation, and up by a 2x2 transposed convolution.

    Notes
    -----
    doi 10.1007/978-3-319-24574-4_28: the widths 64 to 1024 give its 31.0 M parameters. With gates arXiv 1804.03999,
    two-dimensional; the gate sits on the skip's own grid, as later code has it (34.9 M parameters with widths 64 to
    1024), where the paper resamples the gating signal.
    """

    def __init__(
        self,
        masks: int = 1,
        channels: int = 1,
        widths: tuple[int, ...] = (64, 128, 256, 512, 1024),
        gates: bool = False,
    ) -> None:
        super().__init__()
        inputs = [channels, *widths[:-1]]
        steps = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.down = nn.ModuleList(_double(a, b, norm=gates) for a, b in zip(inputs, widths, strict=True))
        self.widen = nn.ModuleList(_repeated(*step) if gates else nn.ConvTranspose2d(*step, 2, 2) for step in steps)
        self.gates = nn.ModuleList(AttentionGate(shallow) for _, shallow in steps) if gates else None
        self.up = nn.ModuleList(_double(2 * shallow, shallow, norm=gates) for _, shallow in steps)
        self.head = nn.Conv2d(widths[0], masks, 1)
        _start(self)

    def forward_with_features(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return mask logits, presence logits ``(N,)`` (the strongest infection pixel) and features ``(N, F)``."""
        skips, features = [], images
        for level, block in enumerate(self.down):
            features = block(features if level == 0 else nn.functional.max_pool2d(features, 2))
            skips.append(features)
        summary = features.mean(dim=(2, 3))
        for step, (widen, block, skip) in enumerate(zip(self.widen, self.up, skips[-2::-1], strict=True)):
            features = widen(features)
            passed = skip if self.gates is None else self.gates[step](features, skip)
            features = block(torch.cat([passed, features], dim=1))
        masks = self.head(features)
        return masks, masks[:, -1].amax(dim=(1, 2)), summary
