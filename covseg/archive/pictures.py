"""The report's pictures of an archive, drawn again from images and masks for a bounded number of images.

The stages read and report stand in a row here because only a finished snapshot knows which images are
the worst; everything else about an image was settled when it was scored.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from covseg.archive.runs import Run
from covseg.errors import RadiographRefused
from covseg.records import INFECTION, Entry, Mask, Masks
from covseg.report import Picture, picture
from covseg.stages.read import read
from covseg.storage import Store

COLUMNS = ["input_id", "key", "size", "etag", "sha256", "infected_fraction", "mask_uri"]
WORST = [("infected_fraction", "descending"), ("input_id", "ascending")]
SAMPLE = [("input_id", "ascending")]  # an input id is a keyed hash: the lowest are a random draw
DRAWN_AT_ONCE = 4
DISK_NAMES = {"image": "film"}  # field of a picture -> its name in pictures/*.json


def choose(rows: Iterator[pa.Table], limit: int) -> list[dict[str, Any]]:
    """Return the images to draw: four fifths the most infected, then a sample; the ones the report shows."""
    worst = sample = None
    for part in rows:
        scored = part.filter(pc.equal(part["status"], "scored")).select(COLUMNS)
        worst = _best(worst, scored, limit - limit // 5, WORST)
        sample = _best(sample, scored, limit // 5, SAMPLE)
    chosen = [*_rows(worst, WORST), *_rows(sample, SAMPLE)]
    return list({row["input_id"]: row for row in chosen}.values())


def _best(kept: pa.Table | None, new: pa.Table, count: int, by: list[tuple[str, str]]) -> pa.Table:
    both = new if kept is None else pa.concat_tables([kept, new])
    return both.take(pc.select_k_unstable(both, min(count, len(both)), by))


def _rows(table: pa.Table | None, by: list[tuple[str, str]]) -> list[dict[str, Any]]:
    return [] if table is None else table.sort_by(by).to_pylist()


def draw(run: Run, source: Store, chosen: list[dict[str, Any]]) -> list[Picture]:
    """Draw the chosen images, in their order; one that changed or went since it was scored is left out."""
    with ThreadPoolExecutor(DRAWN_AT_ONCE) as pool:
        drawn = pool.map(partial(_draw, run, source), chosen)
        return [one for one in drawn if one is not None]


def _draw(run: Run, source: Store, row: dict[str, Any]) -> Picture | None:
    try:
        radiograph = read(source.fetch(Entry(row["key"], row["size"], row["etag"])))
    except RadiographRefused:
        return None
    if radiograph.sha256 != row["sha256"]:
        return None
    label_map = _label_map(run, row["mask_uri"])
    lung, infection = ((label_map >= least).astype(np.uint8) for least in (1, INFECTION))
    masks = Masks(lung, infection, np.zeros_like(lung), False, 0.0, 0, None)  # the picture shows outlines only
    return picture(row["input_id"], radiograph.pixels, masks, None)


def _label_map(run: Run, uri: str) -> Mask:
    """Read a label map back from its PNG, or from its shard's packed file."""
    name, _, input_id = uri.partition("#")
    data = run.dest.read(name)
    if input_id:
        packed = pq.read_table(io.BytesIO(data), columns=["mask"], filters=pc.field("input_id") == input_id)
        data = packed["mask"][0].as_py()
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE), dtype=np.uint8)


def save(run: Run, number: int, pictures: list[Picture]) -> dict[str, Any]:
    """Write the pictures to the destination, named by content, so that the report can be rebuilt without the source."""
    kept = [{DISK_NAMES.get(name, name): value for name, value in asdict(one).items()} for one in pictures]
    data = json.dumps(kept).encode()
    digest = hashlib.sha256(data).hexdigest()
    name = f"pictures/{number}-{digest[:16]}.json"
    run.dest.write(name, data)
    return {"name": name, "sha256": digest, "size": len(data)}


def load(run: Run, named: dict[str, Any]) -> list[Picture]:
    """Read the pictures of a published snapshot."""
    names = {on_disk: name for name, on_disk in DISK_NAMES.items()}
    kept = json.loads(run.dest.read(named["name"]))
    return [Picture(**{names.get(name, name): value for name, value in one.items()}) for one in kept]
