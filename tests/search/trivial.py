"""Trials that train nothing, for what a search costs by itself: a hidden value is written where a training writes it.

    python -m tests.search.trivial SETTINGS PAUSE_S [stepwise]

drives such a search; prints a line a trial that this driver started. A stepwise trial pauses in each epoch, and goes on
where its folder stands.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import sys
import time
from pathlib import Path
from typing import Any

import ray

from covseg.settings.search import SearchSettings
from covseg.training.job import TrainingJob
from covseg.training.recipe import Recipe
from covseg.training.run_folder import replace
from workers.cluster import Handle, connect
from workers.search.driver import Driver, SearchHooks
from workers.search.index import Index, Shared
from workers.search.leases import lease, turn
from workers.search.plan import METRIC
from workers.search.records import TrialRecord, open_search
from workers.search.run import plan_of, search_of
from workers.search.trial import TrialEnd

EPOCHS = 2


def trivial(number: int, recipe: Recipe, job: TrainingJob, cores: int, device: str, board: Handle) -> TrialEnd:
    """Leave the epochs of a training whose value is a function of its learning rate."""
    _leave(recipe, job, EPOCHS)
    with (job.out / "starts").open("a") as file:
        file.write("started\n")
    ray.get(board.post.remote(number, EPOCHS))
    return TrialEnd("done")


def _leave(recipe: Recipe, job: TrainingJob, epochs: int) -> None:
    value = 1 / (1 + abs(recipe.optimiser.lr - 0.003))
    rows = [[epoch, value * epoch / EPOCHS] for epoch in range(1, epochs + 1)]
    text = io.StringIO()
    csv.writer(text).writerows([["epoch", METRIC], *rows])
    replace(job.out / "metrics.csv", lambda staged: staged.write_text(text.getvalue()))


def stepwise(seconds: float) -> Any:
    """Return a trial whose every epoch takes so long; each start leaves the process's id in ``starts``."""

    def trial(number: int, recipe: Recipe, job: TrainingJob, cores: int, device: str, board: Handle) -> TrialEnd:
        with (job.out / "starts").open("a") as file:
            file.write(f"{os.getpid()}\n")
        path = job.out / "metrics.csv"
        for epoch in range(len(path.read_text().splitlines()) if path.exists() else 1, EPOCHS + 1):
            time.sleep(seconds)
            _leave(recipe, job, epoch)
            ray.get(board.post.remote(number, epoch))
        return TrialEnd("done")

    return trial


def paused(seconds: float) -> Any:
    """Return `trivial`, that takes so long."""

    def trial(*given: Any) -> TrialEnd:
        time.sleep(seconds)
        return trivial(*given)

    return trial


def drive(given: SearchSettings, hooks: SearchHooks, task: Any = trivial) -> None:
    """Do what `workers.search.run.run` does, without data."""
    plan, out = plan_of(given), Path(given.out)
    search = search_of(given, plan)
    shared = Shared(given.storage, given.study or out.name, search) if given.storage else None
    with lease(out, shared=shared is not None), connect():
        with turn(out):
            index = Index(out, plan, given.seed, METRIC, given.pruning, shared)
            open_search(out, search)
        job = TrainingJob(data="nowhere", out=out)
        with contextlib.closing(index):
            Driver(plan, job, index, given.trials, given.parallel, 1, 0, hooks, task).drive()


def main() -> None:
    """Drive, and say which trials were started here."""
    told = set[int]()

    def changed(record: TrialRecord) -> None:
        if record.number not in told:
            told.add(record.number)
            print(record.number, flush=True)

    task = stepwise if sys.argv[3:] == ["stepwise"] else paused
    drive(SearchSettings.model_validate_json(sys.argv[1]), SearchHooks(changed), task(float(sys.argv[2])))


if __name__ == "__main__":
    main()
