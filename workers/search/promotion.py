"""``--promote``: the finalists of a search beside its recipe on Val, seeds and shifts, and the best as a candidate.

In: the folders of `workers.search.finalists`. Out: ``promotion.json``, and a version in the registry. Whether a
finalist beats the recipe is decided in `workers.search.contest`. Test is not used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from covseg.data import open_set
from covseg.errors import UsageError
from covseg.evaluation.twins import read_twins
from covseg.registry import open_model
from covseg.registry import registry as models
from covseg.registry.references import check_name
from covseg.release.card import read_evidence, write_card
from covseg.training import run_folder
from covseg.training.job import TrainingJob
from workers.search.contest import Promotion, compared
from workers.search.driver import SearchHooks
from workers.search.finalists import Finish, Run, finalists_of, finish_run, runs_of, train_finalists
from workers.search.plan import SearchPlan
from workers.search.records import SEARCH, TrialRecord

PROMOTION = "promotion.json"


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
