"""Walk a labelled set under conditions: each image as it is, shifted, painted for the control, or its real-size twin.

In: a pipeline, a set and the conditions. Out: a table, one row an (image, condition), numbers only. An image is read
once and its conditions are the batches that meet in the model; answers are kept in the cache folder by model
configuration, listing, time of writing and condition, so that another run walks only what is new.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from functools import partial

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from covseg.data import BadMask, LabelledImage, LabelledSet, read_truth
from covseg.errors import RadiographRefused
from covseg.evaluation.control import CONTROLS
from covseg.metrics.image_results import score_counts, true_fraction
from covseg.outcome import Refused, Result, Scored
from covseg.pipeline import Pipeline, iter_batches
from covseg.records import Entry, Mask, Radiograph, Truth
from covseg.settings.environment import cache_folder
from covseg.stages.read import read
from covseg.stages.segment import Backend
from covseg.stages.severity import NOTES
from covseg.storage import LocalStore
from covseg.synthetic.shifts import Pixels, Shift, shifted
from covseg.table import to_parquet

PLAIN, TWIN = "as it is", "real size"
_CACHED_AS = 2  # raised whenever a condition of the same name makes other pixels or another row
Make = Callable[[LabelledImage, Pixels, Truth], Pixels | None]


@dataclass(frozen=True)
class Condition:
    """What is done to an image before the pipeline sees it.

    Parameters
    ----------
    name : str
        Of the row.
    make : callable
        (labelled image, grey values ``(H, W)``, truth) to grey values of any size; None where it does not apply.
    mask : callable or None
        Moves a mask as the frame moved.
    source : str
        Digest of what its pixels come from beside the image, part of the name in the cache; empty where nothing does.
    filtered : bool
        False lets the image past the input filter: a control asks what the network reads, not whether it is asked.
    """

    name: str
    make: Make
    mask: Callable[[Mask], Mask] | None = None
    filtered: bool = True
    source: str = ""


@dataclass(frozen=True)
class Answer:
    """The numbers of one image under one condition; masks are compared at the (moved) truth's size.

    Parameters
    ----------
    reason : str
        Why it was refused; empty when it was scored. What was refused has no mask: all of its truth is missed.
    flagged : bool
        A QC flag that asks for a look was raised.
    tp, fp, fn, lung_tp, lung_fp, lung_fn : int
        Pixels; the lung's are -1 where the set has no lung masks.
    presence, fraction, fraction_truth, doubt : float
        NaN where there is none.
    agreement : float
        Dice with the mask of the image as it is, moved alike; 1 where both are empty, NaN where either was refused.
    """

    key: str
    stratum: str
    condition: str
    reason: str
    flagged: bool
    tp: int
    fp: int
    fn: int
    lung_tp: int
    lung_fp: int
    lung_fn: int
    presence: float
    fraction: float
    fraction_truth: float
    doubt: float
    agreement: float


_ARROW = {"str": pa.string(), "bool": pa.bool_(), "int": pa.int32(), "float": pa.float32()}
SCHEMA = pa.schema([(field.name, _ARROW[str(field.type)]) for field in fields(Answer)])


def plain() -> Condition:
    """Return the image as it is."""
    return Condition(PLAIN, lambda _image, pixels, _truth: pixels)


def of_shift(name: str, shift: Shift) -> Condition:
    """Return a shift as a condition."""
    return Condition(name, lambda image, pixels, _truth: shifted(name, shift, pixels, image.key), shift.mask)


def controls() -> list[Condition]:
    """Return the controls; they want the true lung."""

    def make(
        paint: Callable[[Pixels, Mask], Pixels], _image: LabelledImage, pixels: Pixels, truth: Truth
    ) -> Pixels | None:
        return paint(pixels, truth.lung) if truth.lung is not None and truth.lung.any() else None

    return [Condition(name, partial(make, paint), filtered=False) for name, (_, paint) in CONTROLS.items()]


def walk(
    pipeline: Pipeline,
    backend: Backend,
    dataset: LabelledSet,
    conditions: list[Condition],
    streams: int | None = None,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> pa.Table:
    """Score every image under every condition, from the cache where it was done before.

    Returns
    -------
    pyarrow.Table
        `SCHEMA`, by condition and then in the set's order. An image whose truth cannot be believed, or that cannot
        be read at all, has no row.
    """
    folder = LocalStore(cache_folder() / "conditions")
    places = {one.name: f"{_digest(pipeline, dataset, one)}.parquet" for one in conditions}
    missing = [one for one in conditions if not (folder.root / places[one.name]).is_file()]
    if missing:
        answers = list(_walk_images(pipeline, backend, dataset, missing, streams, progress))
        for one in missing:
            rows = [asdict(answer) for answer in answers if answer.condition == one.name]
            folder.write(places[one.name], to_parquet(pa.Table.from_pylist(rows, schema=SCHEMA)))
    return pa.concat_tables([pq.read_table(folder.root / place, schema=SCHEMA) for place in places.values()])


def _digest(pipeline: Pipeline, dataset: LabelledSet, condition: Condition) -> str:
    named = (_CACHED_AS, pipeline.config.digest, dataset.root, dataset.digest, condition.name, condition.source)
    files = (key for image in dataset.images for key in (image.key, image.infection, image.lung) if key)
    written = (str((dataset.root / key).stat().st_mtime_ns) for key in files)
    stated = "|".join((*map(str, named), *written))
    return hashlib.sha256(stated.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _walk_images(
    pipeline: Pipeline,
    backend: Backend,
    dataset: LabelledSet,
    conditions: list[Condition],
    streams: int | None,
    progress: Callable[[int, int], None],
) -> Iterator[Answer]:
    """Yield the answers image by image, from several threads."""
    unfiltered = pipeline.without_filter()
    one = partial(_answers, pipeline, unfiltered, backend, dataset, conditions)
    with ThreadPoolExecutor(streams or len(os.sched_getaffinity(0)), thread_name_prefix="stream") as pool:
        for done, answers in enumerate(pool.map(one, dataset.images), 1):
            yield from answers
            progress(done, len(dataset.images))


def _answers(
    pipeline: Pipeline,
    unfiltered: Pipeline,
    backend: Backend,
    dataset: LabelledSet,
    conditions: list[Condition],
    image: LabelledImage,
) -> list[Answer]:
    if (found := read_with_truth(dataset, image)) is None:
        return []
    entry, radiograph, truth = found
    source = radiograph.pixels
    made = [
        (one, one.make(image, source, truth)) for one in (plain(), *(one for one in conditions if one.name != PLAIN))
    ]
    present = [(one, pixels) for one, pixels in made if pixels is not None]
    answers: list[Answer] = []
    as_it_is: Result | None = None
    for batch in iter_batches(present, pipeline.config.batch):
        for filtered in (True, False):
            part = [(one, pixels) for one, pixels in batch if one.filtered == filtered]
            line = pipeline if filtered else unfiltered
            results = line.score(
                backend, [line.prepare(entry, replace(radiograph, samples=pixels)) for _, pixels in part]
            )
            for (one, _), result in zip(part, results, strict=True):
                as_it_is = as_it_is or result
                answers.append(_answer(image, one, truth, result, as_it_is))
    wanted = {one.name for one in conditions}
    return [answer for answer in answers if answer.condition in wanted]


def _answer(image: LabelledImage, condition: Condition, truth: Truth, result: Result, as_it_is: Result) -> Answer:
    move = condition.mask or (lambda mask: mask)
    infection, lung = move(truth.infection), None if truth.lung is None else move(truth.lung)
    empty = np.zeros_like(infection)
    guess = like(result.masks.infection, infection) if isinstance(result, Scored) else empty
    guess_lung = like(result.masks.lung, infection) if isinstance(result, Scored) else empty
    lungs = (-1, -1, -1) if lung is None else score_counts(guess_lung, lung)
    row = result.row
    agreement = float("nan")
    if isinstance(result, Scored) and isinstance(as_it_is, Scored):
        agreement = mask_dice(guess, move(like(as_it_is.masks.infection, truth.infection)))
    return Answer(
        image.key, image.stratum, condition.name, str(row.reason or "") if isinstance(result, Refused) else "",
        bool(set(row.qc_flags) - set(NOTES)), *score_counts(guess, infection), *lungs,
        _number(row.infection_probability), _number(row.infected_fraction), true_fraction(infection, lung),
        _number(row.doubt), agreement,
    )  # fmt: skip


def read_with_truth(dataset: LabelledSet, image: LabelledImage) -> tuple[Entry, Radiograph, Truth] | None:
    """Read an image and its truth; None where one of them cannot be read or believed."""
    data = (dataset.root / image.key).read_bytes()
    try:
        radiograph = read(data)
        truth = read_truth(dataset, image, radiograph.shape)
    except (RadiographRefused, BadMask):
        return None
    return Entry(image.key, len(data), ""), radiograph, truth


def mask_dice(mask: Mask, other: Mask) -> float:
    """Return Dice of two masks ``(H, W)``; 1 where both are empty."""
    both, more, less = score_counts(mask, other)
    return 2 * both / (2 * both + more + less) if both + more + less else 1.0


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def like(mask: Mask, wanted: Mask) -> Mask:
    """Bring a mask to the size of another, nearest pixel."""
    if mask.shape == wanted.shape:
        return mask
    height, width = wanted.shape
    return np.asarray(cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT), np.uint8)
