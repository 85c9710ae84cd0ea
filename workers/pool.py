"""Decode workers and model workers on Ray, apart, so that either scales alone.

A decode worker takes one shard: it fetches and decodes images, sends their model pixels to a model
worker, cleans and measures what comes back, and commits the shard. Source pixels never leave it; only
``(N, S, S)`` batches and probabilities travel. A model worker holds the network, loaded once. A worker
that dies is replaced; what it was doing is for the caller to retry.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import cast

import cv2
import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from covseg.archive import Outcome, Run, Shard, commit_shard, write_objects
from covseg.archive.records import NamedObject
from covseg.errors import EnvironmentFailed, ModelWorkerLost, RadiographRefused, Reason, Stage, Status, unforeseen
from covseg.model_folder.backends import open_backend
from covseg.outcome import Refused, Result
from covseg.pipeline import Pipeline, score_batch, stream
from covseg.records import Entry, Row
from covseg.registry import open_model
from covseg.settings.score import ScoreSettings
from covseg.stages.encode import mask_png, probability_png
from covseg.stages.segment import Arrays
from covseg.storage import Store
from workers.cluster import Handle, Node, nodes
from workers.losses import refuse_losses
from workers.telemetry import ClockedPipeline, StageClock

STREAMS = 2  # batches that a decode worker walks side by side: one decodes while one waits for the model
START_S = 600


class ModelWorker:
    """Holds one network and answers batches; `model`, `backend` and `precision` as in `ScoreSettings`."""

    def __init__(self, model: str, backend: str, precision: str) -> None:
        self._backend = open_backend(open_model(model), backend, precision)

    def name(self) -> str:
        """Return backend, version, device kind and precision."""
        return self._backend.name

    def run(self, images: NDArray[np.float32]) -> Arrays:
        """Return what `covseg.stages.segment.Backend.run` returns."""
        return self._backend.run(images)


class RemoteBackend:
    """A backend that asks a `ModelWorker`, whose backend's name it bears."""

    def __init__(self, name: str, worker: Handle, clock: StageClock | None = None) -> None:
        self.name = name
        self._worker = worker
        self._clock = clock

    def run(self, images: NDArray[np.float32]) -> Arrays:
        """Run one batch; `ModelWorkerLost` when the worker, its machine or its answer is gone."""
        try:
            with self._clock.stage("model") if self._clock else contextlib.nullcontext():
                answer = cast(Arrays, ray.get(self._worker.run.remote(images)))
        except RayTaskError:
            raise
        except RayError as error:
            if isinstance(error, RayActorError) and error.actor_init_failed:
                raise EnvironmentFailed(f"a model worker cannot start: {error}") from error
            raise ModelWorkerLost(str(error)) from error
        if self._clock:
            self._clock.through_model(len(images))
        return answer


@dataclass(frozen=True)
class Job:
    """What every decode worker needs to know; small and picklable. `run` is the destination."""

    run: Run
    source: Store
    pipeline: Pipeline
    probability: bool


class SkippingStore:
    """A source that refuses the images of the keys `poison`, which took their worker down, before they are read."""

    def __init__(self, store: Store, poison: frozenset[str]) -> None:
        self._store, self._poison = store, poison

    def fetch(self, entry: Entry) -> bytes:
        """Return the image's bytes; `RadiographRefused` with ``worker_killed`` for a poison image."""
        if entry.key in self._poison:
            raise RadiographRefused(Reason.WORKER_KILLED, Stage.WORKER, "took its worker down twice when tried alone")
        return self._store.fetch(entry)


class DecodeWorker:
    """Takes shards through the pipeline, one at a time."""

    def __init__(self, job: Job) -> None:
        cv2.setNumThreads(1)
        self._clock = StageClock()
        self._job = replace(job, pipeline=ClockedPipeline(job.pipeline, self._clock))

    def score(
        self,
        shard: Shard,
        model: Handle,
        attempt: str,
        poison: frozenset[str] = frozenset(),
        max_missing: float = 1.0,
    ) -> Outcome:
        """Score one shard and commit it; the images of the keys `poison` are refused unread.

        `ImagesLost`, and no commit, when a larger share than `max_missing` was missing or changed.
        """
        job = self._job
        self._clock.take()  # what a shard left that was given up
        backend = RemoteBackend(job.pipeline.config.backend, model, self._clock)
        source = cast(Store, SkippingStore(job.source, poison)) if poison else job.source
        finished = list(stream(job.pipeline, backend, source, shard.entries, STREAMS, self._keep))
        refuse_losses((row for row, *_ in finished), len(finished), max_missing)
        # In the shard's order, whichever stream was first: a packed file's bytes follow it.
        masks = {row.input_id: mask for row, mask, *_ in finished if mask}
        probability = {row.input_id: picture for row, _, picture, _ in finished if picture}
        sidecars = [file for *_, files in finished for file in files]
        with self._clock.stage("commit"):
            rows = [row for row, *_ in finished]
            outcome = commit_shard(job.run, shard, rows, masks, attempt, probability, sidecars)
        return replace(outcome, seconds=self._clock.take())

    def try_image(self, entry: Entry, model: Handle) -> None:
        """Score one image and keep nothing: whoever calls learns whether this process survives it."""
        job = self._job
        for result in score_batch(job.pipeline, RemoteBackend(job.pipeline.config.backend, model), job.source, [entry]):
            self._encode(result)

    def _keep(self, result: Result) -> tuple[Row, bytes | None, bytes | None, list[NamedObject]]:
        """Keep an image's row and its PNGs, write its DICOM objects, and let its pixels go."""
        with self._clock.stage("encode"):
            row, mask, picture = self._encode(result)
        objects = {} if isinstance(result, Refused) or row.status is not Status.SCORED else result.objects
        row, files = write_objects(self._job.run, row, objects)
        return row, mask, picture, files

    def _encode(self, result: Result) -> tuple[Row, bytes | None, bytes | None]:
        """Return an image's row and its PNGs."""
        job = self._job
        if isinstance(result, Refused):
            return result.row, None, None
        shape = result.image.radiograph.shape
        try:
            mask = None if job.run.masks == "none" else mask_png(result.masks)
            picture = probability_png(result.prediction, *shape) if job.probability else None
        except Exception as error:  # noqa: BLE001 - one image must not hold up an archive
            refusal = unforeseen(error, Stage.ENCODE)
            return job.pipeline.refuse(result.image.entry, refusal, result.row.sha256).row, None, None
        return result.row, mask, picture


