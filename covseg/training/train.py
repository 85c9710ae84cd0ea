"""The training loop: plain torch, one process or one rank among several, no Ray.

In: a `Recipe`, a labelled set and a folder. Out: the folder, filled (`covseg.training.run_folder`). A run
that is cut anywhere and resumed takes the same steps on the same batches: on a CPU the weights are equal
bit for bit.
"""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from covseg.data.cache import local_copy
from covseg.data.images import STRATA
from covseg.errors import Stopped, TrainingFailed, UsageError
from covseg.metrics.convention import Empty, ratios
from covseg.settings.environment import code_version
from covseg.training import run_folder
from covseg.training.batches import Batch, Rank, Samples, grid, order, training_batches
from covseg.training.dataset import SIDE, ImageArrays, load_split, without_leaks
from covseg.training.heap import keep_freed_memory
from covseg.training.learner import Learner, learning_rate
from covseg.training.lungs import lung_channel, lung_masks
from covseg.training.pictures import draw
from covseg.training.recipe import Recipe
from covseg.training.validate import DICE, counts, metrics, names, validate

log = logging.getLogger(__name__)

SAVE_EVERY = 200  # steps between two states inside an epoch
SPLITS = ("Train", "Val")
FEW = 6  # images of each split that a rehearsal reads


@dataclass(frozen=True)
class Job:
    """What one training run is told, beside its recipe; nothing here changes what is learnt, but `limit`.

    Parameters
    ----------
    data : Path or str
        Root of a labelled set with Train and Val; a bucket's URL is brought to this machine first.
    out : Path
        Folder of the run.
    limit : int or None
        About so many images of each split.
    resume : bool
        Go on with the run in `out`.
    lung_model : str
        Model folder whose lung masks a four-channel network sees.
    workers : int
        Processes that read and augment beside the step; 0 does it in line.
    minutes : float or None
        Stop after so long, state saved; None trains to the end.
    drop_leaks : bool
        Leave out images of Train that are, exactly or nearly, images of Val.
    """

    data: Path | str
    out: Path
    limit: int | None = None
    resume: bool = False
    lung_model: str = "default"
    workers: int = 0
    minutes: float | None = None
    drop_leaks: bool = False


@dataclass
class Hooks:
    """What the caller wants to hear and to say; called on every rank.

    Parameters
    ----------
    tell : callable
        (step, steps in all, row so far) after each step.
    epoch_done : callable
        (row, folder) after each epoch, state saved.
    saved : callable
        (folder) after a state was saved inside an epoch.
    stop : callable
        True, on any rank, ends the run after the step, state saved.
    """

    tell: Callable[[int, int, dict[str, float]], None] = lambda *_: None
    epoch_done: Callable[[dict[str, float], Path], None] = lambda *_: None
    saved: Callable[[Path], None] = lambda *_: None
    stop: Callable[[], bool] = lambda: False


@dataclass
class Progress:
    """Where a run stands; saved with the state.

    Parameters
    ----------
    epoch, step : int
        Epochs done, and steps done in the one that runs.
    best : float
        Highest metric so far.
    since_best : int
        Epochs since then.
    sums : dict of str to float
        Of the epoch that runs: loss, Dice and images of all ranks; seconds and waiting of this one.
    """

    epoch: int = 0
    step: int = 0
    best: float = -1.0
    since_best: int = 0
    sums: dict[str, float] = field(default_factory=dict)


def train(recipe: Recipe, job: Job, hooks: Hooks | None = None, rank: Rank | None = None) -> Progress:
    """Train to the end of the recipe, or until stopped; resume where `job.out` stands.

    Raises
    ------
    UsageError
        Before the first step: no data, weights that cannot be fetched, a folder that holds another run or one that
        learnt from other images.
    TrainingFailed
        When the loss is not finite; the last state is kept.
    StorageFull
        When a state cannot be written; the one before is whole.
    Stopped
        When `hooks.stop` or the time said so; the message says how to go on.
    """
    hooks, rank = hooks or Hooks(), rank or Rank()
    if rank.device == "cpu":
        keep_freed_memory()
    rows = run_folder.open_run(job.out, recipe, job.resume) if rank.index == 0 else []
    sets = _sets(recipe, job)
    images = len(sets["Train"])
    if min(images, recipe.batch) < rank.world:
        raise UsageError(f"{rank.world} ranks share batches of {min(images, recipe.batch)} images: take fewer workers")
    steps = len(order(images, recipe.batch, recipe.seed, 0))
    learner = Learner(recipe, rank, steps * recipe.stop.epochs, _pos_weight(recipe, sets["Train"].images))
    progress = _resume(learner, job.out)
    if rank.index == 0 and not _over(recipe, progress):
        run_folder.check_room(job.out, learner.plain)
        at = {"epoch": progress.epoch, "step": progress.step}
        run_folder.keep_facts(job.out, _facts(learner, sets, job), at if any(at.values()) else None)
    run = _Run(recipe, job, hooks, rank, sets, learner, progress, rows[: progress.epoch], time.monotonic())
    while not _over(recipe, progress):
        run.epoch(steps)
    return progress


