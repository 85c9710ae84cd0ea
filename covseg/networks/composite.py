"""Networks made of networks: a cascade (lung first, infection after), and a mean over members and a mirror.

In: images ``(N, 1, S, S)`` as the first stage wants them. Out: the same three tensors as every network
that draws lung and infection. Everything stays inside one graph, so the pipeline sees one model.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

NEVER = -20.0  # a logit: probability 2e-9


class Cascade(nn.Module):
    """A lung network, and an infection network that may see the lung mask and be held inside it.

    Parameters
    ----------
    lung, infection : dict
        ``network`` and ``network_args`` of each stage, and ``size`` where its grid is not the model's;
        ``standardise`` where the lung stage learnt on standardised images and the other did not.
        The first mask of `lung` is the lung; the last of `infection` is the infection. Without `infection`
        (None) there is never any: stage 1 of a cascade, alone.
    sees_lung : bool
        The infection stage gets the lung mask (threshold .5) as a second plane.
    constrained : bool
        Infection outside the lung mask is emptied, and is no sign of presence.
    """

    def __init__(
        self,
        lung: dict[str, Any],
        infection: dict[str, Any] | None = None,
        sees_lung: bool = False,
        constrained: bool = False,
    ) -> None:
        super().__init__()
        from covseg.networks.table import build

        self.lung = build(lung["network"], lung.get("network_args", {}))
        self.infection = build(infection["network"], infection.get("network_args", {})) if infection else None
        self.lung_size, self.infection_size = lung.get("size"), (infection or {}).get("size")
        self.lung_standardise = bool(lung.get("standardise"))
        self.sees_lung, self.constrained = sees_lung, constrained

    def forward_with_features(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return lung and infection logits ``(N, 2, S, S)``, presence ``(N,)`` and the lung stage's features."""
        first = _standardised(images) if self.lung_standardise else images
        drawn, _, features = self.lung.forward_with_features(_resized(first, self.lung_size))
        lung = _resized(drawn[:, :1], images.shape[-1])
        if self.infection is None:
            never = torch.full_like(lung, NEVER)
            return torch.cat([lung, never], dim=1), never[:, 0, 0, 0], features
        inside = (lung > 0).to(images.dtype)
        seen = torch.cat([images, inside], dim=1) if self.sees_lung else images
        drawn, presence, _ = self.infection.forward_with_features(_resized(seen, self.infection_size))
        infection = _resized(drawn[:, -1:], images.shape[-1])
        if self.constrained:
            infection = torch.where(inside > 0, infection, torch.full_like(infection, NEVER))
            presence = torch.minimum(presence, infection.amax(dim=(1, 2, 3)))
        return torch.cat([lung, infection], dim=1), presence, features


class Ensemble(nn.Module):
    """The mean probability of members that draw lung and infection, and of their mirror images.

    Parameters
    ----------
    members : list of dict
        ``network`` and ``network_args`` of each; ``size`` where its grid is not the model's; ``standardise``
        where it learnt on standardised images and another member did not.
    mirror : bool
        Each member also reads the image mirrored (test-time augmentation); twice the cost.
    """

    def __init__(self, members: list[dict[str, Any]], mirror: bool = False) -> None:
        super().__init__()
        from covseg.networks.table import build

        self.members: Any = nn.ModuleList(build(one["network"], one.get("network_args", {})) for one in members)
        self.sizes = [one.get("size") for one in members]
        self.standardise = [bool(one.get("standardise")) for one in members]
        self.mirror = mirror

    def forward_with_features(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits of the mean probabilities, and the first member's features."""
        masks, presence, features = self._ask(images)
        if self.mirror:
            turned = self._ask(images.flip(3))
            masks += [mask.flip(3) for mask in turned[0]]
            presence += turned[1]
        return _logit(masks), _logit(presence), features

    def _ask(self, images: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Return every member's probabilities of masks and presence, and the first member's features."""
        answers = [
            member.forward_with_features(_resized(_standardised(images) if standardise else images, size))
            for member, size, standardise in zip(self.members, self.sizes, self.standardise, strict=True)
        ]
        masks = [_resized(answer[0].sigmoid(), images.shape[-1]) for answer in answers]
        return masks, [answer[1].sigmoid() for answer in answers], answers[0][2]


def _logit(probabilities: list[Tensor]) -> Tensor:
    return torch.logit(torch.stack(probabilities).mean(dim=0), eps=1e-6)


def _resized(planes: Tensor, size: int | None) -> Tensor:
    if size is None or planes.shape[-1] == size:
        return planes
    return functional.interpolate(planes, size=(size, size), mode="bilinear", antialias=size < planes.shape[-1])


def _standardised(images: Tensor) -> Tensor:
    """`covseg.stages.preprocess.standardise`, for a stage that learnt so behind one that did not."""
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    deviation = (images - mean).square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    standard: Tensor = (images - mean) / deviation.clamp(min=1e-3)
    return standard
