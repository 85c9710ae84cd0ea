"""Procedural chest radiographs with known lungs and infection: what the demo and the tests look at.

No patient image is stored in the repository; these images are made from a seed. They are drawn by
hand-written rules (rough attenuation physics), never by a model, and no model is trained on them.
Right and left differ (heart, domes, infection), so that a swapped side shows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from covseg.records import Mask
from covseg.synthetic.phantom.anatomy import make_anatomy
from covseg.synthetic.phantom.exposure import make_exposure
from covseg.synthetic.phantom.image import expose, lung_masks
from covseg.synthetic.phantom.infection import EDGE, FIELD, make_opacity

BITS = 12
WHITE = (1 << BITS) - 1


@dataclass(frozen=True)
class Phantom:
    """One made image and its truth, masks ``(H, W)`` of 0 and 1.

    The grey values ``(H, W)`` are 0-4095 (12 bits), bone bright; both ends occur. The lungs are on the patient's sides,
    right on the image's left; the infection is inside the lungs.
    """

    seed: int
    pixels: NDArray[np.uint16]
    right_lung_mask: Mask
    left_lung_mask: Mask
    infection_mask: Mask

    @property
    def lung_mask(self) -> Mask:
        """Both lungs, 0 or 1."""
        return self.right_lung_mask | self.left_lung_mask

    @property
    def unit_pixels(self) -> NDArray[np.float32]:
        """Grey values in [0, 1], as the reader returns them."""
        return (self.pixels / np.float32(WHITE)).astype(np.float32)

    @property
    def infected_fractions(self) -> dict[str, float]:
        """True infected fraction of the ``total`` lung, of the ``right`` and of the ``left``, each in [0, 1]."""
        parts = {"total": self.lung_mask, "right": self.right_lung_mask, "left": self.left_lung_mask}
        return {name: int((part & self.infection_mask).sum()) / int(part.sum()) for name, part in parts.items()}

    def mirror(self) -> Phantom:
        """Return the image flipped left to right, with the truth as it reads: what was right is now left."""
        return replace(
            self,
            pixels=np.ascontiguousarray(self.pixels[:, ::-1]),
            right_lung_mask=np.ascontiguousarray(self.left_lung_mask[:, ::-1]),
            left_lung_mask=np.ascontiguousarray(self.right_lung_mask[:, ::-1]),
            infection_mask=np.ascontiguousarray(self.infection_mask[:, ::-1]),
        )


def make_phantom(seed: int, height: int = 512, width: int = 512, infected: bool | None = None) -> Phantom:
    """Make one image; the same seed is the same patient at every size.

    Parameters
    ----------
    seed : int
        Not negative.
    height, width : int
        In pixels, 64 or more. Anatomy is stretched to the image, as images of other shapes are.
    infected : bool or None
        None lets the seed decide: two images in three are infected.

    Examples
    --------
    >>> phantom = make_phantom(1, 64, 80)
    >>> phantom.pixels.shape, phantom.pixels.dtype.name
    ((64, 80), 'uint16')
    """
    if min(height, width) < 64:
        raise ValueError(f"a phantom of {height} x {width} pixels was asked for; wanted 64 or more each way")
    streams = [np.random.default_rng([seed, part]) for part in range(4)]
    anatomy, exposure = make_anatomy(streams[0]), make_exposure(streams[1])
    sick = streams[2].random() < 2 / 3 if infected is None else infected
    opacity = make_opacity(streams[2], anatomy.lungs) if sick else np.zeros((FIELD, FIELD), np.float32)
    grey = expose(anatomy, opacity, exposure, streams[3], (height, width))
    masks = lung_masks(anatomy, height, width)
    infection = (cv2.resize(opacity, (width, height), interpolation=cv2.INTER_LINEAR) >= EDGE).astype(np.uint8)
    return Phantom(
        seed=seed,
        pixels=_twelve_bits(grey),
        right_lung_mask=masks["right"],
        left_lung_mask=masks["left"],
        infection_mask=infection & (masks["right"] | masks["left"]),
    )


def _twelve_bits(grey: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Spread grey values over all 12 bits, so that a reader that scales by the real range changes nothing."""
    low, high = float(grey.min()), float(grey.max())
    return np.round((grey - low) * (WHITE / (high - low))).astype(np.uint16)
