"""A labelled set in memory: grey images, lung masks and infection masks as 8-bit arrays.

In: the root of a labelled set that `covseg.data` can list. Out: `ImageArrays`, aligned arrays.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from covseg.data import BadMask, LabelledImage, LabelledSet, open_set, read_truth
from covseg.data.duplicates import fingerprint, pairs
from covseg.data.published import is_official
from covseg.errors import RadiographRefused, SetRefused, UsageError
from covseg.stages.preprocess import resize, to_source_side
from covseg.stages.read import read

SIDE = 512  # larger images are kept at this side: scoring stretches them to a square all the same


@dataclass(frozen=True)
class ImageArrays:
    """Aligned arrays of one split.

    Parameters
    ----------
    names : list of str
        File names, unique inside a stratum.
    known : tuple of str
        The set's strata.
    strata : ndarray of int, shape (N,)
        Index into `known`.
    images, lungs, infections : ndarray of uint8, shape (N, H, W)
        Grey images 0-255; masks {0, 255}.
    digest : str
        SHA-256 over all pixels in order.
    source : str
        ``COVID-QU-Ex`` where the split has its official counts, else ``own set``: the layout alone says nothing.
    lungs_by : str or None
        Which model drew the lungs of a set without lung masks; None where they are the set's own, or empty.
    """

    names: list[str]
    known: tuple[str, ...]
    strata: NDArray[np.int64]
    images: NDArray[np.uint8]
    lungs: NDArray[np.uint8]
    infections: NDArray[np.uint8]
    digest: str
    source: str
    lungs_by: str | None = None

    @property
    def side(self) -> int | None:
        """Side of the images, pixels; None where they are no squares."""
        height, width = self.images.shape[1:]
        return int(height) if height == width else None


def load_split(
    root: Path,
    split: str,
    limit: int | None = None,
    strata: tuple[str, ...] = (),
    targets: tuple[str, ...] = ("lung", "infection"),
    side: int = SIDE,
) -> ImageArrays:
    """Read one split.

    Parameters
    ----------
    root, split : Path, str
        As `covseg.data.open_set` takes them.
    limit : int or None
        Keep so many images, evenly over the strata.
    strata : tuple of str
        Only these; () takes all.
    targets : tuple of str
        Which masks have to be there: ``lung``, ``infection``. One that is not is empty.
    side : int
        Images with a longer side, and images of several sizes, are stretched to squares of this side.

    Raises
    ------
    UsageError
        When the split does not exist, or an image or one of its masks is missing or cannot be believed:
        training does not leave images out in silence.
    """
    listed = open_set(root, split, want_infection="infection" in targets)
    if listed.excluded:
        raise SetRefused(f"{listed.excluded[0].detail} ({len(listed.excluded)} such); mend the set before training")
    chosen = listed.select(strata, limit)
    if not chosen.images:
        raise UsageError(f"no image in {root}, split {split}: nothing to train on")
    with ThreadPoolExecutor(4) as pool:
        triples = list(pool.map(lambda image: _read_triple(listed, image, targets, side), chosen.images))
        if len({triple.shape for triple in triples}) > 1:
            triples = list(pool.map(lambda triple: _stretch(triple, side), triples))
    images, lungs, infections = (np.stack([triple[plane] for triple in triples]) for plane in range(3))
    digest = hashlib.sha256()
    for stack in (images, lungs, infections):
        digest.update(stack.tobytes())
    return ImageArrays(
        [Path(image.key).name for image in chosen.images], listed.strata,
        np.array([listed.strata.index(image.stratum) for image in chosen.images]),
        images, lungs, infections, digest.hexdigest(), "COVID-QU-Ex" if is_official(listed) else "own set",
    )  # fmt: skip


def has_lungs(root: Path, split: str) -> bool:
    """Tell whether a split that draws infection has lung masks beside it."""
    listed = open_set(root, split)
    return bool(listed.excluded) or any(image.lung for image in listed.images)


def without_leaks(training: ImageArrays, held_out: ImageArrays) -> tuple[ImageArrays, int]:
    """Leave out images of training that are, exactly or nearly, images of the other split; return how many."""
    mine, theirs = (
        [fingerprint(str(row), image) for row, image in enumerate(split.images)] for split in (training, held_out)
    )
    leaked = {int(pair.first) for pair in pairs(mine, theirs)}
    kept = [row for row in range(len(training.names)) if row not in leaked]
    rows = np.array(kept)
    left = replace(
        training, names=[training.names[row] for row in kept], strata=training.strata[rows],
        images=training.images[rows], lungs=training.lungs[rows], infections=training.infections[rows],
    )  # fmt: skip
    return left, len(leaked)


def _read_triple(listed: LabelledSet, image: LabelledImage, targets: tuple[str, ...], side: int) -> NDArray[np.uint8]:
    """Return image, lung mask and infection mask, ``(3, H, W)``; the image is read as scoring reads it."""
    try:
        pixels = read((listed.root / image.key).read_bytes()).pixels
    except RadiographRefused as refused:
        raise SetRefused(f"{image.key}: {refused}; mend the set before training") from refused
    try:
        truth = read_truth(listed, image, pixels.shape, want_infection="infection" in targets)
    except BadMask as bad:
        raise SetRefused(f"{bad.detail}; mend the set before training") from bad
    if truth.lung is None and "lung" in targets:
        raise SetRefused(
            f"{image.key} has no lung mask, and the recipe's data.targets want one: add the folder lung masks/ to the "
            "set, or take a recipe that draws infection"
        )
    lung = np.zeros_like(truth.infection) if truth.lung is None else truth.lung
    triple = np.stack([np.rint(pixels * 255).astype(np.uint8), lung * np.uint8(255), truth.infection * np.uint8(255)])
    return _stretch(triple, side) if max(pixels.shape) > side else triple


def _stretch(triple: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    pixels = to_source_side(triple[0].astype(np.float32) / 255, side)
    masks = (np.where(resize(plane, side, side) > 127, 255, 0) for plane in triple[1:])
    return np.stack([np.rint(pixels * 255), *masks]).astype(np.uint8)
