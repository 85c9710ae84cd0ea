"""Walk a labelled set through the pipeline and compare every image with its truth.

The prediction is the pipeline's own (`covseg.pipeline.stream`), not a second pipeline; what is scored
is what `covseg predict` would have written, at source resolution.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from threading import Lock
from typing import Literal

import numpy as np

from covseg.data import BadMask, Excluded, LabelledImage, LabelledSet, read_truth
from covseg.data.masks import read_mask
from covseg.errors import SetRefused
from covseg.evaluation.examples import Examples
from covseg.metrics.image_results import ImageResult, ImageResults, refused, score_masks
from covseg.outcome import PreparedImage, Refused, Result
from covseg.pipeline import Pipeline, stream
from covseg.records import Entry, Prediction
from covseg.stages.preprocess import resize
from covseg.stages.segment import Backend
from covseg.storage import LocalStore

Lung = Literal["predicted", "truth"]


@dataclass
class SetResults:
    """A labelled set, evaluated.

    Parameters
    ----------
    results : ImageResults
        In the set's order.
    excluded : list of Excluded
        Images whose truth cannot be believed; counted, never silently dropped.
    examples : Examples
        The pictures that were kept.
    seconds, metric_seconds : float
        Wall clock of the whole walk, and of the metrics and pictures inside it.
    """

    results: ImageResults
    excluded: list[Excluded]
    examples: Examples
    seconds: float = 0.0
    metric_seconds: float = 0.0


class TruthLungPipeline(Pipeline):
    """The pipeline with the true lung in the predicted lung's place, for comparison with such papers."""

    dataset: LabelledSet
    by_key: dict[str, LabelledImage]

    def constrain(self, image: PreparedImage, prediction: Prediction) -> Prediction:
        """Swap the lung; the input filter has seen the model's own."""
        labelled = self.by_key[image.entry.key]
        if labelled.lung is None:
            raise SetRefused(f"--lung truth wants lung masks, and {image.entry.key} has none")
        try:
            lung = read_mask(self.dataset.root / labelled.lung, self.dataset.binary_values) * 255
        except BadMask:
            return prediction  # scoring reads it too, and leaves the image out by name
        grid = (resize(lung, self.model.size, self.model.size) > 127).astype(np.float32)
        return replace(prediction, lung=grid)


def with_lung(pipeline: Pipeline, dataset: LabelledSet, lung: Lung) -> Pipeline:
    """Return the pipeline that uses the predicted or the true lung."""
    if lung == "predicted":
        return pipeline
    other = TruthLungPipeline(pipeline.model, pipeline.config, pipeline.bucket, pipeline.key)
    other.dataset, other.by_key = dataset, {image.key: image for image in dataset.images}
    return other


def evaluate_set(
    pipeline: Pipeline,
    backend: Backend,
    dataset: LabelledSet,
    streams: int = 1,
    progress: Callable[[int], None] = lambda _: None,
) -> SetResults:
    """Predict and score every image of a set; memory grows by numbers only.

    Parameters
    ----------
    pipeline : Pipeline
        From `with_lung`.
    backend : Backend
        What runs the model.
    streams : int
        Threads that walk batches side by side.
    progress : callable
        Called with the number of images done.
    """
    evaluated = SetResults(ImageResults(), list(dataset.excluded), Examples())
    labelled = {image.key: image for image in dataset.images}
    start, lock = time.perf_counter(), Lock()

    def finish(scored: Result) -> ImageResult | Excluded:
        with lock:  # the examples and the clock are shared by all streams; an image takes milliseconds here
            arrived = time.perf_counter()
            result = _evaluate_image(evaluated.examples, dataset, labelled[scored.row.key], scored)
            evaluated.metric_seconds += time.perf_counter() - arrived
            return result

    walk = stream(pipeline, backend, LocalStore(dataset.root), entries_of(dataset), streams, finish)
    for done, result in enumerate(walk, 1):
        evaluated.results.add(result) if isinstance(result, ImageResult) else evaluated.excluded.append(result)
        progress(done)
    evaluated.seconds = time.perf_counter() - start
    return evaluated


def entries_of(dataset: LabelledSet) -> Iterator[Entry]:
    """List the images as the pipeline wants them."""
    for image in dataset.images:
        state = (dataset.root / image.key).stat()
        yield Entry(image.key, state.st_size, f"{state.st_size}-{state.st_mtime_ns}")


def _evaluate_image(
    examples: Examples, dataset: LabelledSet, image: LabelledImage, scored: Result
) -> ImageResult | Excluded:
    row = scored.row
    try:
        if isinstance(scored, Refused):
            return refused(image.key, image.stratum, str(row.reason), read_truth(dataset, image))
        truth = read_truth(dataset, image, scored.masks.infection.shape)
    except BadMask as bad:
        return Excluded(image.key, bad.reason, bad.detail)
    result = score_masks(
        image.key, image.stratum, scored.masks, truth, scored.prediction.presence, row.infected_fraction, row.doubt
    )
    examples.offer(result, scored.image.radiograph.pixels, scored.masks, truth)
    return result
