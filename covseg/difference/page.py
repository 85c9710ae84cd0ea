"""A `Difference` as one offline HTML page: a pure function of its numbers and pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from covseg.difference.join import BINS
from covseg.difference.pictures import Pair
from covseg.difference.records import Difference, Side
from covseg.pages.environment import render_page
from covseg.pages.formats import tails
from covseg.stages.severity import GRADES
from covseg.storage import local_path

LEVELS = (*GRADES, "no lung")


@dataclass(frozen=True)
class Square:
    """One square of the scatter, in its own units from the upper left, and how dark it is, 0 to 1."""

    x: int
    y: int
    shade: float
    words: str


def render_difference(content: Difference, pairs: Sequence[Pair] = ()) -> bytes:
    """Return the page, with pictures of the images that changed most where there are any."""
    counts = {(cell.before, cell.after): cell.images for cell in content.grades}
    levels = [*LEVELS, *sorted({name for pair in counts for name in pair} - set(LEVELS))]
    matrix = [(before, [counts.get((before, after), 0) for after in levels]) for before in levels]
    return render_page(
        "covseg.difference", "difference.html.j2",
        content=content, levels=levels, matrix=matrix, squares=_squares(content), bins=BINS,
        names=_names(content.before, content.after), pairs=pairs,
        moved=sum(count for (before, after), count in counts.items() if before != after),
    )  # fmt: skip


def _names(before: Side, after: Side) -> list[str]:
    """Call the two by the ends of their paths, by their URLs where one lies in a bucket, and by an older snapshot."""
    paths = [local_path(side.url) for side in (before, after)]
    names = [before.url, after.url] if None in paths else tails([path for path in paths if path is not None])
    return names if before.snapshot is None else [f"snapshot {before.snapshot} of {names[0]}", names[1]]


def _squares(content: Difference) -> list[Square]:
    """Return the squares, darker with the logarithm of their images."""
    most = max((one.images for one in content.bins), default=1)
    edge = 100 / BINS
    return [
        Square(
            one.before,
            BINS - 1 - one.after,
            round(0.15 + 0.85 * math.log1p(one.images) / math.log1p(most), 3),
            f"{one.images:,} images: before from {one.before * edge:g} %, after from {one.after * edge:g} %",
        )
        for one in content.bins
    ]
