"""Read a set that has readers' scores instead of masks: ``images/`` and ``scores.csv``.

``scores.csv`` has one row an image and reader: ``image`` (its path under ``images/``, or its file name), maybe
``reader`` and ``stratum``; every other column is a score. An empty cell is "not scored" and is counted; anything else
that is wrong refuses the set before the first image, with line and column. Nothing is decoded here.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from covseg.data.images import STRATA, LabelledImage, LabelledSet
from covseg.data.layout import IMAGES, LABELS, SPLITS
from covseg.data.score_table import Sheet, SheetRow, read_sheet
from covseg.errors import SetRefused, SplitAbsent, UsageError

SCORES = "scores.csv"
IMAGE, READER, STRATUM = "image", "reader", "stratum"
ONE_READER = "reader"  # whoever it was, where the table does not say
MODEL, MEAN, MAJORITY = "covseg", "mean", "majority"  # beside readers in every table
ALL = "all"
PRESENT = "present"


@dataclass(frozen=True)
class Scale:
    """What a score means.

    Parameters
    ----------
    low, high : float
        Its range, ends included.
    ours : tuple of str
        Columns of the severity table that it is compared with.
    same_units : bool
        Whether differences mean something; else the two are only correlated.
    """

    low: float
    high: float
    ours: tuple[str, ...]
    same_units: bool
    words: str


SCALES = {
    "extent": Scale(0, 8, ("extent_0_8",), True, "geographic extent, 0-4 a lung (Cohen et al. 2020)"),
    "fraction": Scale(0, 1, ("infected_fraction",), True, "infected share of both lungs, 0-1"),
    "brixia": Scale(
        0, 18, ("zones_extent_0_24", "infected_fraction"), False,
        "Brixia, 0-18: grades the type of opacity, which a mask cannot give; correlation only",
    ),
    PRESENT: Scale(0, 1, ("infection_probability",), False, "any infection: 0 no, 1 yes"),
}  # fmt: skip
OWN = Scale(-math.inf, math.inf, ("infected_fraction",), False, "the site's own score; correlation only")


def scale_of(score: str) -> Scale:
    """Return the scale of a score by its column's name; any other name is the site's own."""
    return SCALES.get(score, OWN)


@dataclass(frozen=True)
class ScoreSet:
    """Images, and what readers said of them.

    Parameters
    ----------
    images : LabelledSet
        Without masks; one stratum `ALL` where the table has none.
    scores, readers : tuple of str
        Columns in the table's order; readers sorted.
    cells : dict
        (score, reader, key) to value; a cell that was left empty is not there.
    sha256 : str
        Of ``scores.csv``.
    """

    images: LabelledSet
    scores: tuple[str, ...]
    readers: tuple[str, ...]
    cells: dict[tuple[str, str, str], float]
    sha256: str

    def values(self, score: str, reader: str) -> NDArray[np.float64]:
        """Return a reader's score of each image ``(N,)``, NaN where there is none."""
        return np.array([self.cells.get((score, reader, image.key), np.nan) for image in self.images.images])

    def select(self, strata: tuple[str, ...] = (), limit: int | None = None) -> ScoreSet:
        """Keep some of the images; see `covseg.data.images.LabelledSet.select`."""
        return replace(self, images=self.images.select(strata, limit))


def has_scores(root: Path) -> bool:
    """Tell whether a folder is a set with scores."""
    return (root / SCORES).is_file()


