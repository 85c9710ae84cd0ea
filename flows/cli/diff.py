"""``covseg diff``: two scored destinations, image by image."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from flows.cli.console import show_result, table
from flows.cli.options import OUTPUT, Json, Options

if TYPE_CHECKING:
    from covseg.difference import Difference


class DiffConfig(Options):
    """What `covseg diff` can be told."""

    before: str = Field(
        description="DEST of covseg score, or the -o of covseg predict: a folder or s3://bucket/prefix."
    )
    after: str = Field(description="Another one, of the same images: another model, other limits, or a later day.")
    snapshot: int | None = Field(
        None, ge=1, description="Take this older snapshot of BEFORE; AFTER may then be the same DEST."
    )
    output: Annotated[Path, OUTPUT] = Field(Path("difference"), description="Folder for difference.html and .json.")
    json_: Json = False


def diff(config: DiffConfig) -> int:
    """Compare two scored destinations image by image: grades, fractions, refusals, and what changed most."""
    from covseg import archive
    from covseg.difference import compare, draw_changed, render_difference
    from covseg.storage import LocalStore, open_store

    before, after = open_store(config.before), open_store(config.after)
    for store in (before, after):
        store.check()
    with tempfile.TemporaryDirectory(prefix="covseg-diff-") as folder:
        older = None
        if config.snapshot is not None:
            older = config.snapshot, Path(folder) / "severity.parquet"
            archive.write_table(archive.load_run(before, before), *older)
        difference = compare(before, after, older)
    out = LocalStore(config.output)
    out.write("difference.json", difference.encode())
    out.write("difference.html", render_difference(difference, draw_changed(difference, before, after)))
    files = f"{config.output}/difference.html, difference.json. {difference.intended_use}"
    show_result(difference.model_dump(), [*screen(difference), files], as_json=config.json_)
    return 0


def screen(difference: Difference) -> list[str]:
    """Show counts, the grades that changed and the refusals that did."""
    fractions = difference.fractions
    counts = {
        "in both": difference.common, "the same": difference.same, "newly refused": difference.newly_refused,
        "newly scored": difference.newly_scored, "gone": difference.gone, "new": difference.new,
    }  # fmt: skip
    lines = [", ".join(f"{name} {count:,}" for name, count in counts.items())]
    if fractions.images:
        lines.append(f"fraction, after minus before: {fractions.mean:+.4f}, apart by {fractions.mean_absolute:.4f}")
    moved = [*(cell for cell in difference.grades if cell.before != cell.after), *difference.refusals]
    rows = [(cell.before.replace("_", " "), cell.after.replace("_", " "), f"{cell.images:,}") for cell in moved]
    return [*lines, *table(("before", "after", "images"), rows, words=2)] if rows else lines
