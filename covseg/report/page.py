"""Table and pictures to one HTML page that opens offline and says the same to everybody.

In: the severity table, the pictures of some of its images and the model's presence threshold. Out:
UTF-8 bytes, a pure function of these: no clock, no chance, no address of anything outside the file.
The content security policy lets the browser run this page's own style and script, by their digest,
and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import Any

import pyarrow as pa
from jinja2 import Environment, PackageLoader, StrictUndefined

from covseg.report import words
from covseg.report.cohort import Cohort, summarise
from covseg.report.pictures import Picture
from covseg.report.selection import COLUMNS, Selection, select

NARROW = "\N{NARROW NO-BREAK SPACE}"
PRINTED_ROWS, PRINTED_PICTURES = 60, 20
# Columns of the large view of one image: label and kind, in reading order. The six zones stand in a table of their own.
DETAILS = {
    "infected_fraction_right": ("Right lung", "percent"),
    "infected_fraction_left": ("Left lung", "percent"),
    "extent_0_8": ("Extent, 0 to 8", "number"),
    "zones_extent_0_24": ("Zone extent, 0 to 24", "number"),
    "zones_affected_0_6": ("Zones affected, 0 to 6", "number"),
    "infection_probability": ("Infection probability, 0 to 1", "probability"),
    "threshold": ("Pixel threshold, 0 to 1", "number"),
    "component_count": ("Separate marked parts", "number"),
    "largest_component_share": ("Largest part, of all marked", "percent"),
    "infection_outside_lung_fraction": ("Marked outside the lung, cut off", "percent"),
    "infected_fraction_of_image": ("Marked share of the whole image", "percent"),
    "infected_area_mm2": ("Marked area, mm² on the detector", "number"),
    "lung_area_fraction": ("Lung share of the image", "percent"),
    "lung_ratio_right_left": ("Lung area, right / left", "number"),
    "gate_score": ("Input filter score", "number"),
    "view_position": ("View, from the file", "text"),
    "height": ("Height, pixels", "number"),
    "width": ("Width, pixels", "number"),
    "pixel_spacing_mm": ("Pixel spacing, mm", "number"),
    "detail": ("What was found", "text"),
    "stage": ("Refused at", "text"),
    "duplicate_of": ("Same content as", "text"),
    "mask_uri": ("Mask file", "text"),
}


def render(table: pa.Table, pictures: list[Picture], presence: float | None = None) -> bytes:
    """Return the report as UTF-8 HTML.

    Parameters
    ----------
    table : pyarrow.Table
        In `covseg.table.SCHEMA`, of any length; the source key is neither needed nor shown.
    pictures : list of Picture
        At most 500, in the order shown.
    presence : float or None
        The model's threshold, 0 to 1, on the infection probability of a whole image: under it nothing is
        marked. None where the caller does not know it; the page then speaks of it without a number.
    """
    style, script = _part("report.css"), _part("report.js")
    cohort, selection = summarise(table), select(table)
    page = _environment().get_template("report.html.j2").render(
        style=style, script=script, policy=_policy(style, script),
        cohort=cohort, selection=selection, pictures=_pictured(pictures, selection),
        data=_data(cohort, selection, presence), presence=presence, words=words, printed_rows=PRINTED_ROWS,
        printed_pictures=PRINTED_PICTURES,
    )  # fmt: skip
    return page.encode()


def _data(cohort: Cohort, selection: Selection, presence: float | None) -> dict[str, Any]:
    """Return what the script needs: the embedded rows as lists, the words for their codes, the threshold."""
    return {
        "columns": COLUMNS,
        "rows": [[row[name] for name in COLUMNS] for row in selection.rows],
        "details": [[name, *meaning] for name, meaning in DETAILS.items()],
        "grades": [bar.name for bar in cohort.grades],
        "flags": words.FLAGS,
        "reasons": words.REASONS,
        "statuses": words.STATUSES,
        "presence": presence,
        "printed": [PRINTED_ROWS, PRINTED_PICTURES],
    }


def _pictured(pictures: list[Picture], selection: Selection) -> list[tuple[Picture, int, dict[str, Any]]]:
    """Pair each picture with the place and content of its row."""
    places = {row["input_id"]: place for place, row in enumerate(selection.rows)}
    for picture in pictures:
        if picture.input_id not in places:
            raise ValueError(f"picture {picture.input_id} has no row in the report: wanted pictures kept by a Gallery")
    return [(picture, place := places[picture.input_id], selection.rows[place]) for picture in pictures]


def _part(name: str) -> str:
    return (files("covseg.report") / "templates" / name).read_text("utf-8")


def _policy(style: str, script: str) -> str:
    """Return the content security policy: this style, this script, pictures inside the page, nothing else."""
    own = [f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in (style, script)]
    ours = f"style-src {own[0]}; script-src {own[1]}; img-src data:"
    return f"default-src 'none'; {ours}; base-uri 'none'; form-action 'none'"


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("covseg.report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "percent": percent, "number": number, "count": "{:,}".format, "brief": brief, "short": short, "spoken": spoken,
        "probability": probability, "limit": limit,
    }  # fmt: skip
    return environment


def percent(fraction: float | None) -> str:
    """Write a fraction as a percentage; what is above 0 never reads 0.

    Examples
    --------
    >>> [percent(value).replace(NARROW, " ") for value in (0.0, 0.0001, 0.3456, 1.0, None)]
    ['0 %', '<0.1 %', '34.6 %', '100 %', '–']
    """
    if fraction is None:
        return "–"
    if 0 < fraction < 0.0005:
        return f"<0.1{NARROW}%"
    return f"{100 * fraction:.{0 if fraction in (0, 1) else 1}f}{NARROW}%"


def number(value: float | None) -> str:
    """Write a number with at most two decimals.

    Examples
    --------
    >>> [number(value) for value in (3, 3.0, 0.61234, None)]
    ['3', '3', '0.61', '–']
    """
    return "–" if value is None else f"{value:.2f}".rstrip("0").rstrip(".")


def probability(value: float | None) -> str:
    """Write a probability with two decimals; what is above 0 never reads 0.

    Examples
    --------
    >>> [probability(value).replace("\N{NO-BREAK SPACE}", " ") for value in (0.0, 0.00003, 0.005, 0.5, None)]
    ['0.00', '< 0.01', '0.01', '0.50', '–']
    """
    if value is None:
        return "–"
    return "<\N{NO-BREAK SPACE}0.01" if 0 < value < 0.005 else f"{value:.2f}"


def limit(value: float) -> str:
    """Write a threshold with three significant digits.

    Examples
    --------
    >>> [limit(value) for value in (0.28112291687520796, 0.5, 0.0)]
    ['0.281', '0.5', '0']
    """
    return f"{value:.3g}"


def brief(count: int) -> str:
    """Write a count in at most five characters, for the bars of a chart.

    Examples
    --------
    >>> [brief(count) for count in (7, 9_999, 12_345, 2_500_000)]
    ['7', '9,999', '12k', '2.5M']
    """
    if count < 10_000:
        return f"{count:,}"
    return f"{count / 1e3:.0f}k" if count < 999_500 else f"{count / 1e6:.1f}M"


def short(name: str) -> str:
    """Cut a long id to its first twelve characters, which tell images of one cohort apart."""
    return name if len(name) <= 16 else name[:12]


def spoken(code: str) -> str:
    """Write a code in plain letters.

    Examples
    --------
    >>> spoken("lung_area_out_of_range")
    'lung area out of range'
    """
    return code.replace("_", " ")
