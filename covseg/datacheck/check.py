"""Check a labelled set before believing a number made on it.

In: the root of a set, and maybe of another. Out: `Check`: counts against the official ones, mask
sanity, infected shares per stratum, duplicates across splits and sets, samples with contours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations, count
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from covseg.data import BadMask, Excluded, LabelledImage, LabelledSet, open_set, read_truth
from covseg.data.duplicates import Fingerprint, Pair, fingerprint, pairs
from covseg.data.layout import SPLITS
from covseg.data.published import OFFICIAL_COUNTS
from covseg.datacheck.records import CheckRecord, Duplicate, Shares, SplitRecord
from covseg.errors import RadiographRefused, SplitAbsent
from covseg.pages.drawing import jpeg, outline
from covseg.pages.formats import tails
from covseg.records import Truth
from covseg.stages.read import read

LabelledPair = tuple[str, str, Pair]  # labels of both images' splits
SAMPLES = 4  # images shown per split and stratum
PICTURED = 60  # duplicate pairs drawn


@dataclass
class SplitCheck:
    """One split, checked; the label has the set's folder before the split's name when two sets are checked.

    Shares are of the images with infection, per stratum. `empty` and `outside_lung` count, per stratum, images with an
    empty infection mask and with infection outside the lung; `sizes` counts image sizes. Samples are (stratum, key,
    data URI).
    """

    dataset: LabelledSet
    label: str
    fingerprints: list[Fingerprint] = field(default_factory=list)
    share_of_image: dict[str, list[float]] = field(default_factory=dict)
    share_of_lung: dict[str, list[float]] = field(default_factory=dict)
    empty: dict[str, int] = field(default_factory=dict)
    outside_lung: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    excluded: list[Excluded] = field(default_factory=list)
    samples: list[tuple[str, str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Check:
    """A whole check.

    Parameters
    ----------
    splits : list of SplitCheck
        The other set's splits come last.
    across, inside : list of (str, str, Pair)
        Duplicates across splits, and inside one, with the labels of both images' splits.
    pictures : list of (Pair, data URI)
    """

    splits: list[SplitCheck]
    across: list[LabelledPair]
    inside: list[LabelledPair]
    pictures: list[tuple[Pair, str]]


def check(
    root: Path,
    against: Path | None = None,
    progress: Callable[[int, int], None] = lambda *_: None,
    *,
    want_infection: bool = True,
) -> Check:
    """Check every split of a set, and the duplicates it shares with another; False takes lung masks only, too.

    Raises
    ------
    UsageError
        When there is no labelled set.
    """
    datasets = [
        dataset for place in (root, against) if place for dataset in open_splits(place, want_infection=want_infection)
    ]
    total, seen, splits = sum(len(dataset.images) for dataset in datasets), count(1), []
    names = dict(zip((root, against), tails([root, against]), strict=True)) if against else {}
    for dataset in datasets:
        label = f"{names[dataset.root]}/{dataset.split}" if against else dataset.split
        splits.append(_check_split(dataset, label, lambda: progress(next(seen), total)))
    across = [pair for first, other in combinations(splits, 2) for pair in _pairs(first, other)]
    inside = [pair for split in splits for pair in _pairs(split, split)]
    roots = {split.label: split.dataset.root for split in splits}
    drawn = [
        (pair, _side_by_side(roots[a] / pair.first, roots[b] / pair.second))
        for a, b, pair in [*across, *inside][:PICTURED]
    ]
    return Check(splits, across, inside, drawn)


def _pairs(first: SplitCheck, other: SplitCheck) -> list[LabelledPair]:
    return [(first.label, other.label, pair) for pair in pairs(first.fingerprints, other.fingerprints)]


def open_splits(root: Path, *, want_infection: bool = True) -> list[LabelledSet]:
    """Open every split that is there; a set without splits is one split, ``all``.

    Raises
    ------
    UsageError
        When no split opens; the message is that of the last one tried.
    """
    found: list[LabelledSet] = []
    last = SplitAbsent(f"{root}: no labelled set")
    for split in (*SPLITS, "all"):
        try:
            found.append(open_set(root, split, want_infection=want_infection))
        except SplitAbsent as error:
            last = error
    if not found:
        raise last
    return found


@dataclass(frozen=True)
class _CheckedImage:
    """One image and its truth, or why not."""

    image: LabelledImage
    pixels: NDArray[np.uint8] | None
    truth: Truth | None
    problem: Excluded | None


def _check_image(dataset: LabelledSet, image: LabelledImage) -> _CheckedImage:
    try:
        pixels = np.rint(read((dataset.root / image.key).read_bytes()).pixels * 255).astype(np.uint8)
    except RadiographRefused as refusal:
        return _CheckedImage(image, None, None, Excluded(image.key, f"film_{refusal.reason}", str(refusal)))
    try:
        truth = read_truth(dataset, image, pixels.shape, want_infection=image.infection is not None)
        return _CheckedImage(image, pixels, truth, None)
    except BadMask as bad:
        return _CheckedImage(image, pixels, None, Excluded(image.key, bad.reason, bad.detail))


def _check_split(dataset: LabelledSet, label: str, progress: Callable[[], None]) -> SplitCheck:
    split = SplitCheck(dataset, label, excluded=list(dataset.excluded))
    shown = _sampled(dataset)
    with ThreadPoolExecutor(2) as pool:
        for checked in pool.map(lambda image: _check_image(dataset, image), dataset.images):
            _note(split, checked, checked.image.key in shown)
            progress()
    return split


def _sampled(dataset: LabelledSet) -> set[str]:
    """Choose a few images per stratum by the hash of their names."""
    by_stratum: dict[str, list[str]] = {}
    for image in dataset.images:
        by_stratum.setdefault(image.stratum, []).append(image.key)
    ranked = (sorted(keys, key=lambda key: hashlib.sha256(key.encode()).digest()) for keys in by_stratum.values())
    return {key for keys in ranked for key in keys[:SAMPLES]}


def _note(split: SplitCheck, checked: _CheckedImage, shown: bool) -> None:
    """Add one image to a split's account."""
    key, stratum = checked.image.key, checked.image.stratum
    if checked.problem:
        split.excluded.append(checked.problem)
    if checked.pixels is None:
        return
    split.fingerprints.append(fingerprint(key, checked.pixels))
    size = "x".join(map(str, checked.pixels.shape[::-1]))
    split.sizes[size] = split.sizes.get(size, 0) + 1
    if checked.truth is None:
        return
    _note_truth(split, stratum, checked.truth)
    if shown:
        split.samples.append((stratum, key, _contours(checked.pixels, checked.truth)))


