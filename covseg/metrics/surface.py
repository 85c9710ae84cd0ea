"""Distances between the boundaries of two masks, and the status of a pair that has none.

In: two binary masks ``(H, W)``. Out: pixels. A missed or invented lesion has no finite
distance; it keeps its status and is counted beside the mean, never dropped.
"""

from __future__ import annotations

from enum import IntEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from covseg.records import Mask

TOLERANCE = 3 / 256  # of the longer side: 3 pixels on a 256 x 256 image
Distances = tuple[NDArray[np.float32], NDArray[np.float32]]
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


class Surface(IntEnum):
    """What can be said of a pair of masks."""

    OK = 0
    BOTH_EMPTY = 1
    MISSED = 2
    FALSE_ALARM = 3
    REFUSED = 4


def status(guess_pixels: int, truth_pixels: int) -> Surface:
    """Return the status of two areas."""
    if truth_pixels:
        return Surface.OK if guess_pixels else Surface.MISSED
    return Surface.FALSE_ALARM if guess_pixels else Surface.BOTH_EMPTY


def boundary_distances(guess: Mask, truth: Mask) -> Distances:
    """Return how far each boundary pixel of one mask lies from the other's boundary.

    Parameters
    ----------
    guess, truth : ndarray of uint8, shape (H, W)
        0 or 1, both with at least one pixel; a surface is the mask's 4-connected inner boundary.

    Returns
    -------
    tuple of two ndarrays of float32
        Pixels, exact Euclidean: from the guess to the truth, and back.
    """
    # the frame of both masks; distances between them do not change outside it
    left, top, width, height = cv2.boundingRect(guess | truth)
    window = slice(top, top + height), slice(left, left + width)
    surfaces = [_boundary(mask[window]) for mask in (guess, truth)]
    # distance to the other boundary, which is the zero pixels here
    fields = [cv2.distanceTransform(1 - edge, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) for edge in surfaces]
    return fields[1][surfaces[0] > 0], fields[0][surfaces[1] > 0]


def _boundary(mask: Mask) -> NDArray[np.uint8]:
    """Mask pixels with a background 4-neighbour; the edge of the frame counts as background."""
    eroded = cv2.erode(mask, _CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray(mask - eroded, np.uint8)
