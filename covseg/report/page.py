"""Table and pictures to one HTML page."""

from __future__ import annotations

import pyarrow as pa
from jinja2 import Environment, PackageLoader, StrictUndefined

from covseg.report.pictures import Picture


def render(table: pa.Table, pictures: list[Picture]) -> bytes:
    """Return the report as UTF-8 HTML.

    Parameters
    ----------
    table : pyarrow.Table
        In `covseg.table.SCHEMA`.
    pictures : list of Picture
        At most 500, in the order shown.
    """
    environment = Environment(
        loader=PackageLoader("covseg.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    rows = table.to_pylist()
    page = environment.get_template("report.html.j2").render(rows=rows, pictures=pictures)
    return page.encode()
