"""An infection network that sees the lungs and nothing else.

In: images ``(N, 1, S, S)`` and lung masks of 0 or 1 as a second plane. The box of the lungs is cut out, brought to the
network's own grid, standardised, and everything outside the lungs is set to 0; the answer is put back in its place.
What lies around the lungs (borders, letters, collimation, the archive's own look) cannot reach the answer, but for the
mean and spread of the box.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from covseg.networks.encoder_unet import EncoderUNet

OUTSIDE = -20.0  # the logit where no lung is: probability 2e-9
TAIL = 0.004  # of the lung's area, at each of its four ends: a speck does not move the box
MARGIN = 0.04  # of the box, at each end
DEVIATION = 0.1  # least, of the image's own: a box without contrast is not blown up


class LungView(nn.Module):
    """`EncoderUNet` on the lungs' box, behind a mask.

    Parameters
    ----------
    encoder : str
        Name in timm.
    masks, channels : int
        Masks to draw (1); planes of the input (2).
    view : int
        Side of the network's own grid, a multiple of 32; the lungs' box fills it, whatever its shape.
    **options
        Of `EncoderUNet`.

    Notes
    -----
    Cutting and putting back are triangle filters, as two matrices an image: they shrink without aliasing. In training
    the box and the mask's edge move at random, because predicted lungs are not the true ones.
    """

    def __init__(self, encoder: str, masks: int = 1, channels: int = 2, view: int = 192, **options: Any) -> None:
        super().__init__()
        if (masks, channels) != (1, 2):
            raise ValueError(f"masks {masks}, channels {channels}: wanted 1 mask, and 2 planes, image and lungs")
        self.network = EncoderUNet(encoder, masks=1, channels=1, **options)
        self.view = view

    @property
    def encoder(self) -> nn.Module:
        """What ImageNet's weights are for."""
        return self.network.encoder

    def forward_with_features(self, planes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return mask logits ``(N, 1, S, S)``, presence logits ``(N,)`` and encoder features ``(N, F)``."""
        images, lungs = planes[:, :1], planes[:, 1:2]
        if self.training:
            lungs = _moved_edge(lungs)
        down, across = (self._ends(lungs.sum(dim=(1, 5 - axis))) for axis in (2, 3))
        size = images.shape[-1]
        rows, columns = (_triangles(*ends, self.view, size)[:, None] for ends in (down, across))
        box, inside = rows @ images @ columns.mT, rows @ lungs @ columns.mT
        mean = box.mean(dim=(2, 3), keepdim=True)
        deviation = (box - mean).square().mean(dim=(2, 3), keepdim=True).sqrt().clamp(min=DEVIATION)
        drawn, presence, features = self.network.forward_with_features((box - mean) / deviation * inside)
        rows, columns = (_back(*ends, self.view, size)[:, None] for ends in (down, across))
        masks = rows @ drawn @ columns.mT
        return torch.where(lungs > 0.5, masks, torch.full_like(masks, OUTSIDE)), presence, features

    def _ends(self, profile: Tensor) -> tuple[Tensor, Tensor]:
        """Return first and last place of the box ``(N, 1)`` in pixels, from lung pixels a row or column ``(N, S)``."""
        size = profile.shape[1]
        total = profile.sum(dim=1, keepdim=True)
        reached = profile.cumsum(dim=1) / total.clamp(min=1)
        first = (reached < TAIL).to(profile.dtype).sum(dim=1, keepdim=True)
        last = (reached < 1 - TAIL).to(profile.dtype).sum(dim=1, keepdim=True) + 1
        first, last = torch.where(total > 0, first, 0.0), torch.where(total > 0, last.clamp(max=size), float(size))
        span = (last - first).clamp(min=size / 8)
        margins = [torch.rand_like(span) * 3 - 0.5 if self.training else torch.ones_like(span) for _ in range(2)]
        return first - MARGIN * span * margins[0], last + MARGIN * span * margins[1]


def _moved_edge(lungs: Tensor) -> Tensor:
    """Grow or shrink the lungs of a batch by up to four or one pixels."""
    steps = int(torch.randint(-1, 5, ()))
    if not steps:
        return lungs
    kernel = 2 * abs(steps) + 1
    sign = 1 if steps > 0 else -1
    return sign * nn.functional.max_pool2d(sign * lungs, kernel, 1, abs(steps))


def _triangles(first: Tensor, last: Tensor, outputs: int, inputs: int) -> Tensor:
    """Return matrices ``(N, outputs, inputs)`` that sample [first, last] ``(N, 1)`` by triangles of unit sum.

    They are as wide as the step, and at least one pixel; what lies outside the image repeats its edge.
    """
    step = (last - first) / outputs
    centres = first + (torch.arange(outputs, device=first.device, dtype=first.dtype) + 0.5)[None] * step - 0.5
    places = torch.arange(inputs, device=first.device, dtype=first.dtype)
    away = (centres.clamp(0, inputs - 1)[:, :, None] - places).abs()
    weights = (1 - away / step.clamp(min=1)[:, :, None]).clamp(min=0)
    return weights / weights.sum(dim=2, keepdim=True)


def _back(first: Tensor, last: Tensor, inputs: int, outputs: int) -> Tensor:
    """Return matrices ``(N, outputs, inputs)`` that put `_triangles`' samples back in their place."""
    step = (last - first) / inputs
    places = torch.arange(outputs, device=first.device, dtype=first.dtype)[None]
    centres = ((places + 0.5 - first) / step - 0.5).clamp(0, inputs - 1)
    away = (centres[:, :, None] - torch.arange(inputs, device=first.device, dtype=first.dtype)).abs()
    weights = (1 - away * step.clamp(max=1)[:, :, None]).clamp(min=0)
    return weights / weights.sum(dim=2, keepdim=True)
