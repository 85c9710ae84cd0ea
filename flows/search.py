"""Flow `search`: look for a better recipe in a space; ``covseg search`` under Prefect.

Its parameters are the fields of `covseg.settings.search.SearchSettings`. What stands in Prefect is counts, the best
value and links: no pixels, no keys, no names of images. Run it here with
``python -m flows.search SPACE --data ROOT --out DIR``; ``covseg deploy`` deploys it.

Cancelling sends SIGTERM to the flow's process; its trials go down with it, and their last states stay.
"""

from __future__ import annotations

import sys
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run as current_run

from covseg.errors import UsageError
from covseg.settings.search import SearchSettings
from flows.artifacts import show_link, show_progress, show_text, start_progress, throttled
from flows.main import logged_when_stopped, main
from flows.parameters import take
from flows.redaction import redact
from workers.search.driver import SearchHooks
from workers.search.records import TrialRecord
from workers.search.run import PAGE, SearchResult
from workers.search.run import run as run_search
from workers.search.storage import has_password

KEPT = "the trials' last states are kept; run the flow again with the same parameters to go on"
STOPPED = [logged_when_stopped(KEPT)]


@task(name="search", cache_policy=NO_CACHE)  # no retries: the driver starts trials again, and the same run goes on
@redact
def search_space(settings: SearchSettings) -> SearchResult:
    """Run the trials on Ray."""
    artifact = start_progress("search-progress", settings.space)
    result = run_search(settings, _hooks(artifact, settings.trials))
    show_progress(artifact, 100.0, f"trials: {_counts(result)}")
    return result


def _hooks(artifact: Any, trials: int) -> SearchHooks:
    logger, update, ended = get_run_logger(), throttled(artifact), set[int]()

    def changed(record: TrialRecord) -> None:
        value = "-" if record.value is None else f"{record.value:.4f}"
        if record.state != "running":
            ended.add(record.number)
            logger.info("trial %d %s: %s", record.number, record.state, value)
        update(100 * len(ended) / trials, f"{len(ended)} of {trials} trials, trial {record.number}: {value}")

    return SearchHooks(changed, note=logger.info)


def _counts(result: SearchResult) -> str:
    return ", ".join(f"{state} {count}" for state, count in result.states.items())


def _name() -> str:
    return f"search {current_run.parameters['space']}"


@flow(name="search", flow_run_name=_name, persist_result=False, on_cancellation=STOPPED, on_crashed=STOPPED)
@take(SearchSettings)
def search(**parameters: Any) -> dict[str, Any]:
    """Look for a better recipe in a space, by trials on Ray; chosen on Val."""
    settings = SearchSettings(**parameters)
    if settings.storage and has_password(settings.storage):
        raise UsageError("storage has a password, and a run's parameters stand in Prefect: PGPASSWORD or ~/.pgpass")
    result = search_space(settings)
    best = "none" if result.best is None else f"trial {result.best}, {result.metric} {result.value:.4f} on Val"
    show_text(
        [f"trials: {_counts(result)}", "", f"best: {best}; Test was not used.", result.verdict],
        "search-result",
        result.metric,
    )
    show_link(f"{result.out}/{PAGE}", "page", "search-page")
    return result.model_dump(mode="json")


if __name__ == "__main__":
    sys.exit(main(search, SearchSettings, KEPT))