def preflight(recipe: Recipe, job: Job) -> dict[str, str]:
    """Do all that can fail before the first step, on a few images; return what the encoder would start from.

    Raises
    ------
    UsageError
        No data, weights that cannot be fetched or read, a metric that is not measured.
    """
    root = local_copy(job.data, SPLITS)
    images = {split: _images(root, split, recipe, FEW) for split in SPLITS}
    if recipe.stop.metric not in (known := names(recipe.data.targets, images["Val"].known)):
        raise _not_measured(recipe, known)
    return Learner(recipe, Rank(), 1).start


def _not_measured(recipe: Recipe, known: Iterable[str]) -> UsageError:
    wanted = ", ".join(known)
    return UsageError(f"stop.metric {recipe.stop.metric!r} is not measured on this Val: wanted one of {wanted}")


def _images(root: Path, split: str, recipe: Recipe, limit: int | None) -> ImageArrays:
    targets = recipe.data.targets
    if recipe.input.channels == 4 and recipe.data.lung == "truth":
        targets = ("lung", *targets)
    images = load_split(root, split, limit, recipe.data.strata, targets, max(SIDE, recipe.input.size))
    if recipe.network.classes and images.known != STRATA:
        raise UsageError(f"network.classes is for {', '.join(STRATA)}; this set has {', '.join(images.known)}")
    return images


def _sets(recipe: Recipe, job: Job) -> dict[str, Samples]:
    root = local_copy(job.data, SPLITS)
    images = {split: _images(root, split, recipe, job.limit) for split in SPLITS}
    if recipe.stop.metric not in (known := metrics(images["Val"], recipe.data.targets)):
        raise _not_measured(recipe, known)
    if job.drop_leaks:
        images["Train"], dropped = without_leaks(images["Train"], images["Val"])
        log.info("left out %d images of Train that are images of Val", dropped)
    return {split: Samples(one, recipe, lung_masks(one, recipe, job.lung_model)) for split, one in images.items()}


def _pos_weight(recipe: Recipe, images: ImageArrays) -> float:
    """Return BCE's weight; of the data: background over foreground pixels of the infection masks of Train."""
    if recipe.loss.pos_weight != "data":
        return float(recipe.loss.pos_weight)
    found = int(np.count_nonzero(images.infections))
    if not found:
        raise UsageError("loss.pos_weight = 'data', but no image of Train has infection: give a number")
    return (images.infections.size - found) / found


def _resume(learner: Learner, folder: Path) -> Progress:
    state = run_folder.load_state(folder)
    if state is None:
        return Progress()
    learner.load(state["learner"])
    return Progress(**state["progress"])


def _over(recipe: Recipe, progress: Progress) -> bool:
    patience = recipe.stop.patience
    return progress.epoch >= recipe.stop.epochs or (patience is not None and progress.since_best >= patience)


def _facts(learner: Learner, sets: dict[str, Samples], job: Job) -> dict[str, Any]:
    recipe = learner.recipe
    return {
        "label": recipe.label, "recipe_sha256": recipe.digest, "seed": recipe.seed, **learner.start,
        "lung_channel": lung_channel(recipe, job.lung_model),
        "set": sets["Train"].images.source, "strata": recipe.data.strata or sets["Train"].images.known,
        "films": {split: len(samples) for split, samples in sets.items()}, "limit": job.limit,
        "drop_leaks": job.drop_leaks, "data_sha256": {name: one.images.digest for name, one in sets.items()},
        "parameters": sum(value.numel() for value in learner.plain.network.parameters()),
        "ranks": learner.rank.world, "device": learner.rank.device, "threads": torch.get_num_threads(),
        "torch": torch.__version__, "python": platform.python_version(), "code_version": code_version(),
    }  # fmt: skip


