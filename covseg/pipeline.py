"""The pipeline: the stages in a row around one model, for one process and for the scoring worker alike.

In: entries of a store. Out: `Scored` or `Refused` for each, in order. The stages stand in a row here and nowhere else.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from covseg.dicom import make_objects, read_metadata, read_source
from covseg.errors import CovsegError, RadiographRefused, Reason, Stage, Status, unforeseen
from covseg.model_folder.folder import ModelFolder
from covseg.outcome import PreparedImage, Refused, Result, Scored
from covseg.records import Entry, Masks, Prediction, Radiograph, Row, input_id
from covseg.settings.dicom import NO_DICOM, DicomSettings
from covseg.settings.environment import code_version, project_key
from covseg.settings.model import InputFilterLimits, ModelConfig
from covseg.settings.score import FilterMode, ScoringConfig
from covseg.stages.doubt import judge
from covseg.stages.image_quality import measure_quality, quality_flags
from covseg.stages.input_filter import input_filter
from covseg.stages.postprocess import postprocess, restore, temper
from covseg.stages.preprocess import SOURCE_SIDE, prepare, to_source_side
from covseg.stages.read import read
from covseg.stages.segment import Backend, segment
from covseg.stages.severity import fraction_interval, measure, qc_flags
from covseg.storage import Store

if TYPE_CHECKING:
    pass

Finished = TypeVar("Finished")
Item = TypeVar("Item")


@contextlib.contextmanager
def _stage(stage: Stage) -> Iterator[None]:
    """Refuse an image on which a step fails as nobody foresaw, and name the stage that the step belongs to."""
    try:
        yield
    except (CovsegError, OSError):  # of the run or the machine, or a refusal already
        raise
    except Exception as error:
        raise unforeseen(error, stage) from error


class Pipeline:
    """The stages around one model; small, picklable, and without the network itself.

    Parameters
    ----------
    model : ModelConfig
        Thresholds and limits.
    config : ScoringConfig
        What stands in every row; from `resolve`.
    bucket : str
        Name of the archive, part of every input's identity.
    key : bytes or None
        The secret that names inputs; None takes the project's.
    dicom : DicomSettings
        Which DICOM objects are made of DICOM sources.
    """

    def __init__(
        self,
        model: ModelConfig,
        config: ScoringConfig,
        bucket: str = "local",
        key: bytes | None = None,
        dicom: DicomSettings = NO_DICOM,
    ) -> None:
        self.model = model
        self.config = config
        self.bucket = bucket
        self.key = project_key() if key is None else key
        self.dicom = dicom

    @property
    def filter_limits(self) -> InputFilterLimits | None:
        """What the input filter judges by; None where it is off, or the model has none."""
        return None if self.config.input_filter == "off" else self.model.input_filter

    def without_filter(self) -> Pipeline:
        """Return the same pipeline without the input filter: it refuses nothing that can be read."""
        config = self.config.model_copy(update={"input_filter": "off"})
        return type(self)(self.model, config, self.bucket, self.key, self.dicom)

    def open_image(self, store: Store, entry: Entry) -> PreparedImage | Refused:
        """Fetch, read and prepare one image."""
        try:
            data = store.fetch(entry)
        except RadiographRefused as refusal:
            return self.refuse(entry, refusal)
        try:
            radiograph = read(data)
            with _stage(Stage.PREPROCESS):
                prepared = self.prepare(entry, radiograph)
                source = read_source(data, self.key, self.dicom)
                return replace(prepared, source=source, metadata=read_metadata(data, self.key, self.dicom))
        except RadiographRefused as refusal:
            return self.refuse(entry, refusal, hashlib.sha256(data).hexdigest())

    def prepare(self, entry: Entry, radiograph: Radiograph) -> PreparedImage:
        """Bring an image to the side of the training images, and to the model's grid."""
        side = self.model.source_side
        small = to_source_side(radiograph.samples, SOURCE_SIDE)
        samples = small if side == SOURCE_SIDE else radiograph.samples
        grid = prepare(samples, self.model.size, self.model.normalisation, side)
        return PreparedImage(entry, radiograph, small, grid)

    def score(self, backend: Backend, images: list[PreparedImage]) -> list[Result]:
        """Run one batch through the model and on to its rows."""
        pixels = np.stack([image.model_pixels for image in images]) if images else np.empty((0, 0, 0), np.float32)
        return [self.finish(image, answer) for image, answer in zip(images, segment(backend, pixels), strict=True)]

    def finish(self, image: PreparedImage, prediction: Prediction) -> Result:
        """Take one prediction through the stages behind the model."""
        try:
            return self._finish(image, prediction)
        except RadiographRefused as refusal:
            refused = self.refuse(image.entry, refusal, image.radiograph.sha256)
            judged = refusal.stage is Stage.INPUT_FILTER and refusal.reason.status is Status.OUT_OF_SCOPE
            return replace(refused, image=image) if judged else refused

    def _finish(self, image: PreparedImage, prediction: Prediction) -> Scored:
        thresholds = self.model.thresholds
        with _stage(Stage.SEGMENT):
            if not all(np.isfinite(part).all() for part in (prediction.lung, prediction.infection)):
                raise RadiographRefused(Reason.NONFINITE_LOGITS, Stage.SEGMENT, "the model returned NaN or infinity")
        with _stage(Stage.INPUT_FILTER):
            mode = self.config.input_filter
            score, flags = input_filter(image.model_pixels, prediction, self.filter_limits, mode == "refuse")
        with _stage(Stage.POSTPROCESS):
            tempered = replace(prediction, presence=temper(prediction.presence, thresholds.presence_temperature))
            prediction = self.constrain(image, tempered)
            masks = restore(postprocess(prediction, thresholds), *image.radiograph.shape)
        with _stage(Stage.SEVERITY):
            row = self._scored_row(image, prediction, masks, score, flags)
        with _stage(Stage.ENCODE):
            objects = make_objects(self.dicom.kinds, image.source, row, image.radiograph.samples, masks)
        return Scored(row, image, masks, prediction, objects)

    def constrain(self, image: PreparedImage, prediction: Prediction) -> Prediction:  # noqa: ARG002 - for a subclass
        """Return the answer whose lung holds the infection: the model's own; an evaluation may put another there."""
        return prediction

    def refuse(self, entry: Entry, refusal: RadiographRefused, sha256: str | None = None) -> Refused:
        """Turn a refusal into a row without numbers; `sha256` is of the bytes, where there were any."""
        cause = refusal.__cause__ or refusal
        row = self._row(
            entry,
            sha256=sha256,
            status=refusal.reason.status,
            reason=refusal.reason,
            stage=refusal.stage,
            exception_class=type(cause).__name__,
            detail=refusal.detail,
        )
        return Refused(row)

    def _row(self, entry: Entry, **cells: Any) -> Row:
        """Return a row that says whose it is and what made it, with these cells."""
        return Row(
            input_id=input_id(self.key, self.bucket, entry.key, entry.etag),
            key=entry.key,
            etag=entry.etag,
            size=entry.size,
            model_id=self.config.model_id,
            weights_sha256=self.config.weights_sha256,
            config_sha256=self.config.digest,
            input_filter=self.config.input_filter,
            backend=self.config.backend,
            code_version=self.config.code_version,
            **cells,
        )

    def _scored_row(
        self,
        image: PreparedImage,
        prediction: Prediction,
        masks: Masks,
        score: float | None,
        filter_flags: tuple[str, ...],
    ) -> Row:
        extent, radiograph = measure(masks), image.radiograph
        flags = (*filter_flags, *quality_flags(measure_quality(radiograph.samples, image.small), self.model.flags))
        height, width = radiograph.shape
        interval = fraction_interval(extent.infected_fraction, prediction.presence, self.model.intervals)
        beyond = bool(score is not None and self.filter_limits and score > self.filter_limits.refuse_above)
        doubt = judge(prediction, extent.infected_fraction, interval, self.model.thresholds, beyond)
        return self._row(
            image.entry,
            sha256=radiograph.sha256,
            status=Status.SCORED,
            view_position=radiograph.view_position,
            height=height,
            width=width,
            pixel_spacing_mm=radiograph.pixel_spacing_mm,
            **extent.cells(radiograph.pixel_spacing_mm),
            infection_probability=prediction.presence,
            threshold=self.model.thresholds.infection,
            fraction_low=interval[0],
            fraction_high=interval[1],
            gate_score=score,
            doubt=doubt.score,
            doubt_reason=doubt.reason,
            qc_flags=qc_flags(extent, radiograph, self.model.flags, flags),
            **image.metadata,
        )


