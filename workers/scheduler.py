"""Deal shards to the pool, one to a decode worker, and retry what a lost worker had.

What a shard cost is counted: before it costs the last worker that it may, its images are tried one at a time, and
those that take their worker down twice are refused.
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
from covseg.errors import EnvironmentFailed, ModelWorkerLost, StorageUnreachable
from covseg.records import Entry
from workers.pool import Handle, Pool, Slot
from workers.summary import Progress

LOSSES = 3  # workers that one shard may cost before the run stops

Tell = Callable[[Progress], None]


@dataclass(frozen=True)
class InFlight:
    """A shard under way, and who has it."""

    shard: Shard
    decoder: Slot
    model: Slot
    workers: tuple[Handle, Handle]


class Scheduler:
    """Keeps every decode worker busy with one shard.

    Parameters
    ----------
    pool : Pool
        Started.
    progress : Progress
        Kept up to date.
    tell : callable
        Called with it after every shard.
    timeout_s : float
        Seconds without a finished shard after which the run ends.
    """

    def __init__(self, pool: Pool, progress: Progress, tell: Tell, timeout_s: float) -> None:
        self._pool, self._progress, self._tell, self._timeout_s = pool, progress, tell, timeout_s
        self._idle = list(pool.decoders)
        self._again: deque[Shard] = deque()
        self._losses: Counter[str] = Counter()
        self._poison: dict[str, frozenset[str]] = {}
        self._in_flight: dict[Future[Outcome], InFlight] = {}

    def run(self, shards: Iterator[Shard]) -> None:
        """Walk all shards.

        Raises
        ------
        EnvironmentFailed
            When the store or a worker gives way again and again, or nothing finished for ``patience_s``.
        """
        heard = time.monotonic()
        while True:
            while self._idle and (shard := self._next(shards)):
                self._launch(shard)
            if not self._in_flight:
                return
            left = self._timeout_s - (time.monotonic() - heard)
            landed, _ = wait(self._in_flight, max(0.0, left), FIRST_COMPLETED)
            if not landed:
                raise EnvironmentFailed(
                    f"no shard finished for {self._timeout_s:.0f} s, {len(self._in_flight)} under way: "
                    "look at the workers and the store, then run the same command again"
                )
            for answer in landed:
                heard = time.monotonic() if self._finish(answer) else heard

    def _next(self, shards: Iterator[Shard]) -> Shard | None:
        return self._again.popleft() if self._again else next(shards, None)

    def _launch(self, shard: Shard) -> None:
        decoder = self._idle.pop()
        model = self._pool.model_for(decoder)
        task = InFlight(shard, decoder, model, (decoder.worker, model.worker))
        # A future, not ray.wait: Ray's calls turn the exception of a signal handler into a SystemError.
        given = shard, model.worker, uuid.uuid4().hex, self._poison.get(shard.id, frozenset())
        self._in_flight[decoder.worker.score.remote(*given).future()] = task

    def _finish(self, answer: Future[Outcome]) -> bool:
        """Take in one shard; tell whether it finished, or came a step nearer to it."""
        task = self._in_flight.pop(answer)
        try:
            outcome = answer.result()
        except RayActorError as error:
            task.decoder.replace(task.workers[0])
            return self._retry(task, error)
        except RayTaskError as error:
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
            task.model.replace(task.workers[1])
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
        self._again.append(shard)
        if self._losses[shard.id] < LOSSES - 1 or not isinstance(cause, RayActorError):
            return False
        images = shard.entries
        self._poison[shard.id] = frozenset(
            image.key for image in images if self._is_poison(task, image) and self._is_poison(task, image)
        )
        return True

    def _is_poison(self, task: InFlight, image: Entry) -> bool:
        """Tell whether an image, tried alone, takes its worker down."""
        workers = task.decoder.worker, task.model.worker
        try:
            workers[0].try_image.remote(image, workers[1]).future().result(self._timeout_s)
        except RayActorError:
            task.decoder.replace(workers[0])
            return True
        except RayTaskError as error:
            self._cause(replace(task, workers=workers), error)
        except TimeoutError:
            raise EnvironmentFailed(
                f"an image of shard {task.shard.id}, tried alone, gave no answer for {self._timeout_s:.0f} s: "
                "look at the workers and the store, then run the same command again"
            ) from None
        return False
