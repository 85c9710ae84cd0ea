"""What runs on every rank of a training run, and what the driver's machine keeps of it.

A rank works in a folder of its own that nobody else sees; only rank 0's counts. After every state all
ranks report, rank 0 with its folder as the checkpoint; a rank that starts again begins with the last one
that was kept. The core wraps the network itself.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import ray
import ray.train
import ray.train.torch
import torch

from covseg.errors import CovsegError, Stopped, StorageDenied, StorageFull, TrainingFailed, UsageError
from covseg.storage import LocalStore
from covseg.training.job import Hooks, TrainingJob
from covseg.training.ranks import Rank
from covseg.training.recipe import Recipe
from covseg.training.run_folder import STATE
from covseg.training.train import train
from workers.cluster import Handle
from workers.progress import Reporter, Row

FINAL = (UsageError, TrainingFailed, StorageDenied, StorageFull)  # another try would end the same way


@dataclass(frozen=True)
class RankConfig:
    """What every rank of a run is given; picklable.

    `name` is this run's alone, `job.out` the driver's, `cores` are CPU cores of each rank, and with `start` a resumed
    run begins. Relative paths are meant from `folder`, the driver's working folder.
    """

    name: str
    recipe: Recipe
    job: TrainingJob
    cores: int
    start: ray.train.Checkpoint | None
    actor: Handle
    folder: str


def run_rank(loop_config: dict[str, RankConfig]) -> str | None:
    """Train as one rank; return None at the end, or what a stopped run says.

    Raises
    ------
    CovsegError
        As `covseg.training.train.train`, with the driver's folder in the message.
    """
    config = loop_config["rank"]
    context = ray.train.get_context()
    rank = Rank(context.get_world_rank(), context.get_world_size(), str(ray.train.torch.get_device()))
    _set_process(config)
    folder = Path(tempfile.gettempdir()) / f"covseg-{config.name}-rank-{rank.index}"
    shutil.rmtree(folder, ignore_errors=True)  # of a rank that was killed here
    folder.mkdir()
    try:
        if checkpoint := ray.train.get_checkpoint() or config.start:
            checkpoint.to_directory(str(folder))
        train(config.recipe, replace(config.job, out=folder, resume=True), _hooks(config, rank), rank)
    except Stopped as stopped:
        return str(stopped)
    except CovsegError as error:
        raise error.with_message(str(error).replace(str(folder), str(config.job.out))) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return None


def _set_process(config: RankConfig) -> None:
    """Work in the driver's folder, where this machine has it, on no more cores than this rank has."""
    with contextlib.suppress(OSError):
        os.chdir(config.folder)
    torch.set_num_threads(config.cores)
    cv2.setNumThreads(config.cores)


def _hooks(config: RankConfig, rank: Rank) -> Hooks:
    def report(row: Row, folder: Path) -> None:
        checkpoint = ray.train.Checkpoint.from_directory(folder) if rank.index == 0 else None
        try:
            ray.train.report(row, checkpoint=checkpoint)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise StorageFull(f"no room for the checkpoint of {config.name} ({error}); free some space") from error
            raise

    reporter = Reporter(config.actor) if rank.index == 0 else None
    hooks = Hooks(epoch_done=report, saved=lambda folder: report({}, folder))
    return replace(hooks, step_done=reporter.step_done, stop=reporter.stop_requested) if reporter else hooks


class CheckpointCallback(ray.train.UserCallback):
    """Keeps the run's folder equal to the last checkpoint; ends a run that no restart can mend.

    It lives with Ray's controller, which is on the driver's machine. The actor gets an event for every saved state.
    """

    def __init__(self, folder: Path, actor: Handle) -> None:
        self._folder, self._actor = folder, actor

    def after_report(
        self, run_context: object, metrics: list[Row], checkpoint: ray.train.Checkpoint | None
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
    with checkpoint.as_directory() as source:
        paths = [path for path in Path(source).rglob("*") if path.is_file()]
        for path in sorted(paths, key=lambda path: (path.name == STATE, path)):
            LocalStore(folder).upload(path, path.relative_to(source).as_posix())
