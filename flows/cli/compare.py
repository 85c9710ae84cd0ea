"""``covseg compare``: paired differences between evaluations, per stratum, and cost."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from flows.cli.console import show_result, table
from flows.cli.options import OUTPUT, Json, Options

if TYPE_CHECKING:
    from covseg.evaluation.compare import Contrast, Labelled


class CompareConfig(Options):
    """What `covseg compare` can be told."""

    evaluations: tuple[Path, ...] = Field(
        description="Folders that covseg evaluate -o has written; the first is the base."
    )
    output: Annotated[Path | None, OUTPUT] = Field(
        None, description="Folder for compared.html and compared.json; a name that ends in .json is that file alone."
    )
    draws: int = Field(2000, ge=100, le=100_000, description="Resamples of the paired bootstrap.")
    json_: Json = False


def compare(config: CompareConfig) -> int:
    """Compare evaluations image by image: paired differences with intervals, per stratum, and cost."""
    from covseg.evaluation.compare import compare as contrast
    from covseg.evaluation.compare import open_evaluations
    from covseg.evaluation.compare_page import render_comparison
    from covseg.evaluation.compare_words import verdicts
    from covseg.records import RESEARCH_ONLY
    from covseg.storage import LocalStore

    evaluations = open_evaluations(list(config.evaluations))
    rows = contrast(evaluations, config.draws)
    record = {"intended_use": RESEARCH_ONLY, "rows": [asdict(row) for row in rows]}
    text = json.dumps(record, indent=1) + "\n"
    if config.output and config.output.suffix == ".json":
        config.output.write_text(text, encoding="utf-8")
    elif config.output:
        store = LocalStore(config.output)
        store.write("compared.json", text.encode())
        store.write("compared.html", render_comparison(evaluations, rows))
    meaning = "Paired bootstrap over images; p is two-sided and not corrected for the number of rows."
    base = evaluations[0].label
    lines = [*verdicts(rows, base), *cost_lines(evaluations), *contrast_lines(rows, base), meaning, RESEARCH_ONLY]
    show_result(record, lines, as_json=config.json_)
    return 0


def cost_lines(evaluations: list[Labelled]) -> list[str]:
    """Show what each model costs."""
    from covseg.metrics.intervals import short

    first, rows = evaluations[0].evaluation, []
    for side in evaluations:
        cost = side.evaluation.cost
        numbers = f"{cost.parameters / 1e6:.2f} M", short(cost.gflop, 2), short(cost.images_per_second, 1)
        rows.append((f"{side.label} ({side.evaluation.model.id})", *numbers, cost.backend))
    return [
        f"{first.data.name} {first.data.split}, {first.data.images} images; lung mask: {first.lung_mask}",
        *table(("", "parameters", "GFLOP", "images/s", "backend"), rows),
    ]


def contrast_lines(rows: list[Contrast], base: str) -> list[str]:
    """Show the paired differences; a star marks an interval without 0."""
    from covseg.evaluation.compare_words import words_of

    cells, label, stratum = [], "", ""
    for row in rows:
        if row.label != label:
            cells.append((f"{row.label} - {base}", *[""] * 7))
            label, stratum = row.label, ""
        cells.append((f"  {row.stratum if row.stratum != stratum else ''}", words_of(row.name), *_numbers(row)))
        stratum = row.stratum
    return table(("", "measure", "first", "other", "difference [95 %]", "", "p", "n"), cells, words=2)


def _numbers(row: Contrast) -> tuple[str, ...]:
    gap = row.difference
    star = "*" if gap.low > 0 or gap.high < 0 else ""
    return f"{row.first:.3f}", f"{row.other:.3f}", str(gap), star, f"{gap.p:.4f}", str(gap.n)
