"""Table and pictures to one HTML page that opens offline and says the same to everybody.

In: the severity table, the pictures of some of its images, the model's presence threshold and a `Head`. Out:
UTF-8 bytes, a pure function of these: no clock, no chance, no address of anything outside the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa

from covseg.pages.environment import render_page
from covseg.records import RESEARCH_ONLY
from covseg.report import words
from covseg.report.cohort import BINS, Cohort, summarise
from covseg.report.pictures import Picture
from covseg.report.selection import COLUMNS, Selection, TableRow, select
from covseg.stages.severity import NOTES

TITLE = "Lung infection on chest radiographs"
SCRIPTS = ("report.js", "rows.js", "save.js", "viewer.js", "image.js")
PRINTED_ROWS, PRINTED_PICTURES = 60, 20
EMPTY: Mapping[str, str] = {}
# Columns of the large view of an image: label and kind, in reading order. Lungs and zones have a table of their own.
DETAILS = {
    "extent_0_8": ("Extent, 0 to 8", "number"),
    "zones_extent_0_24": ("Zone extent, 0 to 24", "number"),
    "zones_affected_0_6": ("Zones affected, 0 to 6", "number"),
    "infection_probability": ("Infection probability, as COVID-QU-Ex labels it, 0 to 1", "probability"),
    "threshold": ("Pixel threshold, 0 to 1", "number"),
    "component_count": ("Separate marked parts", "number"),
    "largest_component_share": ("Largest part, of all marked", "percent"),
    "infection_outside_lung_fraction": ("Marked outside the lung, cut off", "percent"),
    "infected_fraction_of_image": ("Marked share of the whole image", "percent"),
    "infected_area_mm2": ("Marked area, mm² on the detector", "number"),
    "lung_area_fraction": ("Lung share of the image", "percent"),
    "lung_ratio_right_left": ("Lung area, right / left", "number"),
    "gate_score": ("Input filter score", "number"),
    "doubt": ("Doubt, 0 to 1", "number"),
    "doubt_reason": ("Largest part of the doubt", "code"),
    "view_position": ("View, from the file", "text"),
    "height": ("Height, pixels", "number"),
    "width": ("Width, pixels", "number"),
    "pixel_spacing_mm": ("Pixel spacing, mm", "number"),
    "detail": ("What was found", "text"),
    "stage": ("Refused at", "code"),
    "duplicate_of": ("Same content as", "text"),
    "mask_uri": ("Mask file", "text"),
}


@dataclass(frozen=True)
class Head:
    """What the page says of itself.

    Parameters
    ----------
    title, source : str
        The user's words; `source` stands for where the images come from, whose own name could name a patient.
    date : str
        On which the images were scored, or the last of them: ISO 8601, UTC; empty where it is not known. It is the
        caller's: the page asks no clock.
    """

    title: str = TITLE
    source: str = ""
    date: str = ""

    @classmethod
    def of(cls, title: str, source: str, moment: datetime) -> Head:
        """Return the head of what was scored at a moment; without a title, its own."""
        return cls(title or TITLE, source, moment.astimezone(UTC).date().isoformat())


NO_HEAD = Head()


def render(
    table: pa.Table,
    pictures: list[Picture],
    presence: float | None = None,
    head: Head = NO_HEAD,
    overlays: Mapping[str, str] = EMPTY,
) -> bytes:
    """Return the report as UTF-8 HTML.

    Parameters
    ----------
    table : pyarrow.Table
        In `covseg.table.SCHEMA`, of any length; the source key is neither needed nor shown.
    pictures : list of Picture
        At most 500; those of scored images are shown in the order of the table, those of refused ones apart.
    presence : float or None
        The model's threshold, 0 to 1, on the infection probability of a whole image: under it nothing is
        marked. None where the caller does not know it; the page then speaks of it without a number.
    head : Head
        Title, source and day.
    overlays : mapping of str to str
        Paths of overlay files from the page's own folder, by input id; a large view links to its own.
    """
    cohort, selection = summarise(table), select(table, [picture.input_id for picture in pictures])
    pictured = _pictured(pictures, selection)
    linked = {name: path for row in selection.rows if (path := overlays.get(name := str(row["input_id"])))}
    return render_page(
        "covseg.report", "report.html.j2", ("report.css", "image.css"), SCRIPTS,
        cohort=cohort, selection=selection, head=head,
        pictures=[one for one in pictured if one[2]["status"] == "scored"],
        refused=[one for one in pictured if one[2]["status"] != "scored"],
        by_place={place: picture for picture, place, _ in pictured},
        data=_data(cohort, selection, presence) | {"overlays": linked}, presence=presence,
        words=words, notes=NOTES, printed_rows=PRINTED_ROWS, printed_pictures=PRINTED_PICTURES,
    )  # fmt: skip


def _data(cohort: Cohort, selection: Selection, presence: float | None) -> dict[str, object]:
    """Return what the script needs: the embedded rows as lists, the words for their codes, the threshold."""
    return {
        "columns": COLUMNS,
        "rows": [[row[name] for name in COLUMNS] for row in selection.rows],
        "details": [[name, *meaning] for name, meaning in DETAILS.items()],
        "grades": [bar.name for bar in cohort.grades],
        "flags": words.FLAGS,
        "notes": NOTES,
        "reasons": words.REASONS,
        "statuses": words.STATUSES,
        "presence": presence,
        "bins": BINS,
        "use": RESEARCH_ONLY,
        "printed": [PRINTED_ROWS, PRINTED_PICTURES],
    }


def _pictured(pictures: list[Picture], selection: Selection) -> list[tuple[Picture, int, TableRow]]:
    """Pair each picture with the place and content of its row, in the order of the rows."""
    places = {row["input_id"]: place for place, row in enumerate(selection.rows)}
    for picture in pictures:
        if picture.input_id not in places:
            raise ValueError(f"picture {picture.input_id} has no row in the report: wanted pictures kept by a Gallery")
    ordered = sorted(pictures, key=lambda picture: places[picture.input_id])
    return [(picture, place := places[picture.input_id], selection.rows[place]) for picture in ordered]
