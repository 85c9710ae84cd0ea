"""Look at a labelled set before believing a number made on it.

In: the root of a set, and maybe of another. Out: `Check`: counts against the official ones, mask
sanity, infected shares per stratum, duplicates across splits and sets, samples with contours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import combinations, count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from covseg.data import BadMask, Excluded, LabelledImage, LabelledSet, open_set, read_truth
from covseg.data.duplicates import Fingerprint, Pair, fingerprint, pairs
from covseg.data.layout import SPLITS
from covseg.data.published import OFFICIAL_COUNTS
from covseg.errors import RadiographRefused, SplitAbsent
from covseg.pages.drawing import jpeg, outline
from covseg.pages.labels import tails
from covseg.records import RESEARCH_ONLY, Truth
from covseg.stages.read import read

Found = tuple[str, str, Pair]
SAMPLES = 4  # images shown per split and stratum
PICTURED = 60  # duplicate pairs drawn


@dataclass
class SplitCheck:
    """What was found in one split.

    Parameters
    ----------
    images : LabelledSet
    label : str
        Name of the split; with the set's folder before it when two sets are looked at.
    fingerprints : list of Fingerprint
    share_of_image, share_of_lung : dict
        Infected shares of the images with infection, per stratum.
    empty, outside_lung, sizes : dict
        Images with an empty infection mask and with infection outside the lung, per stratum; image sizes.
    excluded : list of Excluded
    samples : list of (stratum, key, data URI)
    """

    images: LabelledSet
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
    """The whole check.

    Parameters
    ----------
    splits : list of SplitCheck
        The other set's splits come last.
    across, inside : list of (str, str, Pair)
        Duplicates across splits, and inside one, with the labels of both images' splits.
    pictures : list of (Pair, data URI)
    """

    splits: list[SplitCheck]
    across: list[Found]
    inside: list[Found]
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
    sets = [one for place in (root, against) if place for one in open_splits(place, want_infection=want_infection)]
    total, seen, splits = sum(len(images.images) for images in sets), count(1), []
    names = dict(zip((root, against), tails([root, against]), strict=True)) if against else {}
    for images in sets:
        label = f"{names[images.root]}/{images.split}" if against else images.split
        splits.append(_check_split(images, label, lambda: progress(next(seen), total)))
    across = [found for one, two in combinations(splits, 2) for found in _pairs(one, two)]
    inside = [found for one in splits for found in _pairs(one, one)]
    roots = {split.label: split.images.root for split in splits}
    drawn = [
        (pair, _side_by_side(roots[a] / pair.first, roots[b] / pair.second))
        for a, b, pair in [*across, *inside][:PICTURED]
    ]
    return Check(splits, across, inside, drawn)


def _pairs(one: SplitCheck, two: SplitCheck) -> list[Found]:
    return [(one.label, two.label, pair) for pair in pairs(one.fingerprints, two.fingerprints)]


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


def _check_image(images: LabelledSet, image: LabelledImage) -> _CheckedImage:
    try:
        pixels = np.rint(read((images.root / image.key).read_bytes()).pixels * 255).astype(np.uint8)
    except RadiographRefused as refusal:
        return _CheckedImage(image, None, None, Excluded(image.key, f"film_{refusal.reason}", str(refusal)))
    try:
        truth = read_truth(images, image, pixels.shape, want_infection=image.infection is not None)
        return _CheckedImage(image, pixels, truth, None)
    except BadMask as bad:
        return _CheckedImage(image, pixels, None, Excluded(image.key, bad.reason, bad.detail))


def _check_split(images: LabelledSet, label: str, progress: Callable[[], None]) -> SplitCheck:
    found = SplitCheck(images, label, excluded=list(images.excluded))
    shown = _sampled(images)
    with ThreadPoolExecutor(2) as pool:
        for checked in pool.map(lambda image: _check_image(images, image), images.images):
            _note(found, checked, checked.image.key in shown)
            progress()
    return found


def _sampled(images: LabelledSet) -> set[str]:
    """Choose a few images per stratum by the hash of their names."""
    by_stratum: dict[str, list[str]] = {}
    for image in images.images:
        by_stratum.setdefault(image.stratum, []).append(image.key)
    ranked = (sorted(keys, key=lambda key: hashlib.sha256(key.encode()).digest()) for keys in by_stratum.values())
    return {key for keys in ranked for key in keys[:SAMPLES]}


def _note(found: SplitCheck, checked: _CheckedImage, shown: bool) -> None:
    """Add one image to a split's account."""
    key, stratum = checked.image.key, checked.image.stratum
    if checked.problem:
        found.excluded.append(checked.problem)
    if checked.pixels is None:
        return
    found.fingerprints.append(fingerprint(key, checked.pixels))
    size = "x".join(map(str, checked.pixels.shape[::-1]))
    found.sizes[size] = found.sizes.get(size, 0) + 1
    if checked.truth is None:
        return
    _note_truth(found, stratum, checked.truth)
    if shown:
        found.samples.append((stratum, key, _contours(checked.pixels, checked.truth)))


def _note_truth(found: SplitCheck, stratum: str, truth: Truth) -> None:
    infected = int(np.count_nonzero(truth.infection))
    if not infected:
        found.empty[stratum] = found.empty.get(stratum, 0) + 1
        return
    found.share_of_image.setdefault(stratum, []).append(infected / truth.infection.size)
    if truth.lung is None:
        return
    outside = int(np.count_nonzero(truth.infection & (1 - truth.lung)))
    found.outside_lung[stratum] = found.outside_lung.get(stratum, 0) + (outside > 0)
    found.share_of_lung.setdefault(stratum, []).append((infected - outside) / max(int(np.count_nonzero(truth.lung)), 1))


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


def to_json(found: Check) -> dict[str, Any]:
    """Return the check as JSON values."""
    return {
        "intended_use": RESEARCH_ONLY,
        "splits": [_split_json(split) for split in found.splits],
        "duplicates_across": [{"from": a, "to": b, **asdict(pair)} for a, b, pair in found.across],
        "duplicates_inside": [{"from": a, "to": b, **asdict(pair)} for a, b, pair in found.inside],
    }


def _split_json(split: SplitCheck) -> dict[str, Any]:
    images = split.images
    official = OFFICIAL_COUNTS.get(images.split) if images.name == "covid-qu-ex" else None
    return {
        "split": split.label, "set": images.name, "counts": images.counts, "official": official,
        "complete": official is None or images.counts == official,
        "absent_strata": [name for name, count in images.counts.items() if not count],
        "sizes": split.sizes, "empty_infection": split.empty, "infection_outside_lung": split.outside_lung,
        "share_of_film": _quartiles(split.share_of_image), "share_of_lung": _quartiles(split.share_of_lung),
        "excluded": [asdict(one) for one in split.excluded],
    }  # fmt: skip


def _quartiles(shares: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Summarise shares per stratum, in [0, 1]."""
    return {
        stratum: {
            "n": len(values), "mean": round(float(np.mean(values)), 5),
            **{f"q{part}": round(float(np.quantile(values, part / 100)), 5) for part in (5, 25, 50, 75, 95)},
        }
        for stratum, values in shares.items()
    }  # fmt: skip


def leaks(training: Iterable[Fingerprint], held_out: list[Fingerprint]) -> list[Pair]:
    """Return the training images that stand, exactly or nearly, on the other side of a split."""
    return pairs(list(training), held_out)