def resolve(folder: ModelFolder, backend: Backend, batch: int, input_filter: FilterMode = "refuse") -> ScoringConfig:
    """Fix everything that changes a number, before the first image."""
    model = folder.config
    return ScoringConfig(
        model_id=model.id,
        weights_sha256=model.weights_sha256,
        model_settings=model.model_dump(
            mode="json",
            include={"size", "normalisation", "source_side", "thresholds", "flags", "input_filter", "intervals"},
        ),
        backend=backend.name,
        batch=batch,
        input_filter=input_filter,
        code_version=code_version(),
    )


def stream(
    pipeline: Pipeline,
    backend: Backend,
    source: Store,
    chosen: Iterable[Entry],
    streams: int,
    finish: Callable[[Result], Finished],
) -> Iterator[Finished]:
    """Yield `finish(result)` per entry, in order, from `streams` threads that each walk whole batches.

    A batch is `config.batch` neighbours of the plan; which images meet in a forward pass does not
    depend on speed or on the number of streams. At most three batches a stream are in memory.
    """

    def walk(batch: list[Entry]) -> list[Finished]:
        return [finish(result) for result in score_batch(pipeline, backend, source, batch)]

    with ThreadPoolExecutor(streams, thread_name_prefix="stream") as pool:
        waiting: deque[Future[list[Finished]]] = deque()
        for batch in iter_batches(chosen, pipeline.config.batch):
            waiting.append(pool.submit(walk, batch))
            if len(waiting) == 3 * streams:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def iter_batches(chosen: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Cut the plan into neighbours of at most `size`."""
    remaining = iter(chosen)
    while batch := list(islice(remaining, size)):
        yield batch


def score_batch(pipeline: Pipeline, backend: Backend, source: Store, batch: list[Entry]) -> list[Result]:
    """Take one batch through all stages; refusals keep their place in the order."""
    opened = [pipeline.open_image(source, entry) for entry in batch]
    results = iter(pipeline.score(backend, [image for image in opened if isinstance(image, PreparedImage)]))
    return [image if isinstance(image, Refused) else next(results) for image in opened]