def open_scores(root: Path, split: str = ALL) -> ScoreSet:
    """Read ``scores.csv``, and match it with ``images/``.

    Parameters
    ----------
    root : Path
        The folder that holds both.
    split : str
        ``all``, or ``Val``, which is what an evaluation takes unless it is told otherwise: there are no splits.

    Raises
    ------
    UsageError
        When the folder also has masks, a split is asked for, or a column is missing.
    SetRefused
        When a row has no image, an image no row, or a cell no value of its scale.
    """
    if split.casefold() not in (ALL, "val"):
        raise SplitAbsent(f"no split {split!r} in {root / SCORES}: a set with scores has no splits, leave --split out")
    if masks := [name for name in (LABELS, *SPLITS) if (root / name).exists()]:
        raise UsageError(f"{root} holds {masks[0]} and {SCORES}: keep the scores in a folder of their own")
    sheet = read_sheet(root / SCORES)
    scores = tuple(name for name in sheet.columns if name not in (IMAGE, READER, STRATUM))
    if IMAGE not in sheet.columns or not scores:
        found = ", ".join(sheet.columns)
        raise UsageError(f"{sheet.path} has columns {found}: wanted {IMAGE} and a score, such as {', '.join(SCALES)}")
    keys, read = _Keys(root), set()
    strata: dict[str, str] = {}
    cells: dict[tuple[str, str, str], float] = {}
    for row in sheet.rows:
        key, reader = keys.find(row), _reader(row)
        if (key, reader) in read:
            raise row.refuse(IMAGE, f"{row[IMAGE]} was scored by {reader} above: keep one row of an image and reader")
        read.add((key, reader))
        stratum = _stratum(row)
        if strata.setdefault(key, stratum) != stratum:
            raise row.refuse(STRATUM, f"{stratum}, but {strata[key]} above for {row[IMAGE]}: an image has one stratum")
        values = {score: value for score in scores if (value := _value(row, score)) is not None}
        if not values:
            raise row.refuse(scores[0], "no score in this row: fill one in, or take the row out")
        cells |= {(score, reader, key): value for score, value in values.items()}
    if unread := sorted(keys.all - strata.keys()):
        raise SetRefused(
            f"{unread[0]} has no row in {sheet.path} ({len(unread)} of {len(keys.all)} images): "
            "add its score, or take the file out of images/"
        )
    return ScoreSet(_listed(root, strata), scores, tuple(sorted({reader for _, reader in read})), cells, _digest(sheet))


class _Keys:
    """The files under ``images/``, found by path or by name."""

    def __init__(self, root: Path) -> None:
        folder = root / IMAGES
        if not folder.is_dir():
            raise UsageError(f"{root} has {SCORES} but no folder {IMAGES}/: put the images there")
        files = [path.relative_to(root) for path in folder.rglob("*") if path.is_file()]
        self.all = {path.as_posix() for path in files if not any(part.startswith(".") for part in path.parts)}
        self.by_name: dict[str, list[str]] = {}
        for key in sorted(self.all):
            self.by_name.setdefault(Path(key).name, []).append(key)

    def find(self, row: SheetRow) -> str:
        """Return the key that a row means."""
        name = row[IMAGE].replace("\\", "/")
        for key in (f"{IMAGES}/{name}", name):
            if key in self.all:
                return key
        found = self.by_name.get(name, [])
        if len(found) > 1:
            raise row.refuse(IMAGE, f"{name!r} is {' and '.join(found[:2])}: write the path under {IMAGES}/")
        if not found:
            raise row.refuse(IMAGE, f"no file {name!r} under {IMAGES}/: wanted a path or a file name there")
        return found[0]


def _reader(row: SheetRow) -> str:
    reader = row.get(READER, ONE_READER)
    if not reader:
        raise row.refuse(READER, "empty: wanted who scored the image, such as A")
    if reader.casefold() in (MODEL, MEAN, MAJORITY):
        raise row.refuse(READER, f"{reader!r} stands for something else in the tables: choose another name")
    return reader


def _stratum(row: SheetRow) -> str:
    stratum = row.get(STRATUM, ALL)
    if not stratum or (stratum.casefold() == ALL and STRATUM in row.cells):
        raise row.refuse(STRATUM, f"{stratum!r}: wanted the image's stratum, and not {ALL!r}, which is every image")
    return {name.casefold(): name for name in STRATA}.get(stratum.casefold(), stratum)


def _value(row: SheetRow, score: str) -> float | None:
    """Return the number in a cell; None where it is empty."""
    if not row[score]:
        return None
    scale, value = scale_of(score), row.number(score)
    if not scale.low <= value <= scale.high:
        hint = "; a percentage? Divide it by 100" if score == "fraction" and value <= 100 else ""
        raise row.refuse(score, f"{row[score]} is out of range: wanted {scale.low:g} to {scale.high:g}{hint}")
    if score == PRESENT and value not in (0, 1):
        raise row.refuse(score, f"{row[score]}: wanted 0 (no infection) or 1 (any)")
    return value


def _listed(root: Path, strata: dict[str, str]) -> LabelledSet:
    there: Iterable[str] = set(strata.values())
    order = tuple(sorted(there, key=lambda name: (STRATA.index(name) if name in STRATA else len(STRATA), name)))
    images = sorted((LabelledImage(key, name, None) for key, name in strata.items()),
                    key=lambda image: (order.index(image.stratum), image.key))  # fmt: skip
    return LabelledSet(root, "scores", ALL, tuple(images), strata=order)


def _digest(sheet: Sheet) -> str:
    return hashlib.sha256(sheet.path.read_bytes()).hexdigest()
