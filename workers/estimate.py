"""Say what a scoring would take, before it is started: a listing, and up to 50 images scored in this process.

Nothing is written, and no cluster is started. Times are of this machine; an image's cost varies with its
size and compression, so the sample is drawn from the whole listing.
"""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from pathlib import PurePosixPath
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from covseg.dicom import check_installed
from covseg.errors import UsageError
from covseg.model_folder.backends import open_backend
from covseg.outcome import PreparedImage, Refused, Result
from covseg.pipeline import Pipeline, resolve
from covseg.records import Entry
from covseg.registry import open_model
from covseg.settings.score import ScoreSettings
from covseg.stages.encode import mask_png, probability_png
from covseg.stages.segment import Arrays, Backend
from covseg.storage import Store, entries, matches_globs, open_source

SAMPLE = 50
ROW_BYTES = 150  # of a row in Parquet and CSV together, compressed
LISTED = 1000  # keys a request
PUT_DOLLARS, GET_DOLLARS = 5e-6, 4e-7  # a request of S3 standard, us-east-1, 2026; a listing costs as a PUT


class Estimate(BaseModel, frozen=True):
    """What ``covseg score --dry-run`` prints.

    Images, bytes and counts by suffix are of the listing; counts by format and by reason of the sample. Bytes of the
    output (rows and pictures) and seconds are those expected; the model's seconds on the device that it ran on here.
    Objects are those that a bucket would hold afterwards; puts count listings too. Dollars are of cores by the hour and
    of requests, without storage, traffic and GPUs.
    """

    dry_run: Literal[True] = True
    images: int
    bytes: int
    suffixes: dict[str, int]
    sampled: int
    kinds: dict[str, int]
    refusals: dict[str, int]
    output_bytes: int
    decode_cpu_s: float
    gpu_s: float | None = None
    model_cpu_s: float | None = None
    backend: str
    objects: int
    puts: int
    gets: int
    cpu_hours: float
    dollars_cpu: float | None = None
    dollars_requests: float


def estimate(settings: ScoreSettings, price_hour: float | None = None, as_if: int | None = None) -> Estimate:
    """Score a sample and scale what it took to the whole listing; `UsageError` when nothing matches.

    Parameters
    ----------
    price_hour : float or None
        Dollars of one core for an hour.
    as_if : int or None
        Say it for so many images like those of the sample, instead of the listing's count.
    """
    dicom = settings.dicom_settings()
    if dicom.kinds:
        check_installed()
    source = open_source(settings.source)
    source.check()
    counts, suffixes, sample = _survey(settings, source)
    if not sample:
        raise UsageError(f"nothing to score under {settings.source}: no key matches --include {settings.include!r}")
    folder = open_model(settings.model)
    backend = open_backend(folder, settings.backend, settings.precision)
    pipeline = Pipeline(
        folder.config, resolve(folder, backend, settings.batch, settings.input_filter), key=b"", dicom=dicom
    )
    start = time.process_time()
    opened = [pipeline.open_image(source, entry) for entry in sample]
    opening_s = time.process_time() - start
    prepared = [image for image in opened if isinstance(image, PreparedImage)]
    results, model_s, finish_s = _score(pipeline, backend, prepared)
    refused = [result for result in [*opened, *results] if isinstance(result, Refused)]
    images = as_if or counts["images"]
    scale = images / len(sample)
    written = scale * sum(_output_bytes(result, settings) for result in results) + images * ROW_BYTES
    files = sum(0 if isinstance(result, Refused) else len(result.objects) for result in results)
    objects, puts, gets = _requests(settings, images, round(scale * files))
    cpu_hours = scale * (opening_s + finish_s + (0 if "cuda" in backend.name else model_s)) / 3600
    return Estimate(
        images=images,
        bytes=round(counts["bytes"] * images / counts["images"]),
        suffixes=suffixes,
        sampled=len(sample),
        kinds=Counter(image.radiograph.kind for image in prepared),
        refusals=Counter(str(result.row.reason) for result in refused),
        output_bytes=round(written),
        decode_cpu_s=round(scale * (opening_s + finish_s), 1),
        backend=backend.name,
        objects=objects,
        puts=puts,
        gets=gets,
        cpu_hours=round(cpu_hours, 3),
        dollars_cpu=None if price_hour is None else round(cpu_hours * price_hour, 4),
        dollars_requests=round(puts * PUT_DOLLARS + gets * GET_DOLLARS, 4),
        **{"gpu_s" if "cuda" in backend.name else "model_cpu_s": round(scale * model_s, 1)},
    )


def _requests(settings: ScoreSettings, images: int, dicom_files: int) -> tuple[int, int, int]:
    """Return the objects of a finished run, and the puts (with listings) and gets of scoring and publishing it."""
    shards = -(-images // settings.shard_size)
    each = (settings.masks == "png") + settings.probability * (settings.masks != "packed")
    written = images * each + dicom_files + shards * (2 + (settings.masks == "packed"))  # a table and a commit a shard
    listings = -(-images // LISTED) + 2 * -(-shards // LISTED)
    return written, written + listings, images + 2 * shards


def _survey(settings: ScoreSettings, source: Store) -> tuple[Counter[str], Counter[str], list[Entry]]:
    """Walk the listing once; return totals, counts by suffix and an even sample."""
    counts, suffixes = Counter[str](), Counter[str]()
    sample: list[Entry] = []
    draw = random.Random(0)  # noqa: S311 - a sample, not a secret
    chosen = (entry for entry in entries(source) if matches_globs(entry, settings.include, settings.exclude))
    for entry in itertools.islice(chosen, settings.limit):
        counts.update(images=1, bytes=entry.size)
        suffixes[PurePosixPath(entry.key).suffix.lower() or "none"] += 1
        place = len(sample) if len(sample) < SAMPLE else draw.randrange(counts["images"])
        if place < SAMPLE:
            sample[place : place + 1] = [entry]
    return counts, suffixes, sample


def _score(pipeline: Pipeline, backend: Backend, images: list[PreparedImage]) -> tuple[list[Result], float, float]:
    """Return the results, the seconds in the model and the CPU-seconds behind it."""
    timed = _Timed(backend)
    start = time.process_time()
    size = pipeline.config.batch
    batches = [images[first : first + size] for first in range(0, len(images), size)]
    results = [result for batch in batches for result in pipeline.score(timed, batch)]
    spent = time.process_time() - start
    return results, timed.seconds, max(0.0, spent - timed.seconds)


class _Timed:
    """A backend that counts its seconds; the first batch, which warms it up, is run twice."""

    def __init__(self, backend: Backend) -> None:
        self.name, self.seconds, self._backend = backend.name, 0.0, backend
        self._clock = time.perf_counter if "cuda" in backend.name else time.process_time

    def run(self, images: NDArray[np.float32]) -> Arrays:
        if not self.seconds:
            self._backend.run(images)
        start = self._clock()
        answer = self._backend.run(images)
        self.seconds += self._clock() - start
        return answer


def _output_bytes(result: Result, settings: ScoreSettings) -> int:
    if isinstance(result, Refused):
        return 0
    size = 0 if settings.masks == "none" else len(mask_png(result.masks))
    if settings.probability:
        size += len(probability_png(result.prediction, *result.image.radiograph.shape))
    return size + sum(map(len, result.objects.values()))
