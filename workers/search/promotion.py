"""``--promote``: the finalists of a search beside its recipe on Val, seeds and shifts, and the best as a candidate.

In: the folders of `workers.search.finalists`. Out: ``promotion.json``, and a version in the registry. Whether a
finalist beats the recipe is decided by the paired interval of the difference of COVID-19 Dice per image, the mean over
the seeds of each. Test is not used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from covseg.data import open_set
from covseg.errors import UsageError
from covseg.evaluation.document import read_back
from covseg.evaluation.records import Evaluation, Measured, Number
from covseg.evaluation.twins import read_twins
from covseg.metrics.convention import RATIOS, Empty, ratios
from covseg.metrics.image_results import ImageResults
from covseg.metrics.intervals import Floats, paired, weighted_mean
from covseg.registry import open_model
from covseg.registry import registry as models
from covseg.registry.references import check_name
from covseg.release.card import read_evidence, write_card
from covseg.training import run_folder
from covseg.training.job import TrainingJob
from workers.search.cost import gflop
from workers.search.driver import SearchHooks
from workers.search.finalists import (
    FINALISTS,
    RECIPE,
    UNSEEN,
    Finalist,
    Finish,
    Run,
    finalists_of,
    finish_run,
    runs_of,
    train_finalists,
)  # fmt: skip
from workers.search.plan import SearchPlan
from workers.search.records import SEARCH, TrialRecord

PROMOTION = "promotion.json"
NAN = float("nan")


class Contestant(BaseModel):
    """A finalist or the recipe, over its seeds; Dice and specificity as calibrated, per image of Val.

    Attributes
    ----------
    dice
        COVID-19 Dice of each seed.
    shifted, unseen, twins
        The same under the shifts that a search may select on, under those that nothing has seen, and at real size;
        means over shifts and seeds.
    difference
        Of the mean over seeds, paired with the recipe's; None for the recipe.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    changed: tuple[str, ...]
    gflop: float
    seeds: tuple[int, ...]
    dice: tuple[Number, ...]
    specificity: Number
    shifted: Number
    unseen: Number
    twins: Number
    difference: Measured | None = None

    @property
    def mean(self) -> float:
        """Mean of Dice over the seeds."""
        return float(np.mean(self.dice))


class Promotion(BaseModel):
    """How the finalists did: the recipe first, then by the search's own order; `best` is the finalist of highest mean.

    `run` is its seed in the middle, which is registered: the best seed would be luck.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    contestants: tuple[Contestant, ...]
    best: str
    won: bool
    verdict: str
    run: str
    registered: str | None = None


def promote(
    plan: SearchPlan,
    records: Sequence[TrialRecord],
    job: TrainingJob,
    size: tuple[int, int],
    room: tuple[int, int, float],
    finish: Finish,
    registry: str | None,
    hooks: SearchHooks,
) -> Promotion:
    """Train the finalists, compare them with the recipe, and register the best one where a registry is named.

    Parameters
    ----------
    size, room : tuple
        Finalists and seeds of each; trials at once, and cores and GPUs of each.

    Raises
    ------
    UsageError
        When no trial but the recipe's own is complete.
    Stopped, TrainingFailed
        As `train_finalists`.
    """
    out = job.out
    finalists = finalists_of(plan, records, size[0])
    if len(finalists) == 1:
        raise UsageError(f"{out} has no complete trial but the recipe's own: nothing to promote; more --trials")
    runs = runs_of(finalists, job, size[1])
    train_finalists(runs, finish, *room, hooks)
    found, before = compared(finalists, runs), read_promotion(out)
    if before and before.registered and _same(before, found):
        return before
    if registry:
        run = next(one for one in runs if str(one.job.out.relative_to(out)) == found.run)
        hooks.note(f"registering {found.run}")
        found = found.model_copy(update={"registered": _registered(run, finish, room[1], registry, found.verdict)})
    run_folder.replace(out / PROMOTION, lambda staged: staged.write_text(found.model_dump_json(indent=1)))
    return found


def _same(before: Promotion, found: Promotion) -> bool:
    """Tell whether the finalists did as before; as text, where an absent number is equal to itself."""
    return before.model_copy(update={"registered": None}).model_dump_json() == found.model_dump_json()


def check_promotion(model_name: str, data: Path | None, twins: Path | None, registry: str | None) -> None:
    """Look at what is wanted after the trials, before the first one.

    Raises
    ------
    UsageError
        When the name or the table of twins cannot be taken, or the registry cannot be named.
    StorageUnreachable, StorageDenied
        When the registry does not answer.
    """
    check_name(model_name)
    if twins:
        if data is None:
            raise UsageError("--twins wants --data in a folder, not in a bucket")
        read_twins(twins, open_set(data, "Val"))
    if registry:
        models.open_registry(registry).check()


def search_facts(out: Path, plan: SearchPlan, records: Sequence[TrialRecord]) -> dict[str, object]:
    """Return what a model's card says of the search that chose its recipe."""
    return {
        "id": hashlib.sha256((out / SEARCH).read_bytes()).hexdigest()[:16], "space": plan.space.title,
        "parent": plan.base.label, "trials": len(records),
        "objective": f"{plan.metric} on Val", "test": "Test was not used",
    }  # fmt: skip


