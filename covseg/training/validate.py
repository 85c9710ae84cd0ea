"""Validation: per-image counts on the model grid at threshold .5, to a row of numbers.

The convention is in the names: per image; ``val_dice`` over all images counts an empty answer to an empty
truth as 1; ``val_covid_dice`` is COVID-19 images only, and ``val_operating_dice`` is that where the image-level
threshold keeps a specificity of .98; ``val_robust_dice`` is its mean with that of shifted images. The released numbers
come from `covseg.evaluation`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from covseg.metrics.convention import RATIOS, Empty, ratios
from covseg.training.batches import Samples, validation_batches
from covseg.training.dataset import ImageArrays
from covseg.training.learner import Learning, on_device
from covseg.training.losses import Loss
from covseg.training.ranks import Rank

SHORT = {"COVID-19": "covid", "Non-COVID": "noncovid"}  # other strata: their own name, small
_NAMED = {name: list(RATIOS).index(name) for name in ("dice", "iou", "accuracy")}
DICE = _NAMED["dice"]
SPECIFICITY = 0.98  # of images without infection, at the operating point
ROBUST = "val_robust_dice"
Row = tuple[int, int, NDArray[np.int64], float]  # sample, stratum, counts ``(M, 4)``, presence logit


def counts(guess: Tensor, truth: Tensor) -> Tensor:
    """Return tp, fp, fn, tn of each mask ``(..., H, W)`` -> ``(..., 4)`` int64."""
    both = (guess & truth).sum(dim=(-2, -1))
    false, missed = guess.sum(dim=(-2, -1)) - both, truth.sum(dim=(-2, -1)) - both
    return torch.stack([both, false, missed, guess.shape[-1] * guess.shape[-2] - both - false - missed], dim=-1)


@torch.inference_mode()
def validate(
    learning: Learning, samples: Samples, loss: Loss, rank: Rank, workers: int = 0, shifted: Sequence[Samples] = ()
) -> dict[str, float]:
    """Measure the network on a split; every rank takes its part and all get the same row.

    Parameters
    ----------
    shifted : sequence of Samples
        Some of the split's images, shifted; () leaves `ROBUST` unmeasured.

    Returns
    -------
    dict of str to float
        Loss, Dice, IoU, pixel accuracy, Dice per stratum, specificity, presence; NaN where nothing was counted.
    """
    targets, known = samples.recipe.data.targets, samples.images.known
    rows, mean = _walk(learning, samples, loss, rank, workers)
    row = {"val_loss": mean} | summary(rows, targets, known)
    if shifted:
        others = [_walk(learning, part, loss, rank, workers)[0] for part in shifted]
        row[ROBUST] = robust_dice(rows, others, targets, known)
    return row


def _walk(learning: Learning, samples: Samples, loss: Loss, rank: Rank, workers: int) -> tuple[list[Row], float]:
    """Return a row an image, of all ranks, and the mean loss."""
    learning.eval()
    rows: list[Row] = []
    losses: list[tuple[float, int]] = []
    images = samples.images
    share = torch.from_numpy(_present(images, samples.recipe.data.targets).mean(axis=0)).float().to(rank.device)
    for batch in validation_batches(samples, rank, workers):
        moved = on_device(batch, rank)
        masks, presence, classes = learning(moved.images)
        with_a_mask = share * len(batch.samples)  # the Dice term is then a mean over the split's images, not a batch's
        value = loss(masks.float(), moved.truth, presence.float(), classes, moved.strata, with_a_mask)
        losses.append((value.item(), len(batch.samples)))
        guess = masks > 0
        if samples.recipe.lung_constraint and moved.images.shape[1] > 1:
            guess &= moved.images[:, 1:2] > 0  # no infection outside the lung plane that the network saw
        table = counts(guess, moved.truth > 0).cpu().numpy()
        rows += zip(
            batch.samples.tolist(), batch.strata.tolist(), list(table), presence.float().cpu().tolist(), strict=True
        )
    learning.train()
    rows, losses = rank.gathered(rows), rank.gathered(losses)
    rows.sort(key=lambda row: row[0])
    mean = sum(value * images for value, images in losses) / sum(images for _, images in losses)
    return rows, mean


def summary(rows: list[Row], targets: tuple[str, ...], known: tuple[str, ...]) -> dict[str, float]:
    """Turn rows into named means; NaN where none counts."""
    strata = np.array([row[1] for row in rows])
    table = np.stack([row[2] for row in rows])
    means: dict[str, float] = {}
    if "lung" in targets:
        means["val_lung_dice"] = _mean(ratios(table[:, targets.index("lung")], Empty.ONE)[:, DICE])
    if "infection" not in targets:
        return means
    infection = table[:, targets.index("infection")]
    values = ratios(infection, Empty.ONE)
    means |= {f"val_{name}": _mean(values[:, column]) for name, column in _NAMED.items()}
    for index, stratum in enumerate(known):
        short = SHORT.get(stratum, re.sub(r"[^a-z0-9]+", "_", stratum.casefold()))
        means[f"val_{short}_dice"] = _mean(values[strata == index, DICE])
    positive = infection[:, 0] + infection[:, 2] > 0
    drawn = infection[:, 0] + infection[:, 1] > 0
    present = np.array([row[3] for row in rows]) > 0
    answers = _answers(rows, targets, known)
    return means | {
        "val_operating_dice": _operating_dice(answers, _threshold(answers)),
        "val_negative_specificity": _mean(1.0 - drawn[~positive]),
        "val_presence_sensitivity": _mean(present[positive].astype(float)),
        "val_presence_specificity": _mean(1.0 - present[~positive]),
    }


def robust_dice(
    rows: list[Row], shifted: Sequence[list[Row]], targets: tuple[str, ...], known: tuple[str, ...]
) -> float:
    """Return the mean of ``val_operating_dice`` and the mean of the shifts'; NaN where one has none.

    A shift's threshold is the higher one of its own and of the unshifted images': neither gets more than 2 % of the
    images without infection called, and an image whose presence falls with the shift is lost.
    """
    plain = _answers(rows, targets, known)
    threshold = _threshold(plain)
    others = [_answers(one, targets, known) for one in shifted]
    moved = [_operating_dice(one, float(np.maximum(threshold, _threshold(one)))) for one in others]
    return float(np.mean([_operating_dice(plain, threshold), np.mean(moved)]))


class _Answers(NamedTuple):
    """Of each image: Dice; presence, -inf where nothing is drawn; whether it has infection, and whether it counts."""

    dice: NDArray[np.float64]
    presence: NDArray[np.float64]
    positive: NDArray[np.bool_]
    counted: NDArray[np.bool_]


def _answers(rows: list[Row], targets: tuple[str, ...], known: tuple[str, ...]) -> _Answers:
    infection = np.stack([row[2] for row in rows])[:, targets.index("infection")]
    positive = infection[:, 0] + infection[:, 2] > 0
    presence = np.where(infection[:, 0] + infection[:, 1] > 0, [row[3] for row in rows], -np.inf)
    strata = np.array([row[1] for row in rows])
    counted = strata == known.index("COVID-19") if "COVID-19" in known else positive
    return _Answers(ratios(infection, Empty.ONE)[:, DICE], presence, positive, counted)


def _threshold(answers: _Answers) -> float:
    """Return the lowest presence that leaves `SPECIFICITY` of the negative images clean; NaN without one."""
    negative = np.sort(answers.presence[~answers.positive])[::-1]
    return float(negative[int((1 - SPECIFICITY) * len(negative) + 1e-9)]) if len(negative) else float("nan")


def _operating_dice(answers: _Answers, threshold: float) -> float:
    """Mean Dice of the counted images where those of no higher presence are emptied; NaN without a threshold."""
    if np.isnan(threshold):
        return float("nan")
    called = answers.presence > threshold
    return _mean(np.where(called, answers.dice, np.where(answers.positive, 0.0, 1.0))[answers.counted])


def names(targets: tuple[str, ...], known: tuple[str, ...]) -> list[str]:
    """Name all numbers that a row may have, but the loss."""
    named = list(summary([(0, 0, np.zeros((len(targets), 4), np.int64), 0.0)], targets, known))
    return [*named, ROBUST] if "infection" in targets else named


def metrics(images: ImageArrays, targets: tuple[str, ...]) -> list[str]:
    """Name the numbers that an epoch can be chosen by on these images: higher is better."""
    masks = _present(images, targets)
    counted = np.stack([np.zeros_like(masks), np.zeros_like(masks), masks, ~masks], axis=-1).astype(np.int64)
    rows = [(row, int(images.strata[row]), counted[row], 0.0) for row in range(len(images.names))]
    found = summary(rows, targets, images.known)
    found |= {ROBUST: found["val_operating_dice"]} if "infection" in targets else {}
    return [name for name, value in found.items() if not np.isnan(value)]


def _present(images: ImageArrays, targets: tuple[str, ...]) -> NDArray[np.bool_]:
    """Tell which images have which masks, ``(N, M)``."""
    drawn = {"lung": images.lungs, "infection": images.infections}
    return np.stack([drawn[name].any(axis=(1, 2)) for name in targets], axis=1)


def _mean(values: NDArray[np.floating[Any]]) -> float:
    return float(values.mean()) if len(values) else float("nan")
