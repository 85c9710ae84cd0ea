"""The training loop: plain torch, one process or one rank among several, no Ray.

In: a `Recipe`, a labelled set and a folder. Out: the folder, filled (`covseg.training.run_folder`). A run
that is cut anywhere and resumed takes the same steps on the same batches: on a CPU the weights are equal
bit for bit.
"""

from __future__ import annotations

import logging
import platform
import time
from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from covseg.errors import Stopped, TrainingFailed, UsageError
from covseg.metrics.convention import Empty, ratios
from covseg.settings.environment import code_version
from covseg.training import run_folder
from covseg.training.batches import Batch, Samples, grid, order, training_batches
from covseg.training.job import Hooks, TrainingJob
from covseg.training.learner import Learner, learning_rate
from covseg.training.lungs import lung_channel
from covseg.training.pictures import draw
from covseg.training.preflight import load_sets, pos_weight
from covseg.training.ranks import Rank, keep_freed_memory
from covseg.training.recipe import Recipe
from covseg.training.run_folder import RunFacts
from covseg.training.shifted import shifted_sets
from covseg.training.validate import DICE, ROBUST, counts, validate

log = logging.getLogger(__name__)

SAVE_EVERY = 200  # steps between two states inside an epoch


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


def train(recipe: Recipe, job: TrainingJob, hooks: Hooks | None = None, rank: Rank | None = None) -> Progress:
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
    loop = TrainingLoop(recipe, job, hooks or Hooks(), rank or Rank())
    while not loop.over:
        loop.epoch()
    return loop.progress


