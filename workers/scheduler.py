"""Dispatch shards to the pool, one to a decode worker, and retry what a lost worker had.

A worker is lost by an image only when its process died on a machine that lives on: what a preempted or dead machine, or
a model worker took down is retried, for as long as shards finish. Before a shard costs the last worker that it may, its
images are tried one after the other on whatever workers are idle; one that takes its worker down, and then another one
when tried alone, is poison: refused unread.
"""

from __future__ import annotations

import math
import time
import uuid
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace

from ray.exceptions import ActorDiedError, RayActorError, RayError, RayTaskError

from covseg.archive import Outcome, Shard
from covseg.errors import EnvironmentFailed, ImagesLost, ModelWorkerLost, StorageUnreachable
from covseg.pipeline import iter_batches
from covseg.records import Entry
from workers.cluster import Handle, Node, nodes
from workers.pool import Pool, Slot
from workers.summary import Progress
from workers.telemetry import Telemetry

LOSSES = 3  # workers that one shard may cost, or times that the store may fail it, before the run stops
DEATHS = 2  # of workers that tried an image, before it is poison

Tell = Callable[[Progress], None]


@dataclass(frozen=True)
class Trial:
    """Images of a shard that has cost workers, tried one after the other by one worker that keeps nothing."""

    shard: Shard
    images: tuple[Entry, ...]


@dataclass(frozen=True)
class InFlight:
    """A shard or a trial under way: its slots, and the workers that were in them when it was dispatched."""

    shard: Shard
    decoder: Slot
    model: Slot
    decode_worker: Handle
    model_worker: Handle
    node: Node
    trial: Trial | None = None
    answers: tuple[Future[Outcome], ...] = ()  # of the trial, an image each, without an outcome
    began_s: float = field(default_factory=time.time)


