"""A small U-Net over any timm encoder: residual steps and pixel shuffles instead of a wide decoder.

In: images ``(N, C, S, S)`` float32, S a multiple of 32. Out: mask logits ``(N, M, S, S)`` and one presence
logit an image (any infection). The encoder starts at random; `covseg.training.weights` fills it.
"""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import Tensor, nn

from covseg.networks.blocks import Attention, Residual, Up, convolution


class EncoderUNet(nn.Module):
    """Encoder, lateral 1x1 convolutions, and a decoder that stays at a quarter of the input grid and below.

    Parameters
    ----------
    encoder : str
        Name in timm; it must give five grids, 1/2 to 1/32 of the input's.
    masks, channels : int
        Masks to draw (the infection last), and channels of the input.
    widths : tuple of int
        Channels of the decoder at 1/4, 1/8, 1/16 and 1/32.
    stem : int
        Channels of the decoder at 1/2.
    attention : str
        Of the decoder's steps, see `Up`.
    presence : bool
        A head for it; False reads presence from the strongest infection pixel.

    Notes
    -----
    Presence is read from the deepest features, averaged and at their strongest place: a small
    consolidation does not move an average.
    """

    def __init__(
        self,
        encoder: str,
        masks: int = 2,
        channels: int = 1,
        widths: tuple[int, ...] = (48, 80, 144, 224),
        stem: int = 24,
        attention: Attention = "none",
        presence: bool = True,
    ) -> None:
        super().__init__()
        body: Any = timm.create_model(encoder, pretrained=False, features_only=True, in_chans=channels)
        grids: list[int] = body.feature_info.channels()
        self.encoder = body
        self.lateral = nn.ModuleList(
            nn.Conv2d(deep, width, 1) for deep, width in zip(grids, (stem, *widths), strict=True)
        )
        self.deep = Residual(widths[-1])
        self.decoder = nn.ModuleList(
            Up(deep, shallow, attention) for deep, shallow in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.widen = nn.Conv2d(widths[0], stem * 4, 1)
        self.refine = convolution(stem, stem)
        self.head = nn.Conv2d(stem, 4 * masks, 1)
        self.presence = nn.Linear(2 * widths[-1], 1) if presence else None

    def forward_with_features(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return mask logits ``(N, M, S, S)``, presence logits ``(N,)`` and encoder features ``(N, F)``."""
        grids = self.encoder(images)
        half, *skips, deepest = [lateral(grid) for lateral, grid in zip(self.lateral, grids, strict=True)]
        features = deepest = self.deep(torch.relu(deepest))
        for up, skip in zip(self.decoder, reversed(skips), strict=True):
            features = up(features, skip)
        fine = torch.relu(nn.functional.pixel_shuffle(self.widen(features), 2) + half)
        masks = nn.functional.pixel_shuffle(self.head(self.refine(fine)), 2)
        if self.presence is None:
            return masks, masks[:, -1].amax(dim=(1, 2)), grids[-1].mean(dim=(2, 3))
        summary = torch.cat([deepest.mean(dim=(2, 3)), deepest.amax(dim=(2, 3))], dim=1)
        return masks, self.presence(summary).squeeze(1), grids[-1].mean(dim=(2, 3))
