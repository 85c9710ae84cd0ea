"""COVID-QU-Ex in memory: grey films, lung masks and infection masks as 8-bit arrays.

In: the root that holds ``Train`` and ``Val`` in the Kaggle layout. Out: `Films`, aligned arrays.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

STRATA = ("COVID-19", "Non-COVID", "Normal")


@dataclass(frozen=True)
class Films:
    """Aligned arrays of one split.

    Parameters
    ----------
    names : list of str
        File names, unique inside a stratum.
    strata : ndarray of int, shape (N,)
        Index into `STRATA`.
    films, lungs, infections : ndarray of uint8, shape (N, H, W)
        Grey films 0-255; masks {0, 255}.
    digest : str
        SHA-256 over all pixels in order.
    """

    names: list[str]
    strata: NDArray[np.int64]
    films: NDArray[np.uint8]
    lungs: NDArray[np.uint8]
    infections: NDArray[np.uint8]
    digest: str


def load_split(root: Path, split: str, limit: int | None = None) -> Films:
    """Read one split; `limit` keeps every k-th film of each stratum.

    Raises
    ------
    FileNotFoundError
        When a film or one of its two masks is missing; the path is named.
    """
    entries = [
        (index, path)
        for index, stratum in enumerate(STRATA)
        for path in _thin(sorted((root / split / stratum / "images").glob("*.png")), limit)
    ]
    if not entries:
        raise FileNotFoundError(f"no films under {root / split}: wanted COVID-19/images/*.png and so on")
    with ThreadPoolExecutor(4) as pool:
        triples = list(pool.map(_read_triple, [path for _, path in entries]))
    films, lungs, infections = (np.stack(column) for column in zip(*triples, strict=True))
    digest = hashlib.sha256()
    for stack in (films, lungs, infections):
        digest.update(stack.tobytes())
    strata = np.array([index for index, _ in entries])
    return Films([path.name for _, path in entries], strata, films, lungs, infections, digest.hexdigest())


def _thin(paths: list[Path], limit: int | None) -> list[Path]:
    return paths if limit is None else paths[:: max(1, len(paths) * 3 // limit)]


def _read_triple(path: Path) -> tuple[NDArray[np.uint8], ...]:
    stratum = path.parent.parent
    return tuple(_grey(stratum / kind / path.name) for kind in ("images", "lung masks", "infection masks"))


def _grey(path: Path) -> NDArray[np.uint8]:
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise FileNotFoundError(f"cannot read {path}: wanted a grey PNG; is the pair complete?")
    return image
