"""What passes between the driver of a training run and its ranks: progress one way, the wish to stop the other.

A Ray actor that holds the last step and the events that nobody has read yet. It knows nothing of training.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import ray

from workers.cluster import Handle

Row = dict[str, float]
EVERY_S = 1.0  # between two calls of a rank


class ProgressUpdate(NamedTuple):
    """What was posted since the last read.

    The newest step, as (step, steps in all, row); and an event for each saved state: an epoch's row, or {} inside one.
    """

    step: tuple[int, int, Row] | None
    events: list[Row]


class ProgressActor:
    """Holds what rank 0 posted until the driver reads it, and the driver's wish until rank 0 posts again."""

    def __init__(self) -> None:
        self._update = ProgressUpdate(None, [])
        self._stop = False

    def post_step(self, step: int, steps: int, row: Row) -> bool:
        """Take a step; tell whether the run should stop."""
        self._update = self._update._replace(step=(step, steps, row))
        return self._stop

    def post_event(self, row: Row) -> None:
        """Take a saved state."""
        self._update.events.append(row)

    def read(self, stop: bool) -> ProgressUpdate:
        """Return what came since the last read; `stop` once true stays so."""
        self._stop = self._stop or stop
        update, self._update = self._update, ProgressUpdate(None, [])
        return update


class Reporter:
    """Rank 0's way to the `ProgressActor`, used at most once a second."""

    def __init__(self, actor: Handle) -> None:
        self._actor = actor
        self._stop = False
        self._next = 0.0

    def step_done(self, step: int, steps: int, row: Row) -> None:
        """Post a step, and learn whether to stop."""
        if time.monotonic() >= self._next:
            self._stop = ray.get(self._actor.post_step.remote(step, steps, row))
            self._next = time.monotonic() + EVERY_S

    def stop_requested(self) -> bool:
        """Tell whether the driver wants the run to stop."""
        return self._stop
