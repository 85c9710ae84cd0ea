"""Training on Ray: Ray Train around the core's loop, with restarts, resizing and checkpoints in any store.

In: a recipe, a job, and how many ranks on what. Out: the job's folder, filled as if the loop had run here. The
driver listens to the ranks through a progress actor and keeps the folder up to date, so that a run can be looked
at, stopped and resumed like one without Ray. Ray restarts ranks that die; nobody above may retry.
"""

from __future__ import annotations

import os
import threading
import uuid
from concurrent.futures import Future, wait
from dataclasses import replace
from pathlib import Path
from typing import cast

import pyarrow.fs
import ray
from ray.train import Checkpoint
from ray.train.torch import TorchConfig
from ray.train.v2.api.config import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.v2.api.exceptions import ControllerError, TrainingFailedError
from ray.train.v2.api.result import Result
from ray.train.v2.torch.torch_trainer import TorchTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from covseg.errors import CovsegError, EnvironmentFailed, Stopped
from covseg.registry.registry import pinned
from covseg.settings.train import TrainSettings
from covseg.storage.arrow import arrow_filesystem
from covseg.training.job import Hooks, TrainingJob
from covseg.training.recipe import Recipe
from covseg.training.remote import SCRATCH
from covseg.training.run_folder import FACTS, METRICS, RECIPE, STATE, WEIGHTS, open_run
from covseg.training.seeds import TrainResult, train_seeds
from workers.cluster import Handle, connect, cores_each
from workers.progress import ProgressActor
from workers.ranks import CheckpointCallback, RankConfig, copy_checkpoint, run_rank

FAILURES = 3  # losses of a rank that a run survives
START_S = "300"  # a loaded machine takes minutes to import torch in every rank
COLLECTIVE_S = 3600  # one machine may fetch the data while another has it
LISTEN_S = 0.5
RESIZE_S = 60.0  # between two checks whether more ranks would fit


def train_on_ray(recipe: Recipe, job: TrainingJob, settings: TrainSettings, hooks: Hooks | None = None) -> TrainResult:
    """Train on the cluster of ``RAY_ADDRESS``, or on one started here; return what came out.

    `settings` say how many ranks, on what, how often, and where: checkpoints lie in ``.ray/`` of `out` meanwhile.

    Raises
    ------
    EnvironmentFailed
        When the cluster has no room for the ranks, or they were lost too often.
    CovsegError
        As `covseg.training.train.train`.
    """
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", START_S)
    heard = hooks or Hooks()
    with connect():
        return train_seeds(
            recipe, job, settings.seeds, train_one=lambda seeded, placed: _train_one(seeded, placed, settings, heard)
        )


def _train_one(recipe: Recipe, job: TrainingJob, settings: TrainSettings, hooks: Hooks) -> None:
    open_run(job.out, recipe, job.resume)
    cores = cores_each(settings.workers, settings.gpus, settings.least_workers)
    name = f"{recipe.name}-{uuid.uuid4().hex[:8]}"
    filesystem, place = arrow_filesystem(f"{settings.out}/{SCRATCH}")
    _clear(filesystem, place)  # of a driver that was killed
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)  # any other may be lost
    actor = ray.remote(ProgressActor).options(num_cpus=0, scheduling_strategy=here).remote()
    rank = RankConfig(
        name, recipe, _absolute(job, cores, settings), cores, _start(job, filesystem, f"{place}/{name}-start"),
        actor, str(Path.cwd()),
    )  # fmt: skip
    run_config = RunConfig(
        name=name, storage_path=place, storage_filesystem=filesystem,
        callbacks=[CheckpointCallback(job.out.absolute(), actor)],
        checkpoint_config=CheckpointConfig(num_to_keep=2),
        failure_config=FailureConfig(max_failures=FAILURES, controller_failure_limit=FAILURES),
    )  # fmt: skip
    try:
        result = _fit(_trainer(rank, settings, run_config), actor, hooks, job.out)
        if result.checkpoint:
            copy_checkpoint(result.checkpoint, job.out)
    finally:
        _clear(filesystem, place)
    if result.return_value:
        raise Stopped(result.return_value)


def _trainer(rank: RankConfig, settings: TrainSettings, run_config: RunConfig) -> TorchTrainer:
    least, most = settings.least_workers, settings.workers
    return TorchTrainer(
        run_rank,
        train_loop_config={"rank": rank},
        torch_config=TorchConfig(backend="nccl" if settings.gpus >= 1 else "gloo", timeout_s=COLLECTIVE_S),
        scaling_config=ScalingConfig(
            num_workers=most if least is None else (least, most),
            use_gpu=settings.gpus > 0,
            resources_per_worker={"CPU": float(rank.cores)} | ({"GPU": settings.gpus} if settings.gpus else {}),
            elastic_resize_monitor_interval_s=RESIZE_S,
        ),
        run_config=run_config,
    )


def _clear(filesystem: pyarrow.fs.FileSystem, place: str) -> None:
    if filesystem.get_file_info(place).type != pyarrow.fs.FileType.NotFound:
        filesystem.delete_dir(place)


def _absolute(job: TrainingJob, cores: int, settings: TrainSettings) -> TrainingJob:
    """Return the job with paths that mean the same in every process, and loaders that fit beside a GPU's rank."""
    workers = min(job.workers, cores - 1) if settings.gpus else job.workers
    return replace(job, out=job.out.absolute(), lung_model=pinned(job.lung_model), workers=workers)


def _start(job: TrainingJob, filesystem: pyarrow.fs.FileSystem, place: str) -> Checkpoint | None:
    """Put a state that is to be resumed where every rank reaches it."""
    if not (job.resume and (job.out / STATE).exists()):
        return None
    filesystem.create_dir(place)
    for name in (STATE, WEIGHTS, METRICS, RECIPE, FACTS):
        if (job.out / name).exists():
            pyarrow.fs.copy_files(str(job.out / name), f"{place}/{name}", destination_filesystem=filesystem)
    return Checkpoint(place, filesystem)


def _fit(trainer: TorchTrainer, actor: Handle, hooks: Hooks, folder: Path) -> Result:
    """Run the trainer in a thread, so that Ctrl-C and cancelling stay the caller's, and listen meanwhile."""
    done: Future[Result] = Future()
    threading.Thread(target=_fulfil, args=(done, trainer), daemon=True).start()
    try:
        while not wait([done], LISTEN_S).done:
            _listen(actor, hooks, folder)
        result = done.result()
    except ControllerError as error:
        if isinstance(error.controller_failure, CovsegError):
            raise error.controller_failure from None
        raise EnvironmentFailed(f"Ray gave up: {error.controller_failure}") from error
    except TrainingFailedError as error:
        raise EnvironmentFailed(
            f"a rank failed {FAILURES + 1} times, last with: {str(error).strip().splitlines()[-1]}. "
            f"{folder} holds the last state; --resume goes on"
        ) from error
    except BaseException:  # Ctrl-C or a cancelled flow: whatever cluster this is, the ranks should end
        actor.read.remote(True)
        raise
    _listen(actor, hooks, folder)
    return result


def _fulfil(done: Future[Result], trainer: TorchTrainer) -> None:
    try:
        done.set_result(cast(Result, trainer.fit()))
    except BaseException as error:  # noqa: BLE001 - it is raised where somebody listens
        done.set_exception(error)


def _listen(actor: Handle, hooks: Hooks, folder: Path) -> None:
    update = ray.get(actor.read.remote(hooks.stop()))
    if update.step:
        hooks.step_done(*update.step)
    for row in update.events:
        hooks.epoch_done(row, folder) if row else hooks.saved(folder)
