"""COVID-QU-Ex in memory: grey films, lung masks and infection masks as 8-bit arrays.

In: the root of a labelled set that `covseg.data` can list. Out: `Films`, aligned arrays.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from covseg.data import BadMask, FilmSet, LabelledFilm, open_set, read_truth
from covseg.data.duplicates import fingerprint, pairs
from covseg.data.films import STRATA
from covseg.errors import UsageError


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


def load_split(
    root: Path,
    split: str,
    limit: int | None = None,
    strata: tuple[str, ...] = STRATA,
) -> Films:
    """Read one split, only `strata`; `limit` keeps every k-th film of each stratum.

    Raises
    ------
    UsageError
        When the split does not exist, or a film or one of its masks is missing or cannot be believed:
        training does not leave films out in silence.
    """
    listed = open_set(root, split)
    if listed.excluded:
        raise UsageError(f"{listed.excluded[0].detail} ({len(listed.excluded)} such); mend the set before training")
    chosen = [
        film
        for stratum in STRATA
        if stratum in strata
        for film in _thin([one for one in listed.films if one.stratum == stratum], limit)
    ]
    if not chosen:
        raise UsageError(f"no film of {', '.join(strata)} in {root}, split {split}: nothing to train on")
    with ThreadPoolExecutor(4) as pool:
        triples = list(pool.map(lambda film: _read_triple(listed, film), chosen))
    films, lungs, infections = (np.stack(column) for column in zip(*triples, strict=True))
    digest = hashlib.sha256()
    for stack in (films, lungs, infections):
        digest.update(stack.tobytes())
    places = np.array([STRATA.index(film.stratum) for film in chosen])
    return Films([Path(film.key).name for film in chosen], places, films, lungs, infections, digest.hexdigest())


def without_leaks(training: Films, held_out: Films) -> tuple[Films, int]:
    """Leave out films of training that are, exactly or nearly, films of the other split; return how many."""
    mine, theirs = ([fingerprint(str(row), film) for row, film in enumerate(one.films)] for one in (training, held_out))
    leaked = {int(pair.first) for pair in pairs(mine, theirs)}
    kept = [row for row in range(len(training.names)) if row not in leaked]
    rows = np.array(kept)
    left = replace(
        training, names=[training.names[row] for row in kept], strata=training.strata[rows],
        films=training.films[rows], lungs=training.lungs[rows], infections=training.infections[rows],
    )  # fmt: skip
    return left, len(leaked)


def _thin(films: list[LabelledFilm], limit: int | None) -> list[LabelledFilm]:
    return films if limit is None else films[:: max(1, len(films) * 3 // limit)]


def _read_triple(listed: FilmSet, film: LabelledFilm) -> tuple[NDArray[np.uint8], ...]:
    pixels = cv2.imread(str(listed.root / film.key), cv2.IMREAD_GRAYSCALE)
    if pixels is None:
        raise UsageError(f"cannot read {listed.root / film.key}: wanted a grey image")
    try:
        truth = read_truth(listed, film, (pixels.shape[0], pixels.shape[1]))
    except BadMask as bad:
        raise UsageError(f"{bad.detail}; mend the set before training") from bad
    if truth.lung is None:
        raise UsageError(f"{film.key} has no lung mask, and this network learns both")
    return np.asarray(pixels, np.uint8), truth.lung * np.uint8(255), truth.infection * np.uint8(255)
