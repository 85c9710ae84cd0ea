"""Lung masks, true or drawn by a model folder: for a four-channel network, and for the input filter."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from covseg.model_folder.backends import open_backend
from covseg.model_folder.folder import ModelFolder
from covseg.registry import open_model
from covseg.settings.model import ModelConfig
from covseg.stages.preprocess import prepare, resize
from covseg.stages.segment import segment
from covseg.training.dataset import ImageArrays
from covseg.training.recipe import Recipe

BATCH = 4


def lung_channel(recipe: Recipe, images: ImageArrays, model: str) -> str | None:
    """Return whose lungs a run learns from: ``truth``, or which model drew them; None where it sees and draws none."""
    if images.lungs_by or not recipe.input.sees_lung:
        return images.lungs_by
    return "truth" if recipe.data.lung == "truth" else drawn_by(open_model(model))


def drawn_by(folder: ModelFolder) -> str:
    """Name the model that draws lungs, as ``run.json`` keeps it."""
    return f"predicted by {folder.config.id}, weights {folder.config.weights_sha256[:16]}"


def on_grid(images: Iterable[NDArray[np.uint8]], config: ModelConfig) -> NDArray[np.float32]:
    """Prepare grey images for a model, as scoring would see them, ``(N, S, S)``."""
    grid = (config.size, config.normalisation, config.source_side)
    return np.stack([prepare((image / 255).astype(np.float32), *grid) for image in images])


def lung_masks(images: ImageArrays, recipe: Recipe, model: str) -> NDArray[np.uint8] | None:
    """Return the masks {0, 255} ``(N, H, W)`` that the network sees beside the image; None where it sees none.

    The recipe's ``data.lung`` says predicted or truth; `model` is the folder that draws them, at its own threshold.
    """
    if not recipe.input.sees_lung:
        return None
    if recipe.data.lung == "truth":
        return images.lungs
    return drawn_lungs(images.images, open_model(model))


def drawn_lungs(images: NDArray[np.uint8], folder: ModelFolder) -> NDArray[np.uint8]:
    """Return the lungs {0, 255} that a model draws on grey images, ``(N, H, W)``, at its own threshold."""
    backend, config = open_backend(folder), folder.config
    drawn = np.empty_like(images)
    for first in range(0, len(drawn), BATCH):
        pixels = on_grid(images[first : first + BATCH], config)
        for row, answer in enumerate(segment(backend, pixels), first):
            lung = resize(answer.lung, *drawn.shape[1:])
            drawn[row] = np.where(lung > config.thresholds.lung, 255, 0)
    return drawn


def fill_lungs(images: ImageArrays, folder: ModelFolder) -> ImageArrays:
    """Return images whose lungs are the model's own where they have no true ones, and whose they are."""
    missing = np.flatnonzero(~images.lungs.any(axis=(1, 2)))
    if not len(missing):
        return images
    lungs = images.lungs.copy()
    lungs[missing] = drawn_lungs(images.images[missing], folder)
    return replace(images, lungs=lungs, lungs_by=drawn_by(folder))
