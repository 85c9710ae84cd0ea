"""Table to the rows that the report embeds: all of a small cohort, a stated choice of a large one.

In: the severity table and the ids that have a picture. Out: at most `ROWS` plain rows, the most
infected first. The columns are named one by one, so that the source key cannot reach the page. The
detail of a refusal is covseg's own sentence and quotes no patient field; only one of the stage fetch
can quote an ETag, which tells files apart, so those are left out.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

ROWS = 2_000
BY_ID = [("input_id", "ascending")]
WORST_FIRST = [("infected_fraction", "descending"), *BY_ID]  # an image without a fraction comes last
DOUBTFUL_FIRST = [("doubt", "descending"), *BY_ID]
LOOKED_AT = 5  # images of highest doubt, marked ones and others, that the page begins with
WORST, REFUSED = 1_000, 100  # of a larger cohort; then those with a picture, and a random sample of the other images
COLUMNS = (
    "input_id", "status", "reason", "stage", "detail", "view_position", "height", "width", "pixel_spacing_mm",
    "infected_fraction", "fraction_low", "fraction_high", "infected_fraction_right", "infected_fraction_left",
    "infected_fraction_right_upper", "infected_fraction_right_middle", "infected_fraction_right_lower",
    "infected_fraction_left_upper", "infected_fraction_left_middle", "infected_fraction_left_lower",
    "infected_fraction_of_image", "infected_area_mm2", "lung_area_px", "lung_area_fraction", "lung_ratio_right_left",
    "infection_outside_lung_fraction", "grade", "extent_0_8", "zones_extent_0_24", "zones_affected_0_6",
    "infection_probability", "threshold", "component_count", "largest_component_share", "gate_score", "doubt",
    "doubt_reason", "qc_flags", "duplicate_of", "mask_uri",
)  # fmt: skip
TableRow = dict[str, str | int | float | list[str] | None]


@dataclass(frozen=True)
class Selection:
    """The embedded rows, most infected first, then images without a fraction, then refusals.

    Parameters
    ----------
    rows : list of dict
        `COLUMNS` of each.
    worst, pictured, sampled, refused : int
        How many were taken as the most infected, for their picture, at random, and from the refused.
    total : int
        Rows of the table.
    """

    rows: list[TableRow]
    worst: int
    pictured: int
    sampled: int
    refused: int
    total: int

    @property
    def doubtful(self) -> dict[str, list[tuple[int, TableRow]]]:
        """The images to look at first with their places, highest doubt first, at most `LOOKED_AT` of each kind."""
        doubts = [(-float(str(row["doubt"])), str(row["input_id"]), place) for place, row in enumerate(self.rows)
                  if row["doubt"]]  # fmt: skip
        ordered = [(place, self.rows[place]) for *_, place in sorted(doubts)]
        kinds = {
            "Marked": [one for one in ordered if one[1]["infected_fraction"]],
            "Nothing marked": [one for one in ordered if not one[1]["infected_fraction"]],
        }
        return {kind: found[:LOOKED_AT] for kind, found in kinds.items() if found}

    @property
    def complete(self) -> bool:
        """Whether every row of the table is embedded."""
        return len(self.rows) == self.total


def select(
    table: pa.Table, pictured: Collection[str] = (), limit: int = ROWS, worst: int = WORST, refused: int = REFUSED
) -> Selection:
    """Choose the embedded rows.

    A table of at most `limit` rows is taken whole. Of a larger one: those of `pictured`, ids of images that have a
    picture, and the `LOOKED_AT` of highest doubt; the `worst` most infected images; `refused` refusals; and other
    scored images up to `limit`, the last two at random. An input id is a keyed hash, so the lowest ids are a random
    draw.
    """
    keys = table.select(["input_id", "status", "infected_fraction", "doubt"])
    keys = keys.append_column("place", pa.array(np.arange(len(table))))
    is_scored = pc.equal(keys["status"], "scored")
    scored, others = keys.filter(is_scored), keys.filter(pc.invert(is_scored))
    top, shown = scored, 0
    if len(table) > limit:
        pictures = pa.array(sorted({*pictured, *_doubtful(scored)}), pa.string())
        seen, rest = _split(others, pictures)
        others = pa.concat_tables([seen, _first(rest, max(refused, limit - len(scored)) - len(seen), BY_ID)])
        top = _first(scored, worst, WORST_FIRST)
        seen, rest = _split(_split(scored, top["input_id"].combine_chunks())[1], pictures)
        sample = _first(rest, limit - len(others) - len(top) - len(seen), BY_ID)
        scored, shown = pa.concat_tables([top, seen, sample]), len(seen)
    places = [*scored.sort_by(WORST_FIRST)["place"].to_pylist(), *others.sort_by(BY_ID)["place"].to_pylist()]
    rows = table.select(COLUMNS).take(pa.array(places, pa.int64())).to_pylist()
    rows = [row | {"detail": None} if row["stage"] == "fetch" else row for row in rows]
    return Selection(rows, len(top), shown, len(scored) - len(top) - shown, len(others), len(table))


def _doubtful(scored: pa.Table) -> list[str]:
    """Return the ids of the images to look at first."""
    known = scored.filter(pc.is_valid(scored["doubt"]))
    marked = pc.fill_null(pc.greater(known["infected_fraction"], 0), False)
    parts = (known.filter(kept) for kept in (marked, pc.invert(marked)))
    return [name for part in parts for name in _first(part, LOOKED_AT, DOUBTFUL_FIRST)["input_id"].to_pylist()]


def _split(table: pa.Table, ids: pa.Array) -> tuple[pa.Table, pa.Table]:
    """Return the rows of these ids, and all others."""
    found = pc.is_in(table["input_id"], ids)
    return table.filter(found), table.filter(pc.invert(found))


def _first(table: pa.Table, count: int, order: list[tuple[str, str]]) -> pa.Table:
    return table.take(pc.select_k_unstable(table, max(0, min(count, len(table))), order))
