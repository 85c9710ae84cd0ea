"""The content of ``data.json``."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from covseg.data import Excluded
from covseg.records import RESEARCH_ONLY

Shares = dict[str, int | float]  # n, mean and quantiles of infected shares in [0, 1]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)


class SplitRecord(_Record):
    """One split; the dictionaries are by stratum, sizes by ``WIDTHxHEIGHT``."""

    split: str
    name: str = Field(alias="set")
    counts: dict[str, int]
    official: dict[str, int] | None
    complete: bool
    absent_strata: tuple[str, ...]
    sizes: dict[str, int]
    empty_infection: dict[str, int]
    infection_outside_lung: dict[str, int]
    share_of_image: dict[str, Shares] = Field(alias="share_of_film")
    share_of_lung: dict[str, Shares]
    excluded: tuple[Excluded, ...]


class Duplicate(_Record):
    """Two images that are the same or nearly so, with the labels of their splits."""

    first_split: str = Field(alias="from")
    other_split: str = Field(alias="to")
    first: str
    second: str
    exact: bool
    correlation: float


class CheckRecord(_Record):
    """The whole file."""

    intended_use: str = RESEARCH_ONLY
    splits: tuple[SplitRecord, ...]
    duplicates_across: tuple[Duplicate, ...]
    duplicates_inside: tuple[Duplicate, ...]
