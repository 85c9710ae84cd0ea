"""Losses on logits; every one is defined, with a gradient, on a batch of empty masks."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def bce(logits: Tensor, truth: Tensor) -> Tensor:
    """Mean binary cross-entropy; empty masks push every pixel down."""
    return functional.binary_cross_entropy_with_logits(logits, truth)


def positive_dice(logits: Tensor, truth: Tensor) -> Tensor:
    """One minus soft Dice per film, over films with a mask.

    Films without a mask are left to the cross-entropy (soft Dice has no useful gradient there);
    a batch without any mask gives 0 with a zero gradient.

    Parameters
    ----------
    logits, truth : Tensor, shape (N, H, W)
        Truth is 0 or 1.
    """
    probability = logits.sigmoid()
    overlap = (probability * truth).sum(dim=(1, 2))
    total = probability.sum(dim=(1, 2)) + truth.sum(dim=(1, 2))
    present = (truth.sum(dim=(1, 2)) > 0).float()
    losses = (1 - (2 * overlap + 1) / (total + 1)) * present
    return losses.sum() / present.sum().clamp(min=1)


def joint(masks: Tensor, presence: Tensor, lungs: Tensor, infections: Tensor) -> Tensor:
    """Lung (BCE + Dice), infection (BCE + Dice on films that have one) and presence (.2 BCE)."""
    any_infection = (infections.sum(dim=(1, 2)) > 0).float()
    return (
        bce(masks[:, 0], lungs)
        + 0.5 * positive_dice(masks[:, 0], lungs)
        + bce(masks[:, 1], infections)
        + positive_dice(masks[:, 1], infections)
        + 0.2 * functional.binary_cross_entropy_with_logits(presence, any_infection)
    )


def is_finite(loss: Tensor) -> bool:
    """Tell whether the loss can be stepped on."""
    return bool(torch.isfinite(loss))
