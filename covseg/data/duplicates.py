"""Exact and near duplicates: a hash of the pixels, then the correlation of 32 x 32 thumbnails.

In: images as arrays. Out: pairs. The same image under two names on both sides of a split makes a
validation score too good; class folders and file names do not show it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 32
NEAR = 0.99
_BLOCK = 1024


@dataclass(frozen=True)
class Fingerprint:
    """What is kept of one image.

    Parameters
    ----------
    digest : str
        SHA-256 of size and pixels.
    thumbnail : ndarray of float32, shape (1024,)
        Zero mean, unit length; all zeros for a constant image.
    """

    key: str
    digest: str
    thumbnail: NDArray[np.float32]


@dataclass(frozen=True)
class Pair:
    """Two images that are the same or nearly so.

    Parameters
    ----------
    first, second : str
        Keys.
    exact : bool
        Equal pixels.
    correlation : float
        Of the thumbnails, in [-1, 1].
    """

    first: str
    second: str
    exact: bool
    correlation: float


def fingerprint(key: str, pixels: NDArray[np.uint8]) -> Fingerprint:
    """Hash a grey image ``(H, W)`` and shrink it to a standardised thumbnail."""
    digest = hashlib.sha256(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest()
    small = cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
    small -= small.mean()
    length = float(np.linalg.norm(small))
    return Fingerprint(key, digest, small / length if length else small)


def pairs(first: list[Fingerprint], second: list[Fingerprint], near: float = NEAR) -> list[Pair]:
    """Return every pair across two groups, the most alike first.

    Parameters
    ----------
    first, second : list of Fingerprint
        The same list twice gives each pair once.
    near : float
        Least correlation.
    """
    near_pairs = [pair for pair in _near_pairs(first, second, near) if first is not second or pair.first < pair.second]
    return sorted(near_pairs, key=lambda pair: (not pair.exact, -pair.correlation, pair.first, pair.second))


def _near_pairs(first: list[Fingerprint], second: list[Fingerprint], near: float) -> Iterator[Pair]:
    if not first or not second:
        return
    columns = np.stack([image.thumbnail for image in second]).T
    for start in range(0, len(first), _BLOCK):
        block = first[start : start + _BLOCK]
        likeness = np.stack([image.thumbnail for image in block]) @ columns
        for row, column in np.argwhere(likeness > near):
            a, b = block[row], second[column]
            yield Pair(a.key, b.key, a.digest == b.digest, round(float(likeness[row, column]), 5))
