"""The data check as one offline HTML page."""

from __future__ import annotations

import numpy as np

from covseg.data.published import limits_of
from covseg.datacheck.check import Check, record
from covseg.pages import charts
from covseg.pages.environment import render_page


def render_check(check: Check, title: str) -> bytes:
    """Return the page, whose title is the name of the set's folder."""
    return render_page(
        "covseg.datacheck",
        "datacheck.html.j2",
        title=title,
        check=check,
        content=record(check),
        charts=_charts(check),
        limits=limits_of(check.splits[0].dataset.name),
    )


def _charts(check: Check) -> list[tuple[str, str]]:
    counts = {split.label: split.dataset.counts for split in check.splits}
    drawn = [(charts.bars(counts, "Images"), "Images per split and class")]
    for words, name in (("image", "share_of_image"), ("lung", "share_of_lung")):
        shares = {
            f"{split.label} {stratum}": np.array(values)
            for split in check.splits
            for stratum, values in getattr(split, name).items()
        }
        if shares:
            title = f"Infected share of the {words}, images with infection"
            drawn.append((charts.histogram(shares, title, f"share of the {words}"), title))
    return drawn
