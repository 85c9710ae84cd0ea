"""Shifted images of Val for ``val_robust_dice``: a third of each stratum under a few cheap shifts, the same each time.

Only shifts that training draws something like are here, so that those which it does not stay a check of what a
selection on this number came to (`covseg.synthetic.shifts`, `seen`). The lung plane is that of the image as it is.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from covseg.synthetic.shifts import SHIFTS, shifted
from covseg.training.batches import Samples
from covseg.training.dataset import ImageArrays

CHOSEN_BY = ("down128", "jpeg50", "gamma1.4", "noise0.03")
EVERY = 3  # of each stratum


def shifted_sets(samples: Samples) -> list[Samples]:
    """Return every third image of each stratum, at least one, under each of `CHOSEN_BY`."""
    images = samples.images
    rows = np.sort(np.concatenate([np.flatnonzero(images.strata == one)[::EVERY] for one in np.unique(images.strata)]))
    part = replace(
        images, names=[images.names[row] for row in rows], strata=images.strata[rows], images=images.images[rows],
        lungs=images.lungs[rows], infections=images.infections[rows],
    )  # fmt: skip
    lungs = None if samples.lungs is None else samples.lungs[rows]
    return [Samples(_moved(part, name), samples.recipe, lungs) for name in CHOSEN_BY]


def _moved(part: ImageArrays, name: str) -> ImageArrays:
    moved = [
        np.rint(shifted(name, SHIFTS[name], image.astype(np.float32) / 255, key) * 255).astype(np.uint8)
        for key, image in zip(part.names, part.images, strict=True)
    ]
    return replace(part, images=np.stack(moved))