def read_promotion(out: Path) -> Promotion | None:
    """Return how the finalists did; None before."""
    path = out / PROMOTION
    return Promotion.model_validate_json(path.read_text()) if path.exists() else None


def compared(finalists: Sequence[Finalist], runs: Sequence[Run]) -> Promotion:
    """Read the evaluations of all runs, and compare each finalist with the recipe."""
    read = {one.name: [(run, *_read(run)) for run in runs if run.job.out.parent.name == one.name] for one in finalists}
    parent = np.mean([_dice(results) for _, _, results in read[RECIPE]], axis=0)
    own = finalists[0].recipe.model_dump(mode="json")
    contestants = []
    for one in finalists:
        seeds = read[one.name]
        dice = [_dice(results) for _, _, results in seeds]
        changes = run_folder.differences(own, one.recipe.model_dump(mode="json"))
        contestants.append(Contestant(
            name=one.name, changed=tuple(f"{name}: {there} -> {here}" for name, there, here in changes),
            gflop=round(gflop(one.recipe), 4), seeds=tuple(run.recipe.seed for run, _, _ in seeds),
            dice=tuple(float(np.nanmean(values)) for values in dice),
            specificity=float(np.mean([_specificity(results) for _, _, results in seeds])),
            shifted=_shifted([record for _, record, _ in seeds], unseen=False),
            unseen=_shifted([record for _, record, _ in seeds], unseen=True),
            twins=_mean([line.covid_dice.value for _, record, _ in seeds for line in record.robustness.twins]),
            difference=None if one.name == RECIPE else _difference(np.mean(dice, axis=0), parent),
        ))  # fmt: skip
    best = max(contestants[1:], key=lambda one: one.mean)
    middle = sorted(zip(best.dice, best.seeds, strict=True))[(len(best.seeds) - 1) // 2][1]
    won = best.difference is not None and best.difference.low > 0
    return Promotion(
        contestants=tuple(contestants), best=best.name, won=won, verdict=_verdict(best, contestants[0], won),
        run=f"{FINALISTS}/{best.name}/seed-{middle}",
    )  # fmt: skip


def _read(run: Run) -> tuple[Evaluation, ImageResults]:
    return read_back(run.job.out / "evaluation")


def _counted(results: ImageResults) -> NDArray[np.bool_]:
    covid = results.strata == "COVID-19"
    return covid if covid.any() else results.positive


def _dice(results: ImageResults) -> Floats:
    counted = results.where(_counted(results))
    return ratios(counted.counts(), Empty.ONE)[:, list(RATIOS).index("dice")]


def _specificity(results: ImageResults) -> float:
    clean = (results.column("fp") == 0) & ~results.refused
    return _mean(clean[~results.positive].astype(float).tolist())


def _shifted(records: Sequence[Evaluation], unseen: bool) -> float:
    lines = (line for record in records for line in record.robustness.shifts)
    return _mean([line.covid_dice.value for line in lines if (line.name in UNSEEN) == unseen])


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else NAN


def _difference(ours: Floats, theirs: Floats) -> Measured:
    one, other = (weighted_mean(values[:, None]) for values in (ours, theirs))
    [found] = paired(one, other, np.zeros(len(ours), np.int64))
    return Measured(value=found.value, low=found.low, high=found.high, n=len(ours))


def _verdict(best: Contestant, parent: Contestant, won: bool) -> str:
    gap = best.difference
    words = "beats the recipe" if won else "does not beat the recipe"
    interval = f"{gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}], n {gap.n}" if gap else "-"
    return (
        f"{best.name} {words} on Val: COVID-19 Dice {best.mean:.3f} against {parent.mean:.3f}, paired difference "
        f"{interval}, means of {len(best.seeds)} seeds; Test was not used"
    )


def _registered(run: Run, finish: Finish, cores: int, registry: str, verdict: str) -> str:
    """Give the model its input filter, judge it again, and make it the candidate."""
    folder = run.job.out / "registered"
    finish_run(run, replace(finish, input_filter=True), cores, folder)
    model = open_model(folder / "model")
    write_card(model, read_evidence(model, folder / "evaluation"))
    store = models.open_registry(registry)
    pushed = models.push(model.path, store, finish.model_name)
    reference = f"{store.url}/{finish.model_name}@{pushed.version.tag}"
    models.promote(reference, "candidate", "covseg search", verdict)
    return reference
