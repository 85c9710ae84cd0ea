"""Walk a labelled set through the pipeline and judge every image.

The prediction is the pipeline's own (`covseg.pipeline.stream`), not a second pipeline; what is judged
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
from covseg.pipeline import Pipeline, PreparedImage, Refused, Result, stream
from covseg.records import Entry, Prediction
from covseg.stages.preprocess import resize
from covseg.stages.segment import Backend
from covseg.storage import LocalStore

Lung = Literal["predicted", "truth"]


@dataclass
class SetResults:
    """A set after judging.

    Parameters
    ----------
    results : ImageResults
        In the set's order.
    excluded : list of Excluded
        Images whose truth cannot be believed; counted, never silently dropped.
    groups : Examples
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

    images: LabelledSet
    by_key: dict[str, LabelledImage]

    def constrain(self, image: PreparedImage, prediction: Prediction) -> Prediction:
        """Swap the lung; the input filter has seen the model's own."""
        labelled = self.by_key[image.entry.key]
        if labelled.lung is None:
            raise SetRefused(f"--lung truth wants lung masks, and {image.entry.key} has none")
        try:
            lung = read_mask(self.images.root / labelled.lung, self.images.binary_values) * 255
        except BadMask:
            return prediction  # judging reads it too, and leaves the image out by name
        grid = (resize(lung, self.model.size, self.model.size) > 127).astype(np.float32)
        return replace(prediction, lung=grid)


def with_lung(pipeline: Pipeline, images: LabelledSet, lung: Lung) -> Pipeline:
    """Return the pipeline that uses the predicted or the true lung."""
    if lung == "predicted":
        return pipeline
    other = TruthLungPipeline(pipeline.model, pipeline.config, pipeline.bucket, pipeline.key)
    other.images, other.by_key = images, {image.key: image for image in images.images}
    return other


def evaluate_set(
    pipeline: Pipeline,
    backend: Backend,
    images: LabelledSet,
    streams: int = 1,
    progress: Callable[[int], None] = lambda _: None,
) -> SetResults:
    """Predict and judge every image of a set; memory grows by numbers only.

    Parameters
    ----------
    pipeline : Pipeline
        From `with_lung`.
    backend : Backend
        What runs the model.
    images : LabelledSet
    streams : int
        Threads that walk batches side by side.
    progress : callable
        Called with the number of images done.
    """
    evaluated = SetResults(ImageResults(), list(images.excluded), Examples())
    labelled = {image.key: image for image in images.images}
    start, lock = time.perf_counter(), Lock()

    def finish(result: Result) -> ImageResult | Excluded:
        with lock:  # the groups and the clock are shared by all streams; an image takes milliseconds here
            arrived = time.perf_counter()
            found = _evaluate_image(evaluated.examples, images, labelled[result.row.key], result)
            evaluated.metric_seconds += time.perf_counter() - arrived
            return found

    walk = stream(pipeline, backend, LocalStore(images.root), entries_of(images), streams, finish)
    for done, found in enumerate(walk, 1):
        evaluated.results.add(found) if isinstance(found, ImageResult) else evaluated.excluded.append(found)
        progress(done)
    evaluated.seconds = time.perf_counter() - start
    return evaluated


def entries_of(images: LabelledSet) -> Iterator[Entry]:
    """List the images as the pipeline wants them."""
    for image in images.images:
        state = (images.root / image.key).stat()
        yield Entry(image.key, state.st_size, f"{state.st_size}-{state.st_mtime_ns}")


def _evaluate_image(
    examples: Examples, images: LabelledSet, image: LabelledImage, scored: Result
) -> ImageResult | Excluded:
    row = scored.row
    try:
        if isinstance(scored, Refused):
            return refused(image.key, image.stratum, str(row.reason), read_truth(images, image))
        truth = read_truth(images, image, scored.masks.infection.shape)
    except BadMask as bad:
        return Excluded(image.key, bad.reason, bad.detail)
    result = score_masks(
        image.key, image.stratum, scored.masks, truth, scored.prediction.presence, row.infected_fraction
    )
    examples.offer(result, scored.image.radiograph.pixels, scored.masks, truth)
    return result
