"""Deal shards to the fleet, one to a decode worker, and deal again what a lost worker had.

What a shard cost is counted: before it costs the last worker that it may, its films are tried one at a time, and
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
from covseg.errors import EnvironmentFailed, StorageUnreachable
from covseg.records import Entry
from workers.pool import Fleet, Handle, ModelLost, Seat
from workers.summary import Progress

LOSSES = 3  # workers that one shard may cost before the run stops

Tell = Callable[[Progress], None]


@dataclass(frozen=True)
class Flight:
    """A shard under way, and who has it."""

    shard: Shard
    decoder: Seat
    model: Seat
    workers: tuple[Handle, Handle]


class Dealer:
    """Keeps every decode worker busy with one shard.

    Parameters
    ----------
    fleet : Fleet
        Started.
    progress : Progress
        Kept up to date.
    tell : callable
        Called with it after every shard.
    patience_s : float
        Seconds without a finished shard after which the run ends.
    """

    def __init__(self, fleet: Fleet, progress: Progress, tell: Tell, patience_s: float) -> None:
        self._fleet, self._progress, self._tell, self._patience_s = fleet, progress, tell, patience_s
        self._idle = list(fleet.decoders)
        self._again: deque[Shard] = deque()
        self._losses: Counter[str] = Counter()
        self._killers: dict[str, frozenset[str]] = {}
        self._flights: dict[Future[Outcome], Flight] = {}

    def deal(self, shards: Iterator[Shard]) -> None:
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
            if not self._flights:
                return
            left = self._patience_s - (time.monotonic() - heard)
            landed, _ = wait(self._flights, max(0.0, left), FIRST_COMPLETED)
            if not landed:
                raise EnvironmentFailed(
                    f"no shard finished for {self._patience_s:.0f} s, {len(self._flights)} under way: "
                    "look at the workers and the store, then run the same command again"
                )
            for answer in landed:
                heard = time.monotonic() if self._land(answer) else heard

    def _next(self, shards: Iterator[Shard]) -> Shard | None:
        return self._again.popleft() if self._again else next(shards, None)

    def _launch(self, shard: Shard) -> None:
        decoder = self._idle.pop()
        model = self._fleet.model_for(decoder)
        flight = Flight(shard, decoder, model, (decoder.worker, model.worker))
        # A future, not ray.wait: Ray's calls turn the exception of a signal handler into a SystemError.
        given = shard, model.worker, uuid.uuid4().hex, self._killers.get(shard.id, frozenset())
        self._flights[decoder.worker.score.remote(*given).future()] = flight

    def _land(self, answer: Future[Outcome]) -> bool:
        """Take in one shard; tell whether it finished, or came a step nearer to it."""
        flight = self._flights.pop(answer)
        try:
            outcome = answer.result()
        except RayActorError as error:
            flight.decoder.replace(flight.workers[0])
            return self._deal_again(flight, error)
        except RayTaskError as error:
            return self._deal_again(flight, self._judge(flight, error))
        finally:
            self._idle.append(flight.decoder)
        self._progress.shards += 1
        self._progress.statuses.update(outcome.statuses)
        self._progress.reasons.update(outcome.reasons)
        self._tell(self._progress)
        return True

    def _judge(self, flight: Flight, error: RayTaskError) -> Exception:
        """Return the cause when the shard may be dealt again; raise it when the run has to stop."""
        cause = error.cause
        if isinstance(cause, ModelLost):
            flight.model.replace(flight.workers[1])
        elif not isinstance(cause, StorageUnreachable):
            raise cause from error
        return cause

    def _deal_again(self, flight: Flight, cause: Exception) -> bool:
        shard = flight.shard
        self._losses[shard.id] += 1
        self._progress.redone += 1
        if self._losses[shard.id] >= LOSSES:
            if isinstance(cause, StorageUnreachable):
                raise cause
            raise EnvironmentFailed(
                f"shard {shard.id} lost its worker {LOSSES} times ({type(cause).__name__}); the other shards are kept: "
                f"one of its {len(shard.entries)} films may take a worker down, or the machine lacks memory"
            ) from cause
        self._again.append(shard)
        if self._losses[shard.id] < LOSSES - 1 or not isinstance(cause, RayActorError):
            return False
        films = shard.entries
        self._killers[shard.id] = frozenset(
            film.key for film in films if self._kills(flight, film) and self._kills(flight, film)
        )
        return True

    def _kills(self, flight: Flight, film: Entry) -> bool:
        """Tell whether a film, tried alone, takes its worker down."""
        workers = flight.decoder.worker, flight.model.worker
        try:
            workers[0].try_film.remote(film, workers[1]).future().result(self._patience_s)
        except RayActorError:
            flight.decoder.replace(workers[0])
            return True
        except RayTaskError as error:
            self._judge(replace(flight, workers=workers), error)
        except TimeoutError:
            raise EnvironmentFailed(
                f"a film of shard {flight.shard.id}, tried alone, gave no answer for {self._patience_s:.0f} s: "
                "look at the workers and the store, then run the same command again"
            ) from None
        return False
