"""Move a film and its two masks together; grey until the end; one seed per sample.

The stream is a pure function of (seed, epoch, sample), so a resumed run sees the same films.
"""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
import albumentations
import cv2

Grey = NDArray[np.uint8]


class Augmenter:
    """Mirror, shift, scale, rotate, re-expose, blur and add noise.

    Parameters
    ----------
    seed : int
        Seed of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.line = albumentations.Compose(
            [
                albumentations.HorizontalFlip(p=0.5),
                albumentations.Affine(
                    scale=(0.85, 1.15),
                    translate_percent=(-0.08, 0.08),
                    rotate=(-12, 12),
                    shear=(-4, 4),
                    p=0.9,
                    border_mode=cv2.BORDER_CONSTANT,
                    fill=0,
                    fill_mask=0,
                ),
                albumentations.ElasticTransform(alpha=40, sigma=9, approximate=True, p=0.15),
                albumentations.RandomBrightnessContrast(0.2, 0.25, p=0.6),
                albumentations.RandomGamma((70, 140), p=0.4),
                albumentations.OneOf(
                    [albumentations.GaussianBlur((3, 5)), albumentations.GaussNoise(std_range=(0.01, 0.05))], p=0.3
                ),
            ],
            additional_targets={"lung": "mask", "infection": "mask"},
        )

    def __call__(self, film: Grey, lung: Grey, infection: Grey, epoch: int, sample: int) -> tuple[Grey, Grey, Grey]:
        """Return the augmented film and masks, all uint8 ``(H, W)``."""
        self.line.set_random_seed(int(np.random.SeedSequence((self.seed, epoch, sample)).generate_state(1)[0]))
        moved = self.line(image=film, lung=lung, infection=infection)
        return moved["image"], moved["lung"], moved["infection"]