@dataclass
class _Run:
    """The loop's own hands."""

    recipe: Recipe
    job: Job
    hooks: Hooks
    rank: Rank
    sets: dict[str, Samples]
    learner: Learner
    progress: Progress
    rows: list[dict[str, float]]
    start: float

    def epoch(self, steps: int) -> None:
        """Finish the epoch that runs, look at Val, save, tell."""
        progress, samples = self.progress, self.sets["Train"]
        asked = time.monotonic()
        self.learner.learning.train()
        for batch in training_batches(samples, progress.epoch, progress.step, self.rank, self.job.workers):
            waited = time.monotonic() - asked
            self._step(batch, min(self.recipe.batch, len(samples)), waited)
            asked = time.monotonic()
            self.hooks.tell(self.learner.steps, self.learner.total_steps, self._means())
            self._pause(steps)
        row = self._row()
        self._judge(row)
        progress.epoch, progress.step, progress.sums = progress.epoch + 1, 0, {}
        self.rows.append(row)
        if self.rank.index == 0:
            run_folder.write_rows(self.job.out, self.rows)
            draw(self.job.out, self.rows, self.learner.best, self.sets["Val"], self.rank)
            self._save()
        log.info("epoch %d: %s", progress.epoch, {name: round(value, 4) for name, value in row.items()})
        self.hooks.epoch_done(row, self.job.out)

    def _step(self, batch: Batch, images: int, waited: float) -> None:
        begun = time.monotonic()
        try:
            loss, masks = self.learner.step(batch, images)
        except FloatingPointError as error:
            saved = "the last saved state" if run_folder.has_state(self.job.out) else "no state yet"
            raise TrainingFailed(
                f"{error}: {self.job.out} holds {saved}. Lower optimiser.lr (now {self.recipe.optimiser.lr:g}) "
                "or set optimiser.clip, in a new --out"
            ) from error
        dice = _train_dice(masks.cpu(), batch)
        pooled = over_ranks([loss * len(dice), float(dice.sum()), len(dice)], self.rank)
        told = dict(zip(("loss", "dice", "films"), pooled, strict=True))
        sums = self.progress.sums
        for name, value in (told | {"seconds": time.monotonic() - begun + waited, "waited": waited}).items():
            sums[name] = sums.get(name, 0.0) + value
        self.progress.step += 1

    def _means(self) -> dict[str, float]:
        sums = self.progress.sums
        return {
            "train_loss": sums["loss"] / sums["films"],
            "train_dice": sums["dice"] / sums["films"],
            "films_per_second": sums["films"] / sums["seconds"],
            "data_wait_share": sums["waited"] / sums["seconds"],
        }

    def _row(self) -> dict[str, float]:
        learner, epoch = self.learner, self.progress.epoch
        share = (learner.steps - 1) / learner.total_steps
        head = {"epoch": epoch + 1, "steps": learner.steps, "grid": grid(self.recipe, epoch)}
        return head | {"learning_rate": learning_rate(share, self.recipe.optimiser)} | self._means()

    def _judge(self, row: dict[str, float]) -> None:
        """Look at Val with the averaged weights and keep them when they are the best so far."""
        best = self.learner.best
        if dist.is_initialized() and self.rank.world > 1:
            for value in best.state_dict().values():
                dist.broadcast(value, 0)
        row |= validate(best, self.sets["Val"], self.learner.loss, self.rank, self.job.workers)
        metric, progress = self.recipe.stop.metric, self.progress
        if row[metric] > progress.best:
            progress.best, progress.since_best = row[metric], 0
            if self.rank.index == 0:
                run_folder.save_weights(self.job.out, best)
        else:
            progress.since_best += 1

    def _pause(self, steps: int) -> None:
        """Save now and then; end the run here when any rank was asked to."""
        done = self.progress.step
        late = self.job.minutes is not None and time.monotonic() - self.start > self.job.minutes * 60
        stop = over_ranks([float(self.hooks.stop() or late)], self.rank)[0] > 0
        if (stop or done % SAVE_EVERY == 0) and done < steps:
            if self.rank.index == 0:
                self._save()
            self.hooks.saved(self.job.out)
        if stop and done < steps:
            raise Stopped(
                f"stopped after step {self.learner.steps} of {self.learner.total_steps}, state saved; "
                "the same command with --resume goes on"
            )

    def _save(self) -> None:
        run_folder.save_state(self.job.out, {"learner": self.learner.state(), "progress": vars(self.progress)})


def over_ranks(values: list[float], rank: Rank) -> list[float]:
    """Return the sums over all ranks; every rank has to ask."""
    if not (dist.is_initialized() and rank.world > 1):
        return values
    pooled = torch.tensor(values, dtype=torch.float64, device=rank.device)
    dist.all_reduce(pooled)
    return pooled.tolist()


def _train_dice(masks: torch.Tensor, batch: Batch) -> NDArray[np.float64]:
    """Dice of the last mask, per image, empty = 1, on the augmented images of the step."""
    found = counts(masks[:, -1] > 0, batch.truth[:, -1] > 0).numpy()
    return ratios(found, Empty.ONE)[:, DICE]


def default_device() -> str:
    """Return the accelerator where there is one."""
    return "cuda:0" if torch.cuda.is_available() else "cpu"


def default_workers(device: str) -> int:
    """Return how many loader processes help: none on a CPU, where they would take the step's cores."""
    return 0 if device == "cpu" else min(12, len(os.sched_getaffinity(0)))
