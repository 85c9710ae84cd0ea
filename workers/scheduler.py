"""Dispatch shards to the pool, one to a decode worker, and retry what a lost worker had.

The workers that a shard has cost are counted: before it costs the last one that it may, its images are tried one at
a time, and those that take their worker down twice are poison: refused unread.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, replace

from ray.exceptions import RayActorError, RayTaskError

from covseg.archive import Outcome, Shard
from covseg.errors import EnvironmentFailed, ImagesLost, ModelWorkerLost, StorageUnreachable
from covseg.records import Entry
from workers.cluster import Handle
from workers.pool import Pool, Slot
from workers.summary import Progress

LOSSES = 3  # workers that one shard may cost before the run stops

Tell = Callable[[Progress], None]


@dataclass(frozen=True)
class InFlight:
    """A shard under way: its slots, and the workers that were in them when it was dispatched."""

    shard: Shard
    decoder: Slot
    model: Slot
    decode_worker: Handle
    model_worker: Handle


class Scheduler:
    """Keeps each decode worker of a started pool busy with one shard at a time.

    `progress` is kept up to date, and `tell` called with it after every shard. After `timeout_s` seconds without a
    finished shard the run ends.
    """

    def __init__(self, pool: Pool, progress: Progress, tell: Tell, timeout_s: float) -> None:
        self._pool, self._progress, self._tell, self._timeout_s = pool, progress, tell, timeout_s
        self._idle = list(pool.decoders)
        self._retries: deque[Shard] = deque()
        self._losses: Counter[str] = Counter()
        self._poison: dict[str, frozenset[str]] = {}
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
            while self._idle and (shard := self._next(shards)):
                self._launch(shard)
            if not self._in_flight:
                return
            left = self._timeout_s - (time.monotonic() - advanced)
            done, _ = wait(self._in_flight, max(0.0, left), FIRST_COMPLETED)
            if not done:
                raise EnvironmentFailed(
                    f"no shard finished for {self._timeout_s:.0f} s, {len(self._in_flight)} under way: "
                    "look at the workers and the store, then run the same command again"
                )
            for future in done:
                if self._finish(future):
                    advanced = time.monotonic()

    def _next(self, shards: Iterator[Shard]) -> Shard | None:
        return self._retries.popleft() if self._retries else next(shards, None)

    def _launch(self, shard: Shard) -> None:
        decoder = self._idle.pop()
        model = self._pool.model_for(decoder)
        poison = self._poison.get(shard.id, frozenset())
        answer = decoder.worker.score.remote(shard, model.worker, uuid.uuid4().hex, poison, self._max_missing)
        # A future, not ray.wait: Ray's calls turn the exception of a signal handler into a SystemError.
        self._in_flight[answer.future()] = InFlight(shard, decoder, model, decoder.worker, model.worker)

    def _finish(self, future: Future[Outcome]) -> bool:
        """Count one shard, or retry it; tell whether it finished, or came a step nearer to it."""
        task = self._in_flight.pop(future)
        try:
            outcome = future.result()
        except RayActorError as error:
            task.decoder.replace(task.decode_worker)
            return self._retry(task, error)
        except RayTaskError as error:
            if isinstance(error.cause, ImagesLost):
                self._progress.lost.update(error.cause.folders)
                return True
            return self._retry(task, self._cause(task, error))
        finally:
            self._idle.append(task.decoder)
        self._progress.shards += 1
        self._progress.statuses.update(outcome.statuses)
        self._progress.reasons.update(outcome.reasons)
        self._tell(self._progress)
        return True

    def _cause(self, task: InFlight, error: RayTaskError) -> Exception:
        """Return the cause when the shard may be retried; raise it when the run has to stop."""
        cause = error.cause
        if isinstance(cause, ModelWorkerLost):
            task.model.replace(task.model_worker)
        elif not isinstance(cause, StorageUnreachable):
            raise cause from error
        return cause

    def _retry(self, task: InFlight, cause: Exception) -> bool:
        shard = task.shard
        self._losses[shard.id] += 1
        self._progress.retried += 1
        if self._losses[shard.id] >= LOSSES:
            if isinstance(cause, StorageUnreachable):
                raise cause
            raise EnvironmentFailed(
                f"shard {shard.id} lost its worker {LOSSES} times ({type(cause).__name__}); the other shards are kept: "
                f"one of its {len(shard.entries)} images may take a worker down, or the machine lacks memory"
            ) from cause
        self._retries.append(shard)
        if self._losses[shard.id] < LOSSES - 1 or not isinstance(cause, RayActorError):
            return False
        images = shard.entries
        self._poison[shard.id] = frozenset(
            image.key for image in images if self._is_poison(task, image) and self._is_poison(task, image)
        )
        return True

    def _is_poison(self, task: InFlight, image: Entry) -> bool:
        """Tell whether an image, tried alone, takes its worker down."""
        alone = replace(task, decode_worker=task.decoder.worker, model_worker=task.model.worker)
        try:
            alone.decode_worker.try_image.remote(image, alone.model_worker).future().result(self._timeout_s)
        except RayActorError:
            task.decoder.replace(alone.decode_worker)
            return True
        except RayTaskError as error:
            self._cause(alone, error)
        except TimeoutError:
            raise EnvironmentFailed(
                f"an image of shard {task.shard.id}, tried alone, gave no answer for {self._timeout_s:.0f} s: "
                "look at the workers and the store, then run the same command again"
            ) from None
        return False
