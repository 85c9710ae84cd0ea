"""Boundary distances: HD95 and the normalised surface distance, each with a status.

In: two binary masks ``(H, W)``. Out: pixels and a share. A missed or invented lesion has no finite
distance; it keeps its status and is counted beside the mean, never dropped.
"""

from __future__ import annotations

from enum import IntEnum

import cv2
import numpy as np
from numpy.typing import NDArray

from covseg.records import Mask

TOLERANCE = 3 / 256  # of the longer side: 3 pixels on a 256 x 256 image
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


class Surface(IntEnum):
    """What can be said of a pair of masks."""

    OK = 0
    BOTH_EMPTY = 1
    MISSED = 2
    FALSE_ALARM = 3
    REFUSED = 4


def status(guess_pixels: int, truth_pixels: int) -> Surface:
    """Tell the status from the two areas."""
    if truth_pixels:
        return Surface.OK if guess_pixels else Surface.MISSED
    return Surface.FALSE_ALARM if guess_pixels else Surface.BOTH_EMPTY


def surface_scores(guess: Mask, truth: Mask, tolerance: float) -> tuple[float, float]:
    """Return HD95 in pixels and the normalised surface distance in [0, 1].

    Parameters
    ----------
    guess, truth : ndarray of uint8, shape (H, W)
        0 or 1, both with at least one pixel; a surface is the mask's 4-connected inner boundary.
    tolerance : float
        Pixels; a boundary pixel within it counts as right.

    Returns
    -------
    hd95 : float
        The larger of the two directed 95th percentiles (linear interpolation).
    nsd : float
        Share of both boundaries within `tolerance` of the other (Nikolov et al. 2021,
        doi 10.2196/26151, on pixels instead of surface elements).
    """
    window = _bounding_box(guess, truth)
    surfaces = [_boundary(mask[window]) for mask in (guess, truth)]
    # exact Euclidean distance to the other boundary (its zero pixels here)
    fields = [cv2.distanceTransform(1 - edge, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) for edge in surfaces]
    to_truth, to_guess = fields[1][surfaces[0] > 0], fields[0][surfaces[1] > 0]
    hd95 = max(float(np.percentile(to_truth, 95)), float(np.percentile(to_guess, 95)))
    near = np.count_nonzero(to_truth <= tolerance) + np.count_nonzero(to_guess <= tolerance)
    return hd95, near / (len(to_truth) + len(to_guess))


def _bounding_box(guess: Mask, truth: Mask) -> tuple[slice, slice]:
    """Frame both masks; distances between them do not change outside the frame."""
    left, top, width, height = cv2.boundingRect(guess | truth)
    return slice(top, top + height), slice(left, left + width)


def _boundary(mask: Mask) -> NDArray[np.uint8]:
    """Mask pixels with a background 4-neighbour; the edge of the frame counts as background."""
    eroded = cv2.erode(mask, _CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return np.asarray(mask - eroded, np.uint8)
