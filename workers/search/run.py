"""A search by its settings: the entry point of command and flow."""

from __future__ import annotations

import json
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
from workers.search.finalists import Finish
from workers.search.index import Index, Shared, where
from workers.search.leases import lease, turn
from workers.search.page import render_search
from workers.search.parameters import Point
from workers.search.plan import METRICS, SearchPlan, as_toml
from workers.search.promotion import check_promotion, promote, read_promotion, search_facts
from workers.search.records import SEARCH, TrialRecord, open_search, read_trials, trial_recipe
from workers.search.space import Space, load_space
from workers.search.storage import check_storage

BEST, PAGE = "best.toml", "search.html"


class SearchResult(BaseModel):
    """What a search came to: trials by state, and the best complete one; `value` is of Val, chosen on Val.

    `storage` is where its study lies, without a password; `verdict` and `registered` are of the finalists, where there
    were any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    out: str
    metric: str
    states: dict[str, int]
    best: int | None
    value: float | None
    storage: str
    verdict: str = ""
    registered: str | None = None


def plan_of(settings: SearchSettings) -> SearchPlan:
    """Return what is searched; `UsageError` where space or recipe cannot be read."""
    space = load_space(settings.space)
    recipe, metric = settings.recipe or space.recipe, METRICS[settings.objective]
    listed = _listed(Path(settings.like), space) if settings.like else ()
    return SearchPlan(space, recipe, settings.settings, settings.budget, metric, listed)


def _listed(folder: Path, space: Space) -> tuple[Point, ...]:
    """Return the configurations of another search, in its order."""
    if not (folder / SEARCH).is_file():
        raise UsageError(f"--like {folder} holds no search: wanted the --out of a covseg search")
    trees = json.loads((folder / SEARCH).read_text())["space"], space.model_dump(mode="json", by_alias=True)
    theirs, ours = (dict(enumerate(tree["parameter"], 1)) for tree in trees)
    for place in sorted(theirs | ours):
        if theirs.get(place) != ours.get(place):
            raise UsageError(
                f"--like {folder} is of another space: parameter {place} is {theirs.get(place)} there, "
                f"{ours.get(place)} here"
            )
    if listed := tuple(record.point for record in read_trials(folder)):
        return listed
    raise UsageError(f"--like {folder} has no trial: wanted a search that has begun some")


def run(settings: SearchSettings, hooks: SearchHooks | None = None) -> SearchResult:
    """Run a search, or go on with the one in `out`; on the cluster of ``RAY_ADDRESS``, or on one started here.

    Raises
    ------
    UsageError
        Before the first trial: a space that the recipe does not take, no data, a storage that cannot be reached, a
        folder or study of another search, or a folder with another driver and no storage that they share.
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
    shared = _shared(settings, out, plan)
    preflight(base, job)
    if settings.promote:
        check_promotion(settings.name or base.name, local_path(settings.data), _twins(settings), settings.registry)
    with lease(out, shared=shared is not None):
        if (out / SEARCH).exists():
            open_search(out, search_of(settings, plan))
        with connect():
            cores = cores_each(settings.parallel, settings.gpus, what="trials")
            with turn(out):
                index = Index(out, plan, settings.seed, plan.metric, settings.pruning, shared)
                open_search(out, search_of(settings, plan))
            count = plan.count(settings.trials)
            driver = Driver(plan, job, index, count, settings.parallel, cores, settings.gpus, hooks or SearchHooks())
            try:
                driver.drive()
                if settings.promote:
                    _promote(settings, plan, job, cores, driver.hooks)
            finally:
                result = _finish(out, plan, index)
                index.close()
    return result


def _promote(settings: SearchSettings, plan: SearchPlan, job: TrainingJob, cores: int, hooks: SearchHooks) -> None:
    records = read_trials(job.out)
    name = settings.name or plan.base.name
    finish = Finish(name, search_facts(job.out, plan, records), _twins(settings))
    size, room = (settings.promote, settings.promote_seeds), (settings.parallel, cores, settings.gpus)
    with turn(job.out):  # of several drivers one promotes, and the others find it done
        promote(plan, records, job, size, room, finish, settings.registry, hooks)


def _twins(settings: SearchSettings) -> Path | None:
    return Path(settings.twins).absolute() if settings.twins else None


def _shared(settings: SearchSettings, out: Path, plan: SearchPlan) -> Shared | None:
    if settings.storage is None:
        return None
    check_storage(settings.storage)
    return Shared(settings.storage, settings.study or out.name, search_of(settings, plan))


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
        **({"listed": list(plan.listed)} if plan.listed else {}),
    }  # fmt: skip


def result_of(folder: Path) -> tuple[SearchResult, list[TrialRecord]]:
    """Return what a search came to so far, and its trials; it may run meanwhile.

    Raises
    ------
    UsageError
        When there is no search in the folder.
    """
    if not (folder / SEARCH).is_file():
        raise UsageError(f"{folder} holds no search: wanted the --out of a covseg search")
    metric = json.loads((folder / SEARCH).read_text())["recipe"]["stop"]["metric"]
    records = read_trials(folder)
    best = best_of(records)
    states = dict(Counter(record.state for record in records))
    number, value = (best.number, best.value) if best else (None, None)
    result = SearchResult(
        out=str(folder), metric=metric, states=states, best=number, value=value, storage=where(folder)
    )
    if promotion := read_promotion(folder):
        result = result.model_copy(update={"verdict": promotion.verdict, "registered": promotion.registered})
    return result, records


def _finish(out: Path, plan: SearchPlan, index: Index) -> SearchResult:
    """Write the best trial's recipe with what it changes, and the page."""
    result, records = result_of(out)
    if best := best_of(records):
        recipe = trial_recipe(out, best.number)
        changed = differences(plan.base.model_dump(mode="json"), recipe.model_dump(mode="json"))
        head = [f"# Trial {best.number}, {plan.metric} {best.value:.4f} on Val, which chose it. Changed in {plan.ref}:"]
        lines = [f"#   {name}: {there} -> {here}" for name, there, here in changed] or ["#   nothing"]
        replace(out / BEST, lambda staged: staged.write_text("\n".join([*head, *lines, "", as_toml(recipe)])))
    page = render_search(out, plan, records, best, index.importances(), read_promotion(out))
    replace(out / PAGE, lambda staged: staged.write_bytes(page))
    return result


def best_of(records: list[TrialRecord]) -> TrialRecord | None:
    """Return the complete trial with the highest value, the first among equals; None without one."""
    done = [record for record in records if record.state == "complete" and record.value is not None]
    return max(done, key=lambda record: (record.value or 0.0, -record.number), default=None)
