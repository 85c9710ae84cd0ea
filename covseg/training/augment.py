"""Move an image and its masks together; grey until the end; one seed per sample.

The stream is a pure function of (seed, epoch, sample), so a resumed run sees the same images.
"""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from covseg.training.acquisition import acquired
from covseg.training.augment_config import AugmentConfig

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
import albumentations  # pinned to 2.0: its last releases under MIT; what came after it is AGPL
import cv2

Grey = NDArray[np.uint8]


def line(config: AugmentConfig) -> list[albumentations.BasicTransform | albumentations.BaseCompose]:
    """Return the moves that have a probability, in order."""
    moves = [
        albumentations.HorizontalFlip(p=config.mirror),
        albumentations.Affine(
            scale=(1 - config.scale, 1 + config.scale),
            translate_percent=(-config.shift, config.shift),
            rotate=(-config.rotate, config.rotate),
            shear=(-config.shear, config.shear),
            p=config.affine,
            border_mode=cv2.BORDER_CONSTANT,
            fill=0,
            fill_mask=0,
        ),
        albumentations.ElasticTransform(alpha=40, sigma=9, approximate=True, p=config.elastic),
        albumentations.RandomBrightnessContrast(config.brightness, config.contrast, p=config.exposure),
        albumentations.RandomGamma((70, 140), p=config.gamma),
        albumentations.GaussianBlur((3, 5), p=config.blur),
        albumentations.GaussNoise(std_range=config.noise_std, p=config.noise),
    ]
    return [move for move in moves if move.p > 0]


class Augmenter:
    """The augmentation of a recipe; `seed` is the run's."""

    def __init__(self, config: AugmentConfig, seed: int) -> None:
        self.seed, self.path = seed, config.path
        self.line = albumentations.Compose(line(config))

    def __call__(self, image: Grey, masks: Grey, epoch: int, sample: int) -> tuple[Grey, Grey]:
        """Return the augmented image ``(H, W)`` and masks ``(H, W, M)``, uint8."""
        self.line.set_random_seed(int(np.random.SeedSequence((self.seed, epoch, sample)).generate_state(1)[0]))
        moved = self.line(image=image, mask=masks)
        return acquired(moved["image"], moved["mask"], self.path, np.random.default_rng((self.seed, epoch, sample, 1)))

    def again(self, image: Grey, epoch: int, sample: int) -> Grey:
        """Send an augmented image down another path in the same frame: a second view, whose masks are the first's."""
        path = self.path.model_copy(update={"share": 1.0, "frame": 0.0})
        rng = np.random.default_rng((self.seed, epoch, sample, 2))
        return acquired(image, np.zeros((*image.shape, 1), np.uint8), path, rng)[0]
