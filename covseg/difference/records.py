"""The content of ``difference.json``: one typed record; counts are of images, fractions of the lung area."""

from __future__ import annotations

from pydantic import Field

from covseg.archive.records import Record
from covseg.records import RESEARCH_ONLY


class Side(Record):
    """One of the two tables, and what made its rows."""

    url: str = Field(description="of the destination")
    snapshot: int | None = Field(
        None, exclude_if=lambda number: number is None, description="where it is not the newest table there"
    )
    sha256: str = Field(description="of its severity.parquet")
    images: int
    statuses: dict[str, int]
    models: tuple[str, ...] = Field(description="ids")
    weights: tuple[str, ...] = Field(description="SHA-256")
    configs: tuple[str, ...] = Field(description="digests")
    versions: tuple[str, ...] = Field(description="of covseg")


class Cell(Record):
    """Images that are one thing before and one thing after; equal where nothing changed."""

    before: str
    after: str
    images: int


class Bin(Record):
    """Images whose fractions lie in one square of the scatter, counted from 0; the last also holds 1."""

    before: int
    after: int
    images: int


class Fractions(Record):
    """How the fractions differ of the `images` that have one on both sides: after minus before; None of no image."""

    images: int
    mean: float | None
    mean_absolute: float | None
    median_absolute: float | None
    p95_absolute: float | None = Field(description="95 of 100 images differ by this or less")
    correlation: float | None = Field(description="Pearson's r; None where a side does not vary")


class Changed(Record):
    """An image whose fraction changed, and by how much."""

    input_id: str
    before: float
    after: float
    grade_before: str
    grade_after: str


class Difference(Record):
    """Two destinations, joined by input id."""

    format: int = 1
    intended_use: str = RESEARCH_ONLY
    before: Side
    after: Side
    common: int = Field(description="in both tables")
    gone: int = Field(description="before only")
    new: int = Field(description="after only")
    same: int = Field(description="of the common: status, reason, fraction and grade are equal")
    newly_refused: int = Field(description="of the common: had a mask and have none")
    newly_scored: int = Field(description="of the common: had no mask and have one")
    grades: tuple[Cell, ...] = Field(description="of images scored on both sides; no lung where there is no grade")
    refusals: tuple[Cell, ...] = Field(
        description="of images whose status or reason changed; scored where there is none"
    )
    fractions: Fractions
    bins: tuple[Bin, ...] = Field(description="squares of the scatter that hold an image")
    changed: tuple[Changed, ...] = Field(description="the images that changed most, the most first")
