"""``covseg search``: look for a better recipe in a space; `show` says how a search stands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter
from pydantic import Field

from covseg.settings.search import SearchSettings
from flows.cli.console import note, progress, show, show_json, show_result, table
from flows.cli.examples import ending
from flows.cli.interrupt import on_interrupt
from flows.cli.options import Json, Options, same

if TYPE_CHECKING:
    from workers.search.records import TrialRecord
    from workers.search.run import SearchResult

search = App(name="search", help_epilogue=ending("search"))


class SearchConfig(SearchSettings, Options):
    """What `covseg search` can be told."""

    data: str = Field("", description=same(SearchSettings, "data").description)
    out: Annotated[str, Parameter(name="--output", alias=("-o", "--out"))] = Field(
        "", description=same(SearchSettings, "out").description
    )
    settings: Annotated[tuple[str, ...], Parameter(name="--set", negative="")] = same(SearchSettings, "settings")
    explain: bool = Field(default=False, description="Print the space, its recipe and what it costs; run nothing.")
    json_: Json = False


class ShowConfig(Options):
    """What `covseg search show` can be told."""

    folder: Path = Field(description="Folder of a search.")
    json_: Json = False


@search.default
def run_search(config: SearchConfig) -> int:
    """Train recipes of a space on Ray, more of what does well; Ctrl-C saves, the same command goes on."""
    from covseg.errors import UsageError
    from workers.search.explain import explain
    from workers.search.run import plan_of

    if config.explain:
        show(*explain(plan_of(config), config.trials))
        return 0
    for option in ("data", "out"):
        if not getattr(config, option):
            raise UsageError(f"--{option} is not given: wanted {same(SearchSettings, option).description}")
    result = _run(config)
    show_result(result.model_dump(mode="json"), _headline(result), as_json=config.json_)
    return 0


def _run(config: SearchConfig) -> SearchResult:
    from workers.search.driver import SearchHooks
    from workers.search.run import run

    ended: set[int] = set()
    with progress("trials") as report:

        def changed(record: TrialRecord) -> None:
            if record.state != "running" and record.number not in ended:
                ended.add(record.number)
                note(_line(record))
            report(len(ended), config.trials, f"trial {record.number}: {_value(record)}")

        stop = on_interrupt("stopping the trials, their states are being saved")
        return run(
            SearchSettings(**config.model_dump(include=set(SearchSettings.model_fields))),
            SearchHooks(changed, stop, note),
        )


@search.command(name="show", help_epilogue=ending("search show"))
def show_search(config: ShowConfig) -> int:
    """Show the trials of a search, running or ended."""
    from workers.search.run import result_of

    result, records = result_of(config.folder)
    if config.json_:
        show_json(result.model_dump(mode="json") | {"trials": [record.model_dump(mode="json") for record in records]})
        return 0
    rows = [
        (
            str(one.number),
            one.state,
            _value(one),
            str(one.epochs),
            f"{one.gflop:.2f}",
            f"{one.seconds:.0f}",
            _point(one),
        )
        for one in records
    ]
    show(
        *table(("trial", "state", "value", "epochs", "GFLOP", "seconds", "drawn"), rows, words=2),
        "",
        *_headline(result),
    )
    return 0


def _value(record: TrialRecord) -> str:
    return "-" if record.value is None else f"{record.value:.4f}"


def _point(record: TrialRecord) -> str:
    drawn = ((name, f"{value:.4g}" if isinstance(value, float) else str(value)) for name, value in record.point.items())
    return " ".join(f"{name}={value}" for name, value in drawn)


def _line(record: TrialRecord) -> str:
    return f"trial {record.number} {record.state} {_value(record)} {record.reason or _point(record)}"


def _headline(result: SearchResult) -> list[str]:
    counts = ", ".join(f"{state} {count}" for state, count in result.states.items())
    lines = [f"trials: {counts or 'none'}"]
    if result.best is not None:
        best = f"best: trial {result.best}, {result.metric} {result.value:.4f} on Val, which chose it"
        lines.append(f"{best}; {result.out}/best.toml")
    seeds = f"{result.verdict}" if result.verdict else "One seed each: no result yet"
    lines += [f"{result.registered} is the candidate"] if result.registered else []
    return [
        *lines, f"{result.out}/search.html. {seeds}. Test was not used. Research use only.",
        f"with optuna-dashboard installed: optuna-dashboard {result.storage}",
    ]  # fmt: skip
