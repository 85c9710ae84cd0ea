"""A folder in one process: images in; masks, rows, table and report out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from threading import Lock
from typing import Literal

from covseg import table
from covseg.outcome import Refused, Result
from covseg.pipeline import Pipeline, stream
from covseg.records import RESEARCH_ONLY, Entry, Row
from covseg.report import NO_HEAD, Gallery, Head, render
from covseg.settings.dicom import DicomKind
from covseg.stages.encode import mask_png, overlay_jpeg, overlay_png, probability_png
from covseg.stages.segment import Backend
from covseg.storage import Store

Overlay = Literal["none", "report", "all", "full"]
COLUMNS = frozenset(table.SCHEMA.names)  # of every image's own row


@dataclass(frozen=True)
class Outputs:
    """What `predict` writes besides table and report.

    Parameters
    ----------
    overlay : str
        ``report``: a JPEG of at most 1024 pixels a side of the images that the report shows; ``all``: of every
        image; ``full``: a PNG of every image at source size; ``none``.
    probability : bool
        The infection probability as an 8-bit PNG (255 = 1.0), at source size.
    pictures : bool
        Draw thumbnails for the report.
    head : Head
        What the report says of itself.
    """

    overlay: Overlay = "report"
    probability: bool = False
    pictures: bool = True
    head: Head = NO_HEAD

    def overlay_of(self, input_id: str) -> str:
        """Return where the overlay of an image goes, if it has one."""
        return f"overlays/{input_id}.{'png' if self.overlay == 'full' else 'jpg'}"


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
    gallery, gallery_lock, drawn = Gallery(), Lock(), set[str]()

    def finish(result: Result) -> Row:
        row = write_image(result, destination, outputs)
        wanted = outputs.pictures or outputs.overlay == "report"
        if not wanted or not result.image:
            return row
        samples = result.image.radiograph.samples
        with gallery_lock:
            shown = () if isinstance(result, Refused) else (result.masks, result.prediction.infection)
            kept = gallery.offer(row, samples, *shown)
        if kept and not isinstance(result, Refused) and outputs.overlay == "report":
            drawn.add(row.input_id)
            destination.write(outputs.overlay_of(row.input_id), overlay_jpeg(samples, result.masks))
        return row

    rows = []
    for row in stream(pipeline, backend, source, chosen, streams, finish):
        rows.append(row)
        progress(row)
    before, rows = {row.input_id: row for row in rows}, table.mark_duplicates(rows)
    for row in rows:
        if row is not before[row.input_id]:  # marked just now: its own file is written again
            _write_row(row, destination)
    pictures = gallery.pictures()
    for name in drawn - {picture.input_id for picture in pictures}:  # shown for a while, until worse ones came
        destination.delete(outputs.overlay_of(name))
    severity = table.to_arrow(rows, table.schema_with(pipeline.dicom))
    destination.write("severity.parquet", table.to_parquet(severity))
    destination.write("severity.csv", table.to_csv(severity))
    presence = pipeline.model.thresholds.presence
    shown = pictures if outputs.pictures else []
    drawn &= {picture.input_id for picture in pictures}
    lying = drawn if outputs.overlay in ("none", "report") else {row.input_id for row in rows if row.mask_uri}
    overlays = {name: outputs.overlay_of(name) for name in lying}
    destination.write("report.html", render(severity, shown, presence, outputs.head, overlays))
    return rows


def write_image(result: Result, destination: Store, outputs: Outputs) -> Row:
    """Write one image's mask, overlay, probability, DICOM objects and row; return the row with its URIs."""
    row = result.row
    if not isinstance(result, Refused):
        mask_uri = f"masks/{row.input_id}.png"
        row = replace(row, mask_uri=mask_uri)
        destination.write(mask_uri, mask_png(result.masks))
        radiograph = result.image.radiograph
        if outputs.overlay == "full":
            destination.write(outputs.overlay_of(row.input_id), overlay_png(radiograph.samples, result.masks))
        elif outputs.overlay == "all":
            destination.write(outputs.overlay_of(row.input_id), overlay_jpeg(radiograph.samples, result.masks))
        if outputs.probability:
            probability = probability_png(result.prediction, *radiograph.shape)
            destination.write(f"probability/{row.input_id}.png", probability)
        uris: dict[DicomKind, str] = {kind: f"dicom/{kind}/{row.input_id}.dcm" for kind in result.objects}
        for kind, data in result.objects.items():
            destination.write(uris[kind], data)
        row = row.with_dicom(uris) if uris else row
    _write_row(row, destination)
    return row


def _write_row(row: Row, destination: Store) -> None:
    """Write an image's row for itself: without its key, which may name a patient, and with what every output says."""
    known = {name: value for name, value in table.cells(row).items() if name in COLUMNS or value}
    record = known | {"intended_use": RESEARCH_ONLY}
    del record["key"]
    destination.write(f"rows/{row.input_id}.json", json.dumps(record).encode())