class TrainingLoop:
    """A run in its folder, begun or resumed; `epoch` is one turn of it. Only rank 0 writes."""

    def __init__(self, recipe: Recipe, job: TrainingJob, hooks: Hooks, rank: Rank) -> None:
        self.recipe, self.job, self.hooks, self.rank = recipe, job, hooks, rank
        if rank.device == "cpu":
            keep_freed_memory()
        rows = run_folder.open_run(job.out, recipe, job.resume) if rank.index == 0 else []
        self.sets = load_sets(recipe, job)
        self.shifted = shifted_sets(self.sets["Val"]) if recipe.stop.metric == ROBUST else []
        images = len(self.sets["Train"])
        self.batch = min(images, recipe.batch)
        if self.batch < rank.world:
            raise UsageError(f"{rank.world} ranks share batches of {self.batch} images: take fewer workers")
        self.steps = len(order(images, recipe.batch, recipe.seed, 0))
        weight = pos_weight(recipe, self.sets["Train"].images)
        self.learner = Learner(recipe, rank, self.steps * recipe.stop.epochs, weight)
        self.progress = self._resumed()
        self.rows = rows[: self.progress.epoch]
        if rank.index == 0 and not self.over:
            self._keep_facts()
        self.start = time.monotonic()

    @property
    def over(self) -> bool:
        """Whether all epochs are done, or the recipe's patience is."""
        stop, progress = self.recipe.stop, self.progress
        return progress.epoch >= stop.epochs or (stop.patience is not None and progress.since_best >= stop.patience)

    def epoch(self) -> None:
        """Finish the epoch that runs: its steps, validation, what is saved and who hears of it."""
        progress, samples = self.progress, self.sets["Train"]
        waiting_since, stop = time.monotonic(), False
        self.learner.learning.train()
        for batch in training_batches(samples, progress.epoch, progress.step, self.rank, self.job.workers):
            self._step(batch, waited=time.monotonic() - waiting_since)
            waiting_since = time.monotonic()
            self.hooks.step_done(self.learner.steps, self.learner.total_steps, self._means())
            stop = self._pause()
        row = self._row()
        self._validate(row)
        progress.epoch, progress.step, progress.sums = progress.epoch + 1, 0, {}
        self.rows.append(row)
        if self.rank.index == 0:
            run_folder.write_rows(self.job.out, self.rows)
            draw(self.job.out, self.rows, self.learner.best, self.sets["Val"], self.rank)
            self._save()
        log.info("epoch %d: %s", progress.epoch, {name: round(value, 4) for name, value in row.items()})
        self.hooks.epoch_done(row, self.job.out)
        if stop and not self.over:
            raise self._stopped()

    def _resumed(self) -> Progress:
        state = run_folder.load_state(self.job.out)
        if state is None:
            return Progress()
        self.learner.load(state["learner"])
        return Progress(**state["progress"])

    def _keep_facts(self) -> None:
        run_folder.begin_run(self.job.out, self.recipe, self.learner.plain)
        at = {"epoch": self.progress.epoch, "step": self.progress.step}
        facts = facts_of(self.learner, self.sets, self.job)
        run_folder.keep_facts(self.job.out, facts, at if any(at.values()) else None)

    def _step(self, batch: Batch, waited: float) -> None:
        begun = time.monotonic()
        try:
            loss, masks = self.learner.step(batch, self.batch)
        except FloatingPointError as error:
            saved = "the last saved state" if run_folder.has_state(self.job.out) else "no state yet"
            raise TrainingFailed(
                f"{error}: {self.job.out} holds {saved}. Lower optimiser.lr (now {self.recipe.optimiser.lr:g}) "
                "or set optimiser.clip, in a new --out"
            ) from error
        # of the last mask, per image, on the augmented images of the step
        dice = ratios(counts(masks[:, -1].cpu() > 0, batch.truth[:, -1] > 0).numpy(), Empty.ONE)[:, DICE]
        pooled = self.rank.summed([loss * len(dice), float(dice.sum()), len(dice)])
        values = [*pooled, time.monotonic() - begun + waited, waited]
        sums = self.progress.sums
        for name, value in zip(("loss", "dice", "films", "seconds", "waited"), values, strict=True):
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

    def _validate(self, row: dict[str, float]) -> None:
        """Add Val's numbers, of the averaged weights, and keep those when they are the best so far."""
        best = self.learner.best
        if self.rank.shared:
            for value in best.state_dict().values():
                dist.broadcast(value, 0)
        row |= validate(best, self.sets["Val"], self.learner.loss, self.rank, self.job.workers, self.shifted)
        metric, progress = self.recipe.stop.metric, self.progress
        if row[metric] > progress.best:
            progress.best, progress.since_best = row[metric], 0
            if self.rank.index == 0:
                run_folder.write_weights(self.job.out / run_folder.WEIGHTS, best.network)
        else:
            progress.since_best += 1

    def _pause(self) -> bool:
        """Save now and then; end the run here when any rank was asked to, or say so after an epoch's last step."""
        done = self.progress.step
        late = self.job.minutes is not None and time.monotonic() - self.start > self.job.minutes * 60
        stop = self.rank.summed([float(self.hooks.stop() or late)])[0] > 0
        if (stop or done % SAVE_EVERY == 0) and done < self.steps:
            if self.rank.index == 0:
                self._save()
            self.hooks.saved(self.job.out)
        if stop and done < self.steps:
            raise self._stopped()
        return stop

    def _stopped(self) -> Stopped:
        return Stopped(
            f"stopped after step {self.learner.steps} of {self.learner.total_steps}, state saved; "
            "the same command with --resume goes on"
        )

    def _save(self) -> None:
        run_folder.save_state(self.job.out, {"learner": self.learner.state(), "progress": vars(self.progress)})


def facts_of(learner: Learner, sets: dict[str, Samples], job: TrainingJob) -> RunFacts:
    """Return what stands in ``run.json`` of a run that begins here."""
    recipe, images = learner.recipe, sets["Train"].images
    return RunFacts(
        label=recipe.label, recipe_sha256=recipe.digest, seed=recipe.seed, weights=learner.start,
        lung_channel=lung_channel(recipe, images, job.lung_model),
        data_set=images.source, strata=recipe.data.strata or images.known,
        images={split: len(samples) for split, samples in sets.items()}, limit=job.limit, drop_leaks=job.drop_leaks,
        side=images.side, data_sha256={split: samples.images.digest for split, samples in sets.items()},
        parameters=sum(value.numel() for value in learner.plain.network.parameters()),
        ranks=learner.rank.world, device=learner.rank.device, threads=torch.get_num_threads(),
        torch=torch.__version__, python=platform.python_version(), code_version=code_version(),
    )  # fmt: skip