@dataclass(eq=False)
class Slot:
    """A place for one worker; the worker in it may be replaced."""

    node: Node
    open: Callable[[Node], Handle]
    worker: Handle


@dataclass
class Pool:
    """The workers of one run, and the name of the backend that all model workers gave.

    On a GPU machine there is one model worker a GPU, or a share of one, and one decode worker a core; else one of each
    a core.
    """

    models: list[Slot]
    backend: str
    decoders: list[Slot] = field(default_factory=list)
    _turn: itertools.count[int] = field(default_factory=itertools.count)

    def start_decoders(self, job: Job, workers: int | None) -> None:
        """Start the decode workers, spread over the machines; they all get `job`."""
        shared = ray.put(job)

        def open_decoder(node: Node) -> Handle:
            return ray.remote(DecodeWorker).options(num_cpus=0, scheduling_strategy=_beside(node)).remote(shared)

        self.decoders = [Slot(node, open_decoder, open_decoder(node)) for node in _places(workers)]

    def model_for(self, decoder: Slot) -> Slot:
        """Return the model worker whose turn it is, on the decoder's machine if there is one."""
        near = [slot for slot in self.models if slot.node == decoder.node] or self.models
        return near[next(self._turn) % len(near)]

    def replace(self, slot: Slot, lost: Handle) -> None:
        """Put a new worker in the place of `lost`, unless that was done already.

        A slot goes with its machine, because the others have no cores or GPUs to spare; only the last one moves.
        """
        if slot.worker is not lost:
            return
        ray.kill(lost)
        live, alike = nodes(), self.models if slot in self.models else self.decoders
        if slot.node not in live:
            if len(alike) > 1:
                alike.remove(slot)
                slot.worker = None
                return
            slot.node = live[0]
        slot.worker = slot.open(slot.node)

    def close(self) -> None:
        """Stop every worker; what they were doing is abandoned."""
        for slot in self.models + self.decoders:
            ray.kill(slot.worker)


def open_pool(settings: ScoreSettings) -> Pool:
    """Start the model workers and learn what they run; decode workers come later.

    `EnvironmentFailed` when the machines would not compute the same numbers, or a model worker dies on start.
    """
    gpus = settings.backend in ("torch", "cuda") and any(node.gpus for node in nodes())
    if settings.backend == "cuda" and not gpus:
        raise EnvironmentFailed("no machine of this cluster has a GPU: start Ray with GPUs, or take --backend onnx")
    words = (settings.model, settings.backend, settings.precision)

    def open_model(node: Node) -> Handle:
        # Two calls at once on a GPU: one copies while the other computes. On a CPU one thread is one core.
        options = {"num_cpus": 0, "num_gpus": settings.gpu_share * gpus, "max_concurrency": 2 if gpus else 1}
        return ray.remote(ModelWorker).options(**options, scheduling_strategy=_beside(node)).remote(*words)

    many = int(1 / settings.gpu_share)
    places = [node for node in nodes() for _ in range(node.gpus * many)] if gpus else _places(settings.workers)
    slots = [Slot(node, open_model, open_model(node)) for node in places]
    return Pool(slots, _one_name(slots))


def _one_name(models: list[Slot]) -> str:
    answers: list[Future[str]] = [slot.worker.name.remote().future() for slot in models]
    try:
        names = {answer.result(START_S) for answer in answers}
    except TimeoutError:
        raise EnvironmentFailed(f"no model worker within {START_S} s: are all GPUs of the cluster taken?") from None
    except RayActorError as error:
        raise EnvironmentFailed(f"a model worker died on start: {error}") from error
    except RayTaskError as error:
        raise error.cause from None
    if len(names) > 1:
        raise EnvironmentFailed(
            f"the cluster's machines run different backends ({', '.join(sorted(names))}), and one table holds one: "
            "make them alike"
        )
    return names.pop()


def _places(workers: int | None) -> list[Node]:
    """Return one machine per core, or `workers` of them, machine by machine in turns."""
    rounds = itertools.zip_longest(*([node] * node.cpus for node in nodes()))
    places = [node for turn in rounds for node in turn if node]
    return list(itertools.islice(itertools.cycle(places), workers or len(places)))


def _beside(node: Node) -> NodeAffinitySchedulingStrategy:
    """Ask for a machine, and take another when it is gone."""
    return NodeAffinitySchedulingStrategy(node.id, soft=True)
