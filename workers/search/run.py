"""A search by its settings: the entry point of command and flow."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from covseg.errors import UsageError
from covseg.registry.registry import pinned
from covseg.settings.search import SearchSettings
from covseg.storage import local_path
from covseg.training.job import TrainingJob
from covseg.training.preflight import preflight
from covseg.training.ranks import default_workers
from covseg.training.run_folder import differences, replace
from workers.cluster import connect, cores_each
from workers.search.driver import Driver, SearchHooks
from workers.search.index import Index
from workers.search.plan import METRIC, SearchPlan, as_toml
from workers.search.records import TrialRecord, lease, open_search, read_trials, trial_recipe
from workers.search.space import load_space

BEST = "best.toml"


class SearchResult(BaseModel):
    """What a search came to: trials by state, and the best complete one; `value` is of Val, chosen on Val."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    out: str
    metric: str
    states: dict[str, int]
    best: int | None
    value: float | None


def plan_of(settings: SearchSettings) -> SearchPlan:
    """Return what is searched; `UsageError` where space or recipe cannot be read."""
    space = load_space(settings.space)
    return SearchPlan(space, settings.recipe or space.recipe, settings.settings, settings.budget)


def run(settings: SearchSettings, hooks: SearchHooks | None = None) -> SearchResult:
    """Run a search, or go on with the one in `out`; on the cluster of ``RAY_ADDRESS``, or on one started here.

    Raises
    ------
    UsageError
        Before the first trial: a space that the recipe does not take, no data, a folder of another search or with
        another driver.
    EnvironmentFailed
        When the cluster has no room for the trials.
    Stopped, TrainingFailed
        As `Driver.drive`.
    """
    plan = plan_of(settings)
    plan.check()
    folder = local_path(settings.out)
    if folder is None:
        raise UsageError(f"--out {settings.out}: wanted a folder that all machines share, not a bucket")
    out, base = folder.absolute(), plan.base
    job = _job(settings, out, plan)
    preflight(base, job)
    with lease(out):
        if (out / "search.json").exists():
            open_search(out, search_of(settings, plan))
        with connect():
            cores = cores_each(settings.parallel, settings.gpus, what="trials")
            open_search(out, search_of(settings, plan))
            index = Index(out, plan, settings.seed, METRIC, settings.pruning)
            count = plan.count(settings.trials)
            driver = Driver(plan, job, index, count, settings.parallel, cores, settings.gpus, hooks or SearchHooks())
            driver.drive()
    return finish(out, plan)


def _job(settings: SearchSettings, out: Path, plan: SearchPlan) -> TrainingJob:
    data = local_path(settings.data)
    loaders = default_workers("cuda" if settings.gpus else "cpu") if settings.loaders is None else settings.loaders
    return TrainingJob(
        data=settings.data if data is None else data.absolute(), out=out, limit=settings.limit,
        lung_model=pinned(settings.lung_model) if plan.base.input.sees_lung else settings.lung_model,
        drop_leaks=settings.drop_leaks, workers=loaders,
    )  # fmt: skip


def search_of(settings: SearchSettings, plan: SearchPlan) -> dict[str, object]:
    """Return all that decides what trials there are: a search goes on with the same."""
    return {
        "recipe": plan.base.model_dump(mode="json"),
        "space": plan.space.model_dump(mode="json", by_alias=True),
        **settings.model_dump(mode="json", include={"data", "budget", "pruning", "seed", "limit", "drop_leaks"}),
        "lung_model": settings.lung_model,
    }  # fmt: skip


def finish(out: Path, plan: SearchPlan) -> SearchResult:
    """Write the best trial's recipe, and return what the search came to."""
    records = read_trials(out)
    best = best_of(records)
    if best:
        recipe = trial_recipe(out, best.number)
        changed = [f"# {name}: {there} -> {here}" for name, there, here in differences(
            plan.base.model_dump(mode="json"), recipe.model_dump(mode="json")
        )]  # fmt: skip
        lines = [f"# Trial {best.number}, {METRIC} {best.value:.4f} on Val, which chose it. Changed in {plan.ref}:"]
        text = "\n".join([*lines, *(changed or ["# nothing"]), as_toml(recipe)])
        replace(out / BEST, lambda staged: staged.write_text(text))
    return SearchResult(
        out=str(out), metric=METRIC, states=dict(Counter(record.state for record in records)),
        best=best and best.number, value=best and best.value,
    )  # fmt: skip


def best_of(records: list[TrialRecord]) -> TrialRecord | None:
    """Return the complete trial with the highest value, the first among equals; None without one."""
    done = [record for record in records if record.state == "complete" and record.value is not None]
    return max(done, key=lambda record: (record.value or 0.0, -record.number), default=None)