def _note_truth(split: SplitCheck, stratum: str, truth: Truth) -> None:
    infected = int(np.count_nonzero(truth.infection))
    if not infected:
        split.empty[stratum] = split.empty.get(stratum, 0) + 1
        return
    split.share_of_image.setdefault(stratum, []).append(infected / truth.infection.size)
    if truth.lung is None:
        return
    outside = int(np.count_nonzero(truth.infection & (1 - truth.lung)))
    split.outside_lung[stratum] = split.outside_lung.get(stratum, 0) + (outside > 0)
    split.share_of_lung.setdefault(stratum, []).append((infected - outside) / max(int(np.count_nonzero(truth.lung)), 1))


def _contours(pixels: NDArray[np.uint8], truth: Truth) -> str:
    canvas = cv2.cvtColor(cv2.resize(pixels, (192, 192), interpolation=cv2.INTER_AREA), cv2.COLOR_GRAY2BGR)
    for mask, colour in ((truth.lung, (255, 255, 0)), (truth.infection, (0, 140, 255))):
        if mask is not None:
            small = cv2.resize(mask, (192, 192), interpolation=cv2.INTER_NEAREST)
            outline(canvas, small, colour)
    return jpeg(canvas)


def _side_by_side(first: Path, second: Path) -> str:
    images = [np.rint(read(path.read_bytes()).pixels * 255).astype(np.uint8) for path in (first, second)]
    return jpeg(
        np.concatenate([cv2.resize(image, (160, 160), interpolation=cv2.INTER_AREA) for image in images], axis=1)
    )


def record(check: Check) -> CheckRecord:
    """Return the check as it is written."""
    return CheckRecord(
        splits=tuple(map(_split_record, check.splits)),
        duplicates_across=tuple(map(_duplicate, check.across)),
        duplicates_inside=tuple(map(_duplicate, check.inside)),
    )


def _duplicate(labelled: LabelledPair) -> Duplicate:
    first, other, pair = labelled
    return Duplicate(first_split=first, other_split=other, **vars(pair))


def _split_record(split: SplitCheck) -> SplitRecord:
    dataset, counts = split.dataset, split.dataset.counts
    official = OFFICIAL_COUNTS.get(dataset.split) if dataset.name == "covid-qu-ex" else None
    return SplitRecord(
        split=split.label, name=dataset.name, counts=counts, official=official, complete=official in (None, counts),
        absent_strata=tuple(name for name, count in counts.items() if not count), sizes=split.sizes,
        empty_infection=split.empty, infection_outside_lung=split.outside_lung,
        share_of_image=_shares(split.share_of_image), share_of_lung=_shares(split.share_of_lung),
        excluded=tuple(split.excluded),
    )  # fmt: skip


def _shares(shares: dict[str, list[float]]) -> dict[str, Shares]:
    """Summarise shares per stratum, in [0, 1]."""
    return {
        stratum: {
            "n": len(values), "mean": round(float(np.mean(values)), 5),
            **{f"q{part}": round(float(np.quantile(values, part / 100)), 5) for part in (5, 25, 50, 75, 95)},
        }
        for stratum, values in shares.items()
    }  # fmt: skip
