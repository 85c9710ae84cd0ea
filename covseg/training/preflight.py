"""What has to be there before the first step: both splits, a metric that Val can measure, weights to start from."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from covseg.data.cache import local_copy
from covseg.data.images import STRATA
from covseg.errors import UsageError
from covseg.registry import open_model
from covseg.training.batches import Samples
from covseg.training.dataset import SIDE, ImageArrays, has_lungs, load_split, without_leaks
from covseg.training.job import TrainingJob
from covseg.training.learner import Learner
from covseg.training.lungs import fill_lungs, lung_masks
from covseg.training.ranks import Rank
from covseg.training.recipe import Recipe
from covseg.training.validate import metrics, names

log = logging.getLogger(__name__)

SPLITS = ("Train", "Val")
FEW = 6  # images of each split that a preflight reads


def preflight(recipe: Recipe, job: TrainingJob) -> str:
    """Do all that can fail before the first step, on a few images; return what the encoder would start from.

    Raises
    ------
    UsageError
        No data, weights that cannot be fetched or read, a metric that is not measured.
    """
    root = local_copy(job.data, SPLITS)
    images = {split: _images(root, split, recipe, FEW, job.lung_model) for split in SPLITS}
    _check_metric(recipe, names(recipe.data.targets, images["Val"].known))
    return Learner(recipe, Rank(), 1).start


def load_sets(recipe: Recipe, job: TrainingJob) -> dict[str, Samples]:
    """Read Train and Val, with the lung masks that the network sees.

    Raises
    ------
    UsageError
        As `preflight`; also where no image of Val counts for the metric.
    """
    root = local_copy(job.data, SPLITS)
    images = {split: _images(root, split, recipe, job.limit, job.lung_model) for split in SPLITS}
    _check_metric(recipe, metrics(images["Val"], recipe.data.targets))
    if job.drop_leaks:
        images["Train"], dropped = without_leaks(images["Train"], images["Val"])
        log.info("left out %d images of Train that are images of Val", dropped)
    return {split: Samples(part, recipe, lung_masks(part, recipe, job.lung_model)) for split, part in images.items()}


def pos_weight(recipe: Recipe, images: ImageArrays) -> float:
    """Return BCE's weight; of the data: background over foreground pixels of the infection masks of Train.

    Raises
    ------
    UsageError
        When the data is to give it and has no infection.
    """
    if recipe.loss.pos_weight != "data":
        return float(recipe.loss.pos_weight)
    infected = int(np.count_nonzero(images.infections))
    if not infected:
        raise UsageError("loss.pos_weight = 'data', but no image of Train has infection: give a number")
    return (images.infections.size - infected) / infected


def _check_metric(recipe: Recipe, measured: Iterable[str]) -> None:
    if recipe.stop.metric not in measured:
        wanted = ", ".join(measured)
        raise UsageError(f"stop.metric {recipe.stop.metric!r} is not measured on this Val: wanted one of {wanted}")


def _images(root: Path, split: str, recipe: Recipe, limit: int | None, lung_model: str) -> ImageArrays:
    """Read one split; a set without lung masks gets those of `lung_model`, where something else is to be learnt."""
    targets: tuple[str, ...] = recipe.data.targets
    if recipe.input.sees_lung and recipe.data.lung == "truth":
        targets = ("lung", *targets)
    drawn = "infection" in targets and "lung" in targets and not has_lungs(root, split)
    targets = ("infection",) if drawn else targets
    images = load_split(root, split, limit, recipe.data.strata, targets, max(SIDE, recipe.input.size))
    images = fill_lungs(images, open_model(lung_model)) if drawn else images
    if recipe.network.classes and images.known != STRATA:
        raise UsageError(f"network.classes is for {', '.join(STRATA)}; this set has {', '.join(images.known)}")
    return images
