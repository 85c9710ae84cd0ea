"""The content of ``external.json``: one typed record, written and read back."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

from pydantic import Field

from covseg.evaluation.records import Measured, ModelFacts, Record


class Agreement(Measured):
    """One number: how `found` agrees with what `reader` said."""

    stratum: str = Field(description="of which images; all is every one")
    score: str = Field(description="column of scores.csv")
    reader: str = Field(description="the reference; mean (of present: majority) is all readers together")
    found: str = Field(description="what is compared with it: a column of the severity table, or another reader")
    metric: str = Field(
        description="of numbers pearson_r, spearman_r and, in equal units, bias (found minus reader), limit_low, "
        "limit_high, mae; of present sensitivity, specificity, auroc, and between readers agreement, kappa"
    )


class ScoreFacts(Record):
    """One score: what its column means, and how many cells of its readers hold a number."""

    name: str
    words: str
    ours: tuple[str, ...]
    same_units: bool
    cells: dict[str, int] = Field(description="by reader")


class SetFacts(Record):
    """Which images were compared, and which had no answer."""

    name: str = Field(description="of the folder")
    digest: str = Field(description="SHA-256 over keys, strata and file sizes")
    scores_sha256: str
    images: int
    counts: dict[str, int] = Field(description="images by stratum")
    readers: dict[str, int] = Field(description="images that a reader scored in any column")
    refused: dict[str, dict[str, int]] = Field(description="stratum, then reason")
    no_lung: int = Field(description="images with an answer in which no lung was found: no fraction, no extent")

    @property
    def refused_count(self) -> int:
        """Images that the pipeline refused."""
        return sum(count for reasons in self.refused.values() for count in reasons.values())


class ExternalEvaluation(Record):
    """The whole file."""

    version: Literal[1] = Field(1, alias="schema")
    intended_use: str
    model: ModelFacts
    data: SetFacts
    scores: tuple[ScoreFacts, ...]
    conventions: dict[str, str]
    limits: tuple[str, ...]
    lines: tuple[Agreement, ...]
    warnings: tuple[str, ...]

    @cached_property
    def _by_name(self) -> dict[tuple[str, ...], Agreement]:
        return {(line.stratum, line.score, line.reader, line.found, line.metric): line for line in self.lines}

    def line(self, stratum: str, score: str, reader: str, found: str, metric: str) -> Agreement | None:
        """Find a line; None where there is no such comparison."""
        return self._by_name.get((stratum, score, reader, found, metric))

    def pairs(self, stratum: str, score: str) -> list[tuple[str, str]]:
        """Return who is compared in a stratum: (reader, found), in order; readers with each other last."""
        return list(dict.fromkeys(
            (line.reader, line.found) for line in self.lines if (line.stratum, line.score) == (stratum, score)
        ))  # fmt: skip
