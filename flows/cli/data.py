"""``covseg data``: look at a labelled set before believing a number made on it; a first table for one without."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App
from pydantic import Field

from flows.cli.console import progress, show_result
from flows.cli.examples import ending
from flows.cli.options import OUTPUT, Json, Options

if TYPE_CHECKING:
    from covseg.datacheck.check import Check

data = App(name="data")
SHOWN = 20  # duplicate pairs of each kind on the screen; all are in the JSON


class CheckConfig(Options):
    """What `covseg data check` can be told."""

    root: Path = Field(description="Folder with Train, Val, Test (COVID-QU-Ex), or with images/, masks/, labels.csv.")
    against: Path | None = Field(default=None, description="Another set, for duplicates between the two.")
    output: Annotated[Path, OUTPUT] = Field(Path("data-check"), description="Folder for data.html and data.json.")
    json_: Json = False


class LabelsConfig(Options):
    """What `covseg data labels` can be told."""

    root: Path = Field(description="Folder with images/ and masks/ of the same names.")
    dry_run: bool = Field(False, description="Print the table, and write nothing.")
    json_: Json = False


@data.command(help_epilogue=ending("data labels"))
def labels(config: LabelsConfig) -> int:
    """Write a first labels.csv for images/ and masks/: stratum by the mask, a quarter to Val; look it over."""
    from covseg.data.labels import label_rows, labels_csv, write_labels

    rows = label_rows(config.root)
    counts = {
        f"{split} {stratum}": count for (stratum, split), count in sorted(Counter(row[1:] for row in rows).items())
    }
    sums = ", ".join(f"{name} {count}" for name, count in counts.items())
    if config.dry_run:
        lines = [labels_csv(rows).rstrip()]
    else:
        lines = [
            f"{write_labels(config.root, rows)}: {sums}",
            "Images of one patient belong into one split: edit the table",
        ]
    show_result({"rows": len(rows), "counts": counts, "dry_run": config.dry_run}, lines, as_json=config.json_)
    return 0


@data.command(help_epilogue=ending("data check"))
def check(config: CheckConfig) -> int:
    """Count, check masks, draw samples, and list exact and near duplicates across splits."""
    from covseg.datacheck.check import check as run
    from covseg.datacheck.check import record
    from covseg.datacheck.page import render_check
    from covseg.storage import LocalStore

    with progress("images") as report:
        checked = run(config.root, config.against, report)
    store = LocalStore(config.output)
    document = record(checked).model_dump(mode="json")
    store.write("data.json", json.dumps(document, indent=1).encode())
    store.write("data.html", render_check(checked, config.root.name))
    files = f"{config.output}/data.html, data.json. Research use only, not for diagnosis."
    show_result(document, [*screen(checked), files], as_json=config.json_)
    return 0


def screen(checked: Check) -> list[str]:
    """Show counts, what is wrong, and the duplicates."""
    from covseg.datacheck.check import record

    lines = []
    for split in record(checked).splits:
        counts = ", ".join(f"{name} {count or 'absent'}" for name, count in split.counts.items())
        official = ", as published" if split.complete else f", OFFICIAL: {split.official}"
        official = "" if split.official is None else official
        lines.append(f"{split.split}: {counts}{official}; left out {len(split.excluded)}")
        lines += [f"    {image.reason}: {image.detail}" for image in split.excluded[:5]]
        outside = sum(split.infection_outside_lung.values())
        lines.append(
            f"    empty infection masks {split.empty_infection}; infection outside the lung in {outside} images"
        )
    for words, pairs in (("across splits", checked.across), ("inside splits", checked.inside)):
        lines.append(f"duplicates {words}: {len(pairs)} pairs")
        for first, second, pair in pairs[:SHOWN]:
            kind = "equal pixels" if pair.exact else f"r = {pair.correlation:.4f}"
            lines.append(f"    {kind:<14}{first} {Path(pair.first).name}  ~  {second} {Path(pair.second).name}")
    return lines
