"""The lung masks that a four-channel network sees: predicted by a model folder, or the true ones, as declared."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from covseg.model_folder.backends import open_backend
from covseg.registry import open_model
from covseg.stages.preprocess import prepare, resize
from covseg.stages.segment import segment
from covseg.training.dataset import Films
from covseg.training.recipe import Recipe

BATCH = 4


def lung_channel(recipe: Recipe, model: str) -> str | None:
    """Say what the fourth channel shows: ``truth``, or which model drew it; None where there is none."""
    if recipe.input.channels != 4:
        return None
    if recipe.data.lung == "truth":
        return "truth"
    card = open_model(model).card
    return f"predicted by {card.id}, weights {card.weights_sha256[:16]}"


def lung_masks(films: Films, recipe: Recipe, model: str) -> NDArray[np.uint8] | None:
    """Return the masks {0, 255} ``(N, H, W)`` that the network sees beside the film; None where it sees none.

    Parameters
    ----------
    films : Films
    recipe : Recipe
        ``data.lung`` says predicted or truth.
    model : str
        Model folder that draws the lungs, at its own threshold.
    """
    if recipe.input.channels != 4:
        return None
    if recipe.data.lung == "truth":
        return films.lungs
    folder = open_model(model)
    backend, card = open_backend(folder), folder.card
    drawn = np.empty_like(films.films)
    for first in range(0, len(drawn), BATCH):
        pixels = np.stack(
            [
                prepare(film.astype(np.float32) / 255, card.size, card.normalisation)[0]
                for film in films.films[first : first + BATCH]
            ]
        )
        for row, answer in enumerate(segment(backend, pixels), first):
            lung = resize(answer.lung, *drawn.shape[1:])
            drawn[row] = np.where(lung > card.thresholds.lung, 255, 0)
    return drawn
