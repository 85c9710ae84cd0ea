"""The control for shortcuts: what is left of the answer when the lungs, or all but the lungs, are painted flat.

An image whose lungs are one even grey shows no infection. A model that still tells images of COVID-19 from the others
reads them by something else: borders, letters, sharpness, the archive. In: grey values and the true lung. Out: grey
values.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from covseg.records import Mask
from covseg.synthetic.shifts import Pixels

BOX = 0.25  # of each side, left free around the fixed box


def flat_lungs(pixels: Pixels, lung: Mask) -> Pixels:
    """Paint the lungs in the mean grey of everything else, which says nothing of them."""
    return np.where(lung > 0, pixels[lung == 0].mean(), pixels).astype(np.float32)


def lungs_only(pixels: Pixels, lung: Mask) -> Pixels:
    """Paint everything but the lungs in its own mean grey."""
    return np.where(lung > 0, pixels, pixels[lung == 0].mean()).astype(np.float32)


def flat_box(pixels: Pixels, lung: Mask) -> Pixels:  # noqa: ARG001 - one signature for all
    """Paint the middle half of each side flat: the lungs' shape is hidden as well."""
    height, width = pixels.shape
    rows, columns = (slice(round(BOX * side), round((1 - BOX) * side)) for side in (height, width))
    painted = pixels.copy()
    painted[rows, columns] = pixels.mean()
    return painted


CONTROLS: dict[str, tuple[str, Callable[[Pixels, Mask], Pixels]]] = {
    "flat_lungs": ("lungs painted flat", flat_lungs),
    "flat_box": ("the middle of the image painted flat", flat_box),
    "lungs_only": ("all but the lungs painted flat", lungs_only),
}
