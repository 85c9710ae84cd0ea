"""Twins: the same images in another form (at real size, from another publisher), joined to a labelled set by a CSV.

In: a CSV and a labelled set. Out: a condition whose pixels are the twin's and whose truth is the set's. The CSV names,
a line each, the twin's file (column ``film`` or ``image``, in ``images/`` beside the CSV) and the image of the set that
it is (``covidqu`` or ``of``: its file name); ``split`` and ``stratum`` where a name alone is not enough.
"""

from __future__ import annotations

import csv
import hashlib
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from covseg.data import LabelledImage, LabelledSet
from covseg.errors import RadiographRefused, SetRefused, UsageError
from covseg.evaluation.conditions import TWIN, Condition
from covseg.records import Truth
from covseg.stages.read import read
from covseg.synthetic.shifts import Pixels

FILE, PARTNER = ("image", "film"), ("of", "covidqu")
IMAGES = "images"


def read_twins(path: Path, dataset: LabelledSet) -> dict[str, list[Path]]:
    """Return the files of the twins of each image that has any, by the image's key.

    Raises
    ------
    UsageError
        When the CSV is missing, lacks a column, or names a file or an image that is not there; when no twin is of
        this split; when a line stands there twice.
    """
    if not path.is_file():
        raise UsageError(f"--twins {path}: no such file; wanted a CSV with columns {FILE[0]} and {PARTNER[0]}")
    with path.open(encoding="utf-8-sig", newline="") as text:
        rows = list(csv.DictReader(text))
    columns = [_column(path, rows, names) for names in (FILE, PARTNER)]
    by_name: dict[tuple[str, str], LabelledImage] = {}
    for image in dataset.images:
        by_name |= {(Path(image.key).name, stratum): image for stratum in (image.stratum.casefold(), "")}
    twins: dict[str, list[Path]] = {}
    for number, row in enumerate(rows, 2):
        if row.get("split", "").casefold() not in ("", dataset.split.casefold()):
            continue
        name, partner = (row[column] for column in columns)
        found = by_name.get((partner, row.get("stratum", "").casefold()))
        if found is None:
            raise UsageError(f"{path}, line {number}: no image {partner!r} in split {dataset.split} of {dataset.root}")
        file = path.parent / IMAGES / name
        if file in twins.setdefault(found.key, []):
            raise UsageError(f"{path}, line {number}: {name!r} stands there twice as the twin of {partner!r}")
        if not file.is_file():
            raise UsageError(f"{path}, line {number}: no file {file}; wanted the twin of {partner!r}")
        twins[found.key].append(file)
    if not twins:
        raise UsageError(f"{path}: {len(rows)} twins, none of split {dataset.split} of {dataset.root}")
    return twins


def _column(path: Path, rows: list[dict[str, str]], names: tuple[str, str]) -> str:
    found = [name for name in names if rows and name in rows[0]]
    if not found:
        there = ", ".join(rows[0]) if rows else "no line"
        raise UsageError(f"{path}: no column {names[0]!r} (or {names[1]!r}); it has {there}")
    return found[0]


def with_twins(dataset: LabelledSet, twins: dict[str, list[Path]]) -> LabelledSet:
    """Return the images of a set that have a twin."""
    return replace(dataset, images=tuple(image for image in dataset.images if image.key in twins), excluded=())


def of_twins(twins: dict[str, list[Path]]) -> list[Condition]:
    """Return the twins as conditions: the first of each image, the second of those that have two, and so on."""

    def make(place: int, image: LabelledImage, _pixels: Pixels, _truth: Truth) -> Pixels | None:
        files = twins[image.key]
        if place >= len(files):
            return None
        try:
            return np.asarray(read(files[place].read_bytes()).pixels, np.float32)
        except RadiographRefused as refused:
            raise SetRefused(f"{files[place]}: {refused}; leave it out of the twins' CSV") from refused

    most, source = max(map(len, twins.values())), _digest(twins)
    return [Condition(f"{TWIN} {place + 1}", partial(make, place), source=source) for place in range(most)]


def _digest(twins: dict[str, list[Path]]) -> str:
    """Say which files these are, so that another CSV, or another file of the same name, is walked anew."""
    lines = [(key, str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns)
             for key, files in twins.items() for file in files]  # fmt: skip
    return hashlib.sha256(repr(lines).encode()).hexdigest()


def as_one(table: pa.Table) -> pa.Table:
    """Return the rows of all twins under one name."""
    merged = [TWIN if name.startswith(TWIN) else name for name in table.column("condition").to_pylist()]
    return table.set_column(table.column_names.index("condition"), "condition", pa.array(merged))
