"""What runs on every rank of a training run, and what the driver's machine keeps of it.

A rank works in a folder of its own that nobody else sees; only rank 0's counts. After every state all
ranks report, rank 0 with its folder as the checkpoint; a rank that starts again begins with the last one
that was kept. The wrapping of the network is the core's own affair.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import ray
import ray.train
import ray.train.torch
import torch

from covseg.errors import CovsegError, Stopped, StorageDenied, StorageFull, TrainingFailed, UsageError
from covseg.storage import LocalStore
from covseg.training.batches import Rank
from covseg.training.recipe import Recipe
from covseg.training.run_folder import STATE
from covseg.training.train import Hooks, Job, train
from workers.progress import Handle, Reporter, Row

FINAL = (UsageError, TrainingFailed, StorageDenied, StorageFull)  # another try would end the same way


@dataclass(frozen=True)
class RankConfig:
    """What every rank is told; picklable.

    Parameters
    ----------
    name : str
        Of this run, unique.
    recipe : Recipe
    job : Job
        Its `out` is the driver's.
    cores : int
        CPU cores of each rank.
    start : ray.train.Checkpoint or None
        What a resumed run begins with.
    actor : Handle
        Of a `workers.progress.ProgressActor`.
    folder : str
        The driver's working folder; relative paths are meant from there.
    """

    name: str
    recipe: Recipe
    job: Job
    cores: int
    start: ray.train.Checkpoint | None
    actor: Handle
    folder: str


def run_rank(config: dict[str, RankConfig]) -> str | None:
    """Train as one rank; return None at the end, or what a stopped run says.

    Raises
    ------
    CovsegError
        As `covseg.training.train.train`, with the driver's folder in the message.
    """
    told = config["told"]
    context = ray.train.get_context()
    rank = Rank(context.get_world_rank(), context.get_world_size(), str(ray.train.torch.get_device()))
    _take_place(told)
    folder = Path(tempfile.gettempdir()) / f"covseg-{told.name}-rank-{rank.index}"
    shutil.rmtree(folder, ignore_errors=True)  # of a rank that was killed here
    folder.mkdir()
    try:
        if checkpoint := ray.train.get_checkpoint() or told.start:
            checkpoint.to_directory(str(folder))
        train(told.recipe, replace(told.job, out=folder, resume=True), _hooks(told, rank), rank)
    except Stopped as stopped:
        return str(stopped)
    except CovsegError as error:
        raise error.with_message(str(error).replace(str(folder), str(told.job.out))) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return None


def _take_place(told: RankConfig) -> None:
    """Take the driver's folder, where this machine has it, and no more cores than were given."""
    with contextlib.suppress(OSError):
        os.chdir(told.folder)
    torch.set_num_threads(told.cores)
    cv2.setNumThreads(told.cores)


def _hooks(told: RankConfig, rank: Rank) -> Hooks:
    def report(row: Row, folder: Path) -> None:
        checkpoint = ray.train.Checkpoint.from_directory(folder) if rank.index == 0 else None
        try:
            ray.train.report(row, checkpoint=checkpoint)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise StorageFull(f"no room for the checkpoint of {told.name} ({error}); free some space") from error
            raise

    reporter = Reporter(told.actor) if rank.index == 0 else None
    hooks = Hooks(epoch_done=report, saved=lambda folder: report({}, folder))
    return replace(hooks, tell=reporter.tell, stop=reporter.asked) if reporter else hooks


class CheckpointCallback(ray.train.UserCallback):
    """Keeps the driver's folder equal to the last checkpoint; ends a run that no restart can mend.

    It lives with Ray's controller, which is on the driver's machine.

    Parameters
    ----------
    folder : Path
        The run's.
    actor : Handle
        Hears of every kept state.
    """

    def __init__(self, folder: Path, actor: Handle) -> None:
        self._folder, self._actor = folder, actor

    def after_report(
        self, run_context: object, metrics: list[dict[str, Any]], checkpoint: ray.train.Checkpoint | None
    ) -> None:  # the arguments come by name
        """Copy what rank 0 reported, then say so."""
        del run_context
        if checkpoint:
            copy_checkpoint(checkpoint, self._folder)
            ray.get(self._actor.post_event.remote(metrics[0]))

    def after_exception(self, run_context: object, worker_exceptions: dict[int, Exception]) -> None:
        """Raise a rank's error here, where Ray does not try again, if trying again is of no use."""
        del run_context
        for error in worker_exceptions.values():
            if isinstance(error, FINAL):
                raise error


def copy_checkpoint(checkpoint: ray.train.Checkpoint, folder: Path) -> None:
    """Copy a checkpoint into the run's folder, each file replaced whole, the state last."""
    with checkpoint.as_directory() as found:
        paths = [path for path in Path(found).rglob("*") if path.is_file()]
        for path in sorted(paths, key=lambda path: (path.name == STATE, path)):
            LocalStore(folder).upload(path, path.relative_to(found).as_posix())
