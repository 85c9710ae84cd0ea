"""``covseg compare``: paired differences between evaluations, per stratum, and cost."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from covseg.evaluation.compare import Contrast, Labelled


class CompareConfig(BaseModel):
    """What `covseg compare` can be told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    evaluations: tuple[Path, ...] = Field(
        description="Folders that covseg evaluate -o has written; the first is the base."
    )
    output: Annotated[Path | None, Parameter(alias="-o")] = Field(
        default=None, description="Also write the rows as JSON here."
    )
    draws: int = Field(default=2000, ge=100, le=100_000, description="Resamples of the paired bootstrap.")


def compare(config: Annotated[CompareConfig, Parameter(name="*")]) -> int:
    """Compare evaluations image by image: paired differences with intervals, per stratum, and cost."""
    from covseg.evaluation.compare import compare as contrast
    from covseg.evaluation.compare import open_evaluations
    from covseg.records import RESEARCH_ONLY

    evaluations = open_evaluations(list(config.evaluations))
    rows = contrast(evaluations, config.draws)
    if config.output:
        told = {"intended_use": RESEARCH_ONLY, "rows": [_plain(row) for row in rows]}
        config.output.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    print("\n".join([*cost_lines(evaluations), *contrast_lines(rows, evaluations[0].label)]))
    print("Paired bootstrap over images; p is two-sided and not corrected for the number of rows.")
    print(RESEARCH_ONLY)
    return 0


def _plain(row: Contrast) -> dict[str, Any]:
    return {**asdict(row), "name": vars(row.name), "difference": asdict(row.difference)}


def cost_lines(evaluations: list[Labelled]) -> list[str]:
    """Show what each model costs."""
    from covseg.metrics.intervals import short

    first = evaluations[0].evaluation
    names = [f"{side.label} ({side.evaluation.model.id})" for side in evaluations]
    width = max(map(len, names))
    lines = [
        f"{first.data.name} {first.data.split}, {first.data.images} images; lung mask: {first.lung_mask}",
        f"{'':<{width}}{'parameters':>12}{'GFLOP':>8}{'images/s':>10}  backend",
    ]
    for name, side in zip(names, evaluations, strict=True):
        cost = side.evaluation.cost
        lines.append(
            f"{name:<{width}}{cost.parameters / 1e6:>10.2f} M{short(cost.gflop, 2):>8}"
            f"{short(cost.images_per_second, 1):>10}  {cost.backend}"
        )
    return lines


def contrast_lines(rows: list[Contrast], base: str) -> list[str]:
    """Show the paired differences; a star marks an interval without 0."""
    lines = [f"{'':<12}{'measure':<34}{'first':>11}{'other':>9}   difference [95 %]          p      n"]
    label = stratum = ""
    for row in rows:
        if row.label != label:
            lines.append(f"{row.label} - {base}")
            label, stratum = row.label, ""
        name = " ".join(part for part in (row.name.part, row.name.metric, row.name.reduction, row.name.empty) if part)
        one = row.difference
        star = "*" if one.low > 0 or one.high < 0 else " "
        lines.append(
            f"{row.stratum if row.stratum != stratum else '':<12}{name:<34}{row.first:>11.3f}{row.other:>9.3f}   "
            f"{one.value:+.3f} [{one.low:+.3f}, {one.high:+.3f}] {star} {one.p:>8.4f} {one.n:>6}"
        )
        stratum = row.stratum
    return lines