class Scheduler:
    """Keeps each decode worker of a started pool busy with one shard at a time.

    `progress` is kept up to date, and `tell` called with it after every shard. After `timeout_s` seconds without a
    finished shard the run ends. `telemetry` is what an operator sees of the run.
    """

    def __init__(
        self, pool: Pool, progress: Progress, tell: Tell, timeout_s: float, telemetry: Telemetry | None = None
    ) -> None:
        self._pool, self._progress, self._tell, self._timeout_s = pool, progress, tell, timeout_s
        self._telemetry = telemetry or Telemetry()
        self._idle = deque(pool.decoders)  # one that was replaced is still starting: it comes last
        self._retries: deque[Shard] = deque()
        self._trials: deque[Trial] = deque()
        self._open_trials: Counter[str] = Counter()  # by shard
        self._deaths: defaultdict[str, list[Node]] = defaultdict(list)  # by shard, or by shard and key: where
        self._outages: Counter[str] = Counter()  # by shard: times that the store did not answer
        self._poison: defaultdict[str, set[str]] = defaultdict(set)  # by shard: keys
        self._in_flight: dict[Future[Outcome], InFlight] = {}

    def dispatch(self, shards: Iterator[Shard], max_missing: float = 1.0) -> None:
        """Have every shard scored and committed, but for those that lost a larger share of images than `max_missing`.

        Raises
        ------
        EnvironmentFailed
            When the store or a worker gives way again and again, or nothing finished for ``timeout_s``.
        """
        self._max_missing = max_missing
        advanced = time.monotonic()
        while True:
            while self._idle and self._start_next(shards):
                pass
            self._telemetry.queue(len(self._in_flight), len(self._retries) + len(self._trials))
            if not self._in_flight:
                return
            left = self._timeout_s - (time.monotonic() - advanced)
            done, _ = wait(self._in_flight, max(0.0, left), FIRST_COMPLETED)
            finished = [self._finish(future) for future in done]
            if any(finished):
                advanced = time.monotonic()
            elif time.monotonic() - advanced >= self._timeout_s:
                raise EnvironmentFailed(
                    f"no shard finished for {self._timeout_s:.0f} s, {len(self._in_flight)} under way, "
                    f"{self._progress.retried} retried: look at the machines, the workers and the store, then run the "
                    "same command again"
                )

    def _start_next(self, shards: Iterator[Shard]) -> bool:
        """Give an idle worker the next thing to do; tell whether there was one."""
        if self._trials:
            self._try(self._trials.popleft())
        elif shard := self._retries.popleft() if self._retries else next(shards, None):
            self._launch(shard)
        else:
            return False
        return True

    def _take_slots(self, shard: Shard) -> InFlight:
        decoder = self._idle.popleft()
        model = self._pool.model_for(decoder)
        return InFlight(shard, decoder, model, decoder.worker, model.worker, decoder.node)

    def _launch(self, shard: Shard) -> None:
        task = self._take_slots(shard)
        poison = frozenset(self._poison[shard.id])
        answer = task.decode_worker.score.remote(shard, task.model_worker, uuid.uuid4().hex, poison, self._max_missing)
        # A future, not ray.wait: Ray's calls turn the exception of a signal handler into a SystemError.
        self._in_flight[answer.future()] = task

    def _try(self, trial: Trial) -> None:
        task = self._take_slots(trial.shard)
        calls = (task.decode_worker.try_image.remote(image, task.model_worker) for image in trial.images)
        answers = tuple(call.future() for call in calls)
        self._in_flight[answers[-1]] = replace(task, trial=trial, answers=answers)

    def _finish(self, future: Future[Outcome]) -> bool:
        """Count one shard or trial, or retry it; tell whether it finished, or came a step nearer to it."""
        task = self._in_flight.pop(future)
        try:
            return self._finish_trial(task, task.trial) if task.trial else self._finish_shard(task, future)
        finally:
            if task.decoder in self._pool.decoders:
                self._idle.append(task.decoder)

    def _finish_shard(self, task: InFlight, future: Future[Outcome]) -> bool:
        try:
            outcome = future.result()
        except RayTaskError as error:
            if isinstance(error.cause, ImagesLost):
                self._progress.lost.update(error.cause.folders)
                self._telemetry.lost_images(task.shard.id, sum(error.cause.folders.values()), task.began_s)
                return True
            self._excuse(task, error)
            self._count_retry(task, error.cause)
        except RayError as error:
            self._count_retry(task, error)
            if self._replace_decoder(task, error) and self._count_death(task, task.shard.id) >= LOSSES - 1:
                self._isolate(task.shard, error)
                return False
        else:
            self._progress.shards += 1
            self._progress.statuses.update(outcome.statuses)
            self._progress.reasons.update(outcome.reasons)
            self._telemetry.finished(outcome, task.began_s)
            self._tell(self._progress)
            return True
        self._retries.append(task.shard)
        return False

    def _count_retry(self, task: InFlight, why: BaseException) -> None:
        self._progress.retried += 1
        self._telemetry.retried(task.shard.id, why, task.began_s)

    def _excuse(self, task: InFlight, error: RayTaskError) -> None:
        """Return when what a worker raised is no fault of the shard, and it may be retried; else raise its cause."""
        cause = error.cause
        if isinstance(cause, ModelWorkerLost):
            self._pool.replace(task.model, task.model_worker)
            return
        self._outages[task.shard.id] += 1
        if not isinstance(cause, StorageUnreachable) or self._outages[task.shard.id] >= LOSSES:
            raise cause from error

    def _replace_decoder(self, task: InFlight, error: BaseException) -> bool:
        """Replace a lost decode worker; tell whether its process died, and did not only go with its machine."""
        if isinstance(error, RayActorError) and error.actor_init_failed:
            raise EnvironmentFailed(f"a worker cannot start: {error}") from error
        self._pool.replace(task.decoder, task.decode_worker)
        return isinstance(error, ActorDiedError) and not error.preempted

    def _count_death(self, task: InFlight, suspect: str) -> int:
        """Count a death against a shard or an image; return how many stand: their machines live on."""
        self._deaths[suspect].append(task.node)
        live = nodes()
        return sum(node in live for node in self._deaths[suspect])

    def _isolate(self, shard: Shard, cause: RayError) -> None:
        """Have the images of a shard tried; a shard that was, and costs another worker, ends the run."""
        if shard.id in self._open_trials:
            raise EnvironmentFailed(
                f"shard {shard.id} lost its worker {LOSSES} times ({type(cause).__name__}); the other shards are kept: "
                f"its {len(shard.entries)} images take no worker down when tried alone: the machine may lack memory"
            ) from cause
        self._telemetry.isolating(shard.id, len(shard.entries))
        size = math.ceil(len(shard.entries) / len(self._pool.decoders))
        self._add_trials(shard, [tuple(images) for images in iter_batches(shard.entries, size)])

    def _add_trials(self, shard: Shard, trials: list[tuple[Entry, ...]]) -> None:
        self._open_trials[shard.id] += len(trials)
        self._trials.extend(Trial(shard, images) for images in trials)

    def _finish_trial(self, task: InFlight, trial: Trial) -> bool:
        """Cut a trial that took its worker down where it did: those before are cleared, that one is tried alone."""
        wait(task.answers)
        answers = zip(trial.images, task.answers, strict=True)
        failed = [(image, error) for image, answer in answers if (error := answer.exception())]
        left = [image for image, _ in failed]
        nearer = len(left) < len(trial.images)
        raised = [error for _, error in failed if isinstance(error, RayTaskError)]
        if raised:
            self._excuse(task, raised[0])
        lost = [(image, error) for image, error in failed if not isinstance(error, RayTaskError)]
        if lost and self._replace_decoder(task, lost[0][1]):
            suspect, nearer = lost[0][0], True
            left.remove(suspect)
            if self._count_death(task, f"{trial.shard.id}/{suspect.key}") >= DEATHS:
                self._poison[trial.shard.id].add(suspect.key)
            else:
                self._add_trials(trial.shard, [(suspect,)])
        if left:
            self._add_trials(trial.shard, [tuple(left)])
        self._open_trials[trial.shard.id] -= 1
        if not self._open_trials[trial.shard.id]:
            self._retries.append(trial.shard)
        return nearer
