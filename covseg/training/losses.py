"""A weighted sum of losses on logits; every term is defined, with a useful or zero gradient, on empty masks.

In: mask logits and truth ``(N, M, H, W)``, truth 0 or 1. Out: one number. Half of the images have no
infection at all, so what a term does there decides the false alarms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pkgutil import resolve_name

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from covseg.training.loss_table import LOSSES, LossConfig, options

PLANE = (1, 2)


def bce(logits: Tensor, truth: Tensor, pos_weight: float = 1.0) -> Tensor:
    """Mean binary cross-entropy ``(N, H, W)``; empty masks push every pixel down."""
    weight = None if pos_weight == 1.0 else torch.tensor(pos_weight, device=logits.device)
    return functional.binary_cross_entropy_with_logits(logits, truth, pos_weight=weight)


def positive_dice(logits: Tensor, truth: Tensor, count: Tensor | None = None) -> Tensor:
    """One minus soft Dice per image, over images with a mask.

    Images without a mask are left to the other terms (soft Dice has no useful gradient there);
    a batch without any mask gives 0 with a zero gradient.

    Parameters
    ----------
    logits, truth : Tensor, shape (N, H, W)
        Truth is 0 or 1.
    count : Tensor or None
        What to divide by, where this is a part of a batch; None counts the images here.
    """
    probability = logits.sigmoid()
    overlap = (probability * truth).sum(dim=PLANE)
    total = probability.sum(dim=PLANE) + truth.sum(dim=PLANE)
    present = (truth.sum(dim=PLANE) > 0).float()
    losses = (1 - (2 * overlap + 1) / (total + 1)) * present
    return losses.sum() / (present.sum().clamp(min=1) if count is None else count.clamp(min=1e-6))


def focal(logits: Tensor, truth: Tensor, gamma: float = 2.0) -> Tensor:
    """Cross-entropy with easy pixels turned down, (1 - p)^gamma (arXiv 1708.02002, without alpha)."""
    entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return ((1 - torch.exp(-entropy)) ** gamma * entropy).mean()


def tversky(logits: Tensor, truth: Tensor, false_positive: float = 0.3, false_negative: float = 0.7) -> Tensor:
    """One minus the Tversky index per image (arXiv 1706.05721); on an empty mask every false pixel still costs."""
    probability = logits.sigmoid()
    overlap = (probability * truth).sum(dim=PLANE)
    wrong = (probability * (1 - truth)).sum(dim=PLANE)
    missed = ((1 - probability) * truth).sum(dim=PLANE)
    return (1 - (overlap + 1) / (overlap + false_positive * wrong + false_negative * missed + 1)).mean()


def boundary(logits: Tensor, truth: Tensor) -> Tensor:
    """Mean of probability times signed distance to the true border, in sides (arXiv 1812.07032).

    An empty mask has no border: its distance is taken as one side everywhere, so false pixels cost there too.
    """
    distance = np.stack([_signed_distance(mask) for mask in truth.detach().cpu().numpy().astype(np.uint8)])
    return (logits.sigmoid() * torch.from_numpy(distance).to(logits.device)).mean()


def _signed_distance(mask: np.ndarray) -> np.ndarray:
    """Positive outside, negative inside ``(H, W)`` float32, as a share of the longer side."""
    if not mask.any():
        return np.ones(mask.shape, np.float32)
    outside = cv2.distanceTransform(1 - mask, cv2.DIST_L2, 5)
    inside = cv2.distanceTransform(mask, cv2.DIST_L2, 5)
    return np.asarray((outside - inside) / max(mask.shape), np.float32)


def terms(config: LossConfig, pos_weight: float) -> list[tuple[float, Callable[..., Tensor], bool]]:
    """Return the mask losses that have a weight: it, the function, and whether that takes a count; those come last."""
    built = []
    for name, weight in config.weights.items():
        term = LOSSES[name]
        arguments = {option: getattr(config, key) for option, key in options(name).items()}
        arguments |= {"pos_weight": pos_weight} if term.pos_weight else {}
        built.append((weight, partial(resolve_name(term.place), **arguments), term.counted))
    return sorted(built, key=lambda term: term[2])  # the order of a sum of floats is part of its value


def disagreement(masks: Tensor, presence: Tensor) -> Tensor:
    """Return the mean squared difference of probabilities between two views of each image, masks and presence.

    Parameters
    ----------
    masks : Tensor, shape (2 N, M, H, W)
        Logits: one view of each image, then the other of each.
    presence : Tensor, shape (2 N,)
        Logits of any infection.
    """
    one, other = masks.sigmoid().chunk(2)
    found, again = presence.sigmoid().chunk(2)
    return (one - other).square().mean() + (found - again).square().mean()


class Loss:
    """What a step goes down on.

    Parameters
    ----------
    targets : sequence of str
        Which mask each channel draws: ``lung``, ``infection``.
    pos_weight : float
        Of the infection's cross-entropy; the config's number, or background over foreground of the data.
    """

    def __init__(self, config: LossConfig, targets: Sequence[str], pos_weight: float = 1.0) -> None:
        self.config, self.targets = config, tuple(targets)
        self._terms = {name: terms(config, pos_weight if name == "infection" else 1.0) for name in self.targets}

    def __call__(
        self,
        masks: Tensor,
        truth: Tensor,
        presence: Tensor,
        classes: Tensor | None,
        strata: Tensor,
        with_a_mask: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of a batch.

        Parameters
        ----------
        masks, truth : Tensor, shape (N, M, H, W)
            Logits, and 0 or 1.
        presence : Tensor, shape (N,)
            Logits of any infection.
        classes : Tensor, shape (N, 3), or None
        strata : Tensor of int64, shape (N,)
        with_a_mask : Tensor, shape (M,), or None
            Images that have each mask, where this is one rank's part of a batch; see `positive_dice`.
        """
        total = masks.sum() * 0
        for channel, name in enumerate(self.targets):
            weight = self.config.lung if name == "lung" and len(self.targets) > 1 else 1.0
            count = {} if with_a_mask is None else {"count": with_a_mask[channel]}
            for share, term, counted in self._terms[name]:
                value = term(masks[:, channel], truth[:, channel], **(count if counted else {}))
                total = total + weight * share * value
        if self.config.presence and "infection" in self.targets:
            infected = (truth[:, self.targets.index("infection")].sum(dim=PLANE) > 0).float()
            total = total + self.config.presence * functional.binary_cross_entropy_with_logits(presence, infected)
        if self.config.classes and classes is not None:
            total = total + self.config.classes * functional.cross_entropy(classes, strata)
        return total
