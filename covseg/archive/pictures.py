"""The report's pictures of an archive, drawn again from images and masks for a bounded number of images.

The stages read and report stand in a row here because only a finished snapshot knows which images come
first in their group; everything else about an image was settled when it was scored.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from itertools import product
from typing import NamedTuple

import cv2
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from duckdb import DuckDBPyConnection
from pydantic import Field

from covseg.archive.records import NamedObject, Record
from covseg.archive.runs import Run
from covseg.errors import RadiographRefused
from covseg.records import INFECTION, Entry, Mask
from covseg.report import Picture, picture
from covseg.report.quota import GROUPS, MOST
from covseg.stages.encode import overlay_jpeg
from covseg.stages.read import read
from covseg.storage import Store

CHOSEN = "SELECT input_id, key, size, etag, sha256, mask_uri FROM rows WHERE {where} ORDER BY {order} LIMIT ?"
DRAWN_AT_ONCE = 4
OVERLAYS = "overlays/"


class Drawable(NamedTuple):
    """What it takes to draw an image again: columns of its row."""

    input_id: str
    key: str
    size: int
    etag: str
    sha256: str
    mask_uri: str | None


class Drawn(NamedTuple):
    """What a snapshot shows: pictures for its report, and the overlays beside it."""

    pictures: list[Picture]
    overlays: tuple[NamedObject, ...] = ()


class _Masks(NamedTuple):
    lung: Mask
    infection: Mask


class PictureRecord(Record):
    """One of ``pictures/<n>-<sha>.json``: a `covseg.report.Picture`."""

    input_id: str
    width: int
    height: int
    image: str = Field(alias="film")
    probability: str
    lung: str
    infection: str


def choose(db: DuckDBPyConnection, limit: int) -> list[Drawable]:
    """Return the images to draw: of every group its part of `limit`, then more where groups overlap and leave room."""
    chosen: dict[Drawable, None] = {}
    for share, group in product((limit / MOST, 1), GROUPS):
        query = CHOSEN.format(where=group.where, order=group.order)
        rows = db.execute(query, [math.ceil(group.quota * share)]).fetchall()
        chosen |= dict.fromkeys(Drawable(*row) for row in rows)
    return list(chosen)[:limit]


def draw(run: Run, source: Store, chosen: list[Drawable], *, overlays: bool = False) -> Drawn:
    """Draw the chosen images, in their order; one that changed or went since it was scored is left out.

    With `overlays`, those with a mask are written to the destination at up to 1024 pixels a side, named by image and
    content: what two snapshots show alike lies there once.
    """
    with ThreadPoolExecutor(DRAWN_AT_ONCE) as pool:
        drawn = [one for one in pool.map(partial(_draw, run, source, overlays), chosen) if one is not None]
    return Drawn([shown for shown, _ in drawn], tuple(named for _, named in drawn if named is not None))


def _draw(run: Run, source: Store, overlays: bool, image: Drawable) -> tuple[Picture, NamedObject | None] | None:
    try:
        radiograph = read(source.fetch(Entry(image.key, image.size, image.etag)))
    except RadiographRefused:
        return None
    if radiograph.sha256 != image.sha256:
        return None
    refused = np.zeros(radiograph.shape, np.uint8)
    label_map = _label_map(run, image.mask_uri) if image.mask_uri else refused
    lung, infection = ((label_map >= least).astype(np.uint8) for least in (1, INFECTION))
    shown = picture(image.input_id, radiograph.samples, lung, infection)
    if not overlays or not image.mask_uri:
        return shown, None
    data = overlay_jpeg(radiograph.samples, _Masks(lung, infection))
    named = NamedObject.of(f"{OVERLAYS}{image.input_id}", data, ".jpg")
    run.dest.write(named.name, data)
    return shown, named


def overlay_paths(overlays: Iterable[NamedObject]) -> dict[str, str]:
    """Return the overlays' names by input id, which begins each."""
    return {named.name.removeprefix(OVERLAYS).partition("-")[0]: named.name for named in overlays}


def _label_map(run: Run, uri: str) -> Mask:
    """Read a label map back from its PNG, or from its shard's packed file."""
    name, _, input_id = uri.partition("#")
    data = run.dest.read(name)
    if input_id:
        packed = pq.read_table(io.BytesIO(data), columns=["mask"], filters=pc.field("input_id") == input_id)
        data = packed["mask"][0].as_py()
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE), dtype=np.uint8)


def save(run: Run, number: int, pictures: list[Picture]) -> NamedObject:
    """Write the pictures to the destination, named by content, so that the report can be rebuilt without the source."""
    data = json.dumps([PictureRecord(**asdict(picture)).model_dump() for picture in pictures]).encode()
    named = NamedObject.of(f"pictures/{number}", data, ".json")
    run.dest.write(named.name, data)
    return named


def load(run: Run, named: NamedObject) -> list[Picture]:
    """Read the pictures of a published snapshot."""
    place, data = f"{named.name} in {run.dest.url}", run.dest.read(named.name)
    return [Picture(**dict(PictureRecord.parse(record, place))) for record in json.loads(data)]
