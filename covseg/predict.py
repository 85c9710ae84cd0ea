"""A folder in one process: images in; masks, rows, table and report out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from threading import Lock

from covseg import table
from covseg.pipeline import Pipeline, Refused, Result, stream
from covseg.records import RESEARCH_ONLY, Entry, Row
from covseg.report import Gallery, render
from covseg.stages.encode import mask_png, overlay, png, probability_png
from covseg.stages.segment import Backend
from covseg.storage import Store


@dataclass(frozen=True)
class Outputs:
    """What `predict` writes besides table and report.

    Parameters
    ----------
    overlay, probability : bool
        An overlay PNG; the infection probability as an 8-bit PNG (255 = 1.0), at source size.
    pictures : bool
        Draw thumbnails for the report.
    """

    overlay: bool = True
    probability: bool = False
    pictures: bool = True


def predict(
    pipeline: Pipeline,
    backend: Backend,
    source: Store,
    chosen: Iterable[Entry],
    destination: Store,
    outputs: Outputs = Outputs(),
    progress: Callable[[Row], None] = lambda _: None,
    streams: int = 1,
) -> list[Row]:
    """Score the chosen images and write masks, rows, table and report.

    Parameters
    ----------
    source, destination : Store
        Where images come from and where everything goes.
    chosen : iterable of Entry
        In key order.
    progress : callable
        Called with every finished row.
    streams : int
        Threads that walk batches side by side.

    Returns
    -------
    list of Row
        One per entry, in key order, duplicates marked.
    """
    gallery, gallery_lock = Gallery(), Lock()

    def finish(result: Result) -> Row:
        row = write_image(result, destination, outputs)
        if outputs.pictures and result.image:
            shown = () if isinstance(result, Refused) else (result.masks, result.prediction.infection)
            with gallery_lock:
                gallery.offer(row, result.image.radiograph.pixels, *shown)
        return row

    rows = []
    for row in stream(pipeline, backend, source, chosen, streams, finish):
        rows.append(row)
        progress(row)
    before, rows = {row.input_id: row for row in rows}, table.mark_duplicates(rows)
    for row in rows:
        if row is not before[row.input_id]:  # marked just now: its own file is written again
            _write_row(row, destination)
    severity = table.to_arrow(rows)
    destination.write("severity.parquet", table.to_parquet(severity))
    destination.write("severity.csv", table.to_csv(severity))
    destination.write("report.html", render(severity, gallery.pictures(), pipeline.model.thresholds.presence))
    return rows


def write_image(result: Result, destination: Store, outputs: Outputs) -> Row:
    """Write one image's mask, overlay, probability and row; return the row with its mask URI."""
    row = result.row
    if not isinstance(result, Refused):
        mask_uri = f"masks/{row.input_id}.png"
        row = replace(row, mask_uri=mask_uri)
        destination.write(mask_uri, mask_png(result.masks))
        pixels = result.image.radiograph.pixels
        if outputs.overlay:
            destination.write(f"overlays/{row.input_id}.png", png(overlay(pixels, result.masks)))
        if outputs.probability:
            probability = probability_png(result.prediction, *pixels.shape)
            destination.write(f"probability/{row.input_id}.png", probability)
    _write_row(row, destination)
    return row


def _write_row(row: Row, destination: Store) -> None:
    """Write an image's row for itself: without its key, which may name a patient, and with what every output says."""
    record = table.cells(row) | {"intended_use": RESEARCH_ONLY}
    del record["key"]
    destination.write(f"rows/{row.input_id}.json", json.dumps(record).encode())
