"""A trial on Ray: the core's training loop in a worker process, and the board on which it and the driver speak.

A worker process trains one trial after another; nothing of Optuna is here. After every epoch a trial waits until the
driver has judged it, so that what is pruned does not depend on how fast the driver looks.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import ray
import torch

from covseg.errors import CovsegError, Stopped, StorageDenied, StorageFull, TrainingFailed, UsageError
from covseg.training.job import Hooks, TrainingJob
from covseg.training.ranks import Rank
from covseg.training.recipe import Recipe
from covseg.training.train import train
from workers.cluster import Handle

FINAL = (UsageError, TrainingFailed, StorageDenied, StorageFull)  # another try would end the same way
EVERY_S, POLL_S = 1.0, 0.05  # between two looks at the board inside an epoch, and while a verdict is awaited


class Verdict(NamedTuple):
    """What the driver wants of a trial: to stop, and the last epoch that it has judged."""

    stop: bool
    judged: int


class TrialBoard:
    """An actor that holds what trials posted until the driver reads it, and what the driver wants of them."""

    def __init__(self) -> None:
        self._posted: list[tuple[int, int]] = []
        self._verdicts: dict[int, Verdict] = {}

    def post(self, number: int, epoch: int) -> None:
        """Take that a trial has ended an epoch."""
        self._posted.append((number, epoch))

    def verdict(self, number: int) -> Verdict:
        """Return what the driver wants of a trial."""
        return self._verdicts.get(number, Verdict(False, 0))

    def read(self) -> list[tuple[int, int]]:
        """Return (trial, epoch) of what was posted since the last read."""
        posted, self._posted = self._posted, []
        return posted

    def judge(self, verdicts: dict[int, Verdict]) -> None:
        """Replace what the driver wants."""
        self._verdicts = verdicts


@dataclass(frozen=True)
class TrialEnd:
    """How a trial's process ended: ``done`` (all epochs), ``stopped`` (state saved), or ``failed`` for good."""

    kind: Literal["done", "stopped", "failed"]
    reason: str = ""


def run_trial(number: int, recipe: Recipe, job: TrainingJob, cores: int, device: str, board: Handle) -> TrialEnd:
    """Train where the trial's folder stands, until the end or until the board says stop."""
    torch.set_num_threads(cores)
    cv2.setNumThreads(cores)
    try:
        train(recipe, job, _hooks(number, board), Rank(device=device))
    except Stopped as stopped:
        return TrialEnd("stopped", str(stopped))
    except FINAL as error:
        return TrialEnd("failed", str(error))
    except CovsegError as error:  # an environment that may mend
        raise RuntimeError(str(error)) from error
    return TrialEnd("done")


def _hooks(number: int, board: Handle) -> Hooks:
    verdict, due = Verdict(False, 0), 0.0

    def look() -> Verdict:
        nonlocal verdict, due
        verdict, due = ray.get(board.verdict.remote(number)), time.monotonic() + EVERY_S
        return verdict

    def epoch_done(row: dict[str, float], _: Path) -> None:
        epoch = int(row["epoch"])
        ray.get(board.post.remote(number, epoch))
        while look().judged < epoch and not verdict.stop:
            time.sleep(POLL_S)

    def stop() -> bool:
        return verdict.stop or (time.monotonic() >= due and look().stop)

    return Hooks(epoch_done=epoch_done, stop=stop)
