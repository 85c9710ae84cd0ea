"""The content of ``metrics.json``: one typed record, written and read back.

A number that nothing can be said of is null in the file and NaN in the record.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from covseg.data import Excluded
from covseg.metrics.convention import IMAGE
from covseg.metrics.intervals import interval
from covseg.metrics.measures import Name

Number = Annotated[
    float,
    BeforeValidator(lambda value: float("nan") if value is None else value),
    PlainSerializer(lambda value: value if np.isfinite(value) else None, return_type=float | None),
]


class Record(BaseModel):
    """A part of the file: frozen, and nothing in it that is not named here."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)


class Measured(Record):
    """A value with its interval and the number of images behind it."""

    value: Number
    low: Number
    high: Number
    n: int

    def __str__(self) -> str:
        """``.744 [.721, .766]``."""
        return interval(self.value, self.low, self.high)

    @property
    def known(self) -> bool:
        """Whether there is a number at all."""
        return bool(np.isfinite(self.value))


class MetricLine(Record):
    """One number of the table: of which images, its name, interval and n; see `covseg.metrics.measures.Name`."""

    stratum: str
    part: str
    metric: str
    reduction: str
    empty: str
    value: Number
    low: Number
    high: Number
    n: int

    def __str__(self) -> str:
        """``.744 [.721, .766]``."""
        return interval(self.value, self.low, self.high)

    @property
    def known(self) -> bool:
        """Whether there is a number at all."""
        return bool(np.isfinite(self.value))


class ModelFacts(Record):
    """Which model was evaluated, with everything that changes its numbers."""

    id: str
    weights_sha256: str
    config_sha256: str
    backend: str
    thresholds: dict[str, float]
    code_version: str


class DataFacts(Record):
    """Which images were evaluated, and which were not."""

    name: str = Field(alias="set")
    split: str
    digest: str
    images: int = Field(alias="films")
    counts: dict[str, int]
    absent_strata: tuple[str, ...]
    excluded: tuple[Excluded, ...]
    excluded_counts: dict[str, int]
    refused: dict[str, dict[str, int]] = Field(description="stratum, then reason")

    @property
    def strata(self) -> list[str]:
        """Strata that have an image, in order."""
        return [name for name, count in self.counts.items() if count]

    @property
    def counted(self) -> str:
        """Images of each stratum in words."""
        return ", ".join(f"{name} {count or 'absent'}" for name, count in self.counts.items())


class Cost(Record):
    """What one image costs: 10^9 operations at model size (a multiply-add counts as two), and the rate of this run."""

    parameters: int
    gflop: Number
    images_per_second: Number = Field(float("nan"), alias="films_per_second")
    backend: str = ""


class ShiftLine(Record):
    """Images under one shift, or at real size, beside the same images as they are.

    What was lost is paired, and negative where the change gained.
    """

    name: str
    words: str
    seen: bool = Field(description="training draws something like it")
    by_design: str = Field(description="'refused' where the input filter is meant to refuse it")
    images: int
    covid_dice: Measured = Field(description="per image, images with infection; a refused one counts 0")
    covid_dice_as_it_is: Number
    covid_dice_lost: Measured
    specificity: Measured = Field(description="image level, images without infection; a refused one counts as wrong")
    specificity_as_it_is: Number
    specificity_lost: Measured
    marked: Number = Field(description="share of the images with infection that have a mask")
    marked_as_it_is: Number
    lung_dice: Measured
    fraction_r: Measured = Field(description="Pearson's r of the infected fraction, images with infection")
    refused: Number = Field(description="share of the images")
    flagged: Number = Field(description="share of the scored images with a flag that asks for a look")
    agreement: Number = Field(description="mean Dice with the mask of the image as it is, over unflagged images")
    kept: Number = Field(description="share of unflagged images whose agreement is at least .9")
    unflagged: int


class ControlLine(Record):
    """How well the image-level probability tells images with infection from others when a part is painted flat."""

    name: str
    words: str
    against: str = Field(description="the images without infection: all others, or one stratum")
    auroc: Measured


class DoubtLine(Record):
    """Share of the worst tenth of errors (of the infected fraction) that the first images by doubt hold."""

    words: str = Field(description="which images")
    tenth: Measured = Field(description="the first tenth of doubt; chance gives .1")
    fifth: Measured
    third: Measured
    presence_fifth: Number = Field(description="as `fifth`, sorted by the presence's nearness to its threshold alone")


class Robustness(Record):
    """What ``--shifts`` and ``--twins`` add, and the control."""

    control: tuple[ControlLine, ...] = ()
    shifts: tuple[ShiftLine, ...] = ()
    twins: tuple[ShiftLine, ...] = ()
    doubt: tuple[DoubtLine, ...] = Field((), description="under the twins and each shift")

    @property
    def worst_first(self) -> list[ShiftLine]:
        """Shifts by the larger of their losses of Dice and specificity; those refused by design come last."""

        def loss(line: ShiftLine) -> tuple[bool, float]:
            return bool(line.by_design), -max(line.covid_dice_lost.value, line.specificity_lost.value)

        return sorted(self.shifts, key=loss)


class Evaluation(Record):
    """The whole file."""

    version: Literal[1] = Field(1, alias="schema")
    intended_use: str
    model: ModelFacts
    data: DataFacts
    lung_mask: Literal["predicted", "truth"]
    conventions: dict[str, str]
    limits: tuple[str, ...]
    headline: dict[str, Measured]
    lines: tuple[MetricLine, ...]
    surface_status: dict[str, dict[str, int]] = Field(description="stratum, then status")
    lesions: dict[str, int] = Field(description="small connected parts of truth, and those without a predicted pixel")
    reliability: dict[str, Number]
    doubt: DoubtLine | None = Field(None, description="None without true lungs, or where it is older than doubt")
    warnings: tuple[str, ...]
    cost: Cost
    robustness: Robustness = Robustness()
    test_use: int | None = Field(
        None, exclude_if=lambda use: use is None, description="number of this use of the Test split; absent elsewhere"
    )

    @cached_property
    def _by_name(self) -> dict[tuple[str, Name], MetricLine]:
        return {(line.stratum, Name(line.part, line.metric, line.reduction, line.empty)): line for line in self.lines}

    def line(
        self, stratum: str, part: str, metric: str, reduction: str = str(IMAGE), empty: str = ""
    ) -> MetricLine | None:
        """Find a line; None where the stratum has no image or the measure does not exist on it."""
        return self._by_name.get((stratum, Name(part, metric, reduction, empty)))
