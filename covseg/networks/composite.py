"""Networks made of networks: a cascade (lung first, infection after), and a mean over members and a mirror.

In: images ``(N, 1, S, S)`` as the first stage wants them. Out: the same three tensors as every network
that draws lung and infection. Everything stays inside one graph, so the pipeline sees one model.
"""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

from covseg.networks.table import build

NEVER = -20.0  # a logit: probability 2e-9


class StageConfig(TypedDict):
    """One network of a composite, as it stands in ``covseg.json``.

    Attributes
    ----------
    network, network_args
        Name in `covseg.networks.table.NETWORKS`, and what it is built from.
    size
        Side of its grid, where that is not the model's.
    standardise
        It learnt on standardised images, and another one of the composite did not.
    """

    network: str
    network_args: NotRequired[dict[str, object]]
    size: NotRequired[int | None]
    standardise: NotRequired[bool]


class Cascade(nn.Module):
    """A lung network, and an infection network that may see the lung mask and be held inside it.

    Parameters
    ----------
    lung, infection : StageConfig
        The first mask of `lung` is the lung; the last of `infection` is the infection. Without `infection`
        (None) there is never any: stage 1 of a cascade, alone.
    sees_lung : bool
        The infection stage gets the lung mask (threshold .5) as a second plane.
    constrained : bool
        Infection outside the lung mask is emptied, and is no sign of presence.
    """

    def __init__(
        self,
        lung: StageConfig,
        infection: StageConfig | None = None,
        sees_lung: bool = False,
        constrained: bool = False,
    ) -> None:
        super().__init__()
        self.lung = _built(lung)
        self.infection = _built(infection) if infection else None
        self.lung_size, self.infection_size = lung.get("size"), infection.get("size") if infection else None
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
    """The mean probability of members that draw lung and infection.

    With `mirror` each member also reads the image mirrored (test-time augmentation); twice the cost.
    """

    def __init__(self, members: list[StageConfig], mirror: bool = False) -> None:
        super().__init__()
        self.members: Any = nn.ModuleList(_built(member) for member in members)
        self.sizes = [member.get("size") for member in members]
        self.standardise = [bool(member.get("standardise")) for member in members]
        self.mirror = mirror

    def forward_with_features(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits of the mean probabilities, and the first member's features."""
        masks, presence, features = self._probabilities(images)
        if self.mirror:
            turned = self._probabilities(images.flip(3))
            masks += [mask.flip(3) for mask in turned[0]]
            presence += turned[1]
        return _logit(masks), _logit(presence), features

    def _probabilities(self, images: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Return every member's probabilities of masks and presence, and the first member's features."""
        answers = [
            member.forward_with_features(_resized(_standardised(images) if standardise else images, size))
            for member, size, standardise in zip(self.members, self.sizes, self.standardise, strict=True)
        ]
        masks = [_resized(answer[0].sigmoid(), images.shape[-1]) for answer in answers]
        return masks, [answer[1].sigmoid() for answer in answers], answers[0][2]


def _built(stage: StageConfig) -> Any:
    return build(stage["network"], stage.get("network_args", {}))


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
