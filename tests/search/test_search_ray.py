"""A search on a real Ray cluster, on phantoms of 64 pixels with a small network."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("albumentations", reason="the train extra is not installed")
pytest.importorskip("optuna", reason="the search extra is not installed")

from covseg.errors import EnvironmentFailed, Stopped, TrainingFailed, UsageError
from covseg.settings.search import SearchSettings
from covseg.training.recipe import load_recipe
from covseg.training.run_folder import load_state, read_rows
from tests.search.conftest import SPACE, TINY
from workers.search.driver import SearchHooks
from workers.search.index import Index
from workers.search.plan import METRIC, as_toml
from workers.search.records import TrialRecord, read_trials, trial_folder, trial_recipe
from workers.search.run import plan_of, run

OF_RAY = r"ignore::DeprecationWarning:ray\.data"
pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings(OF_RAY)]
FEW = 12  # images of each split where nothing has to be learnt


def settings(space: Path, labelled: Path, **changes: Any) -> SearchSettings:
    given = {"trials": 6, "parallel": 2, "out": str(space.parent / "out"), "recipe": str(space.parent / "recipe.toml")}
    return SearchSettings(**{"space": str(space), "data": str(labelled)} | given | changes)


def out_of(given: SearchSettings) -> Path:
    return Path(given.out)


def index(given: SearchSettings) -> Index:
    return Index(out_of(given), plan_of(given), given.seed, METRIC, given.pruning)


def kept(given: SearchSettings) -> list[tuple[object, ...]]:
    """Return what the study knows of every trial."""
    trials = index(given).study.get_trials()
    return [(one.number, one.state, one.params, one.value, one.intermediate_values) for one in trials]


@pytest.fixture(scope="module")
def searched(ray_cluster: str, labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> SearchSettings:
    """A search of six trials that nobody disturbed."""
    folder = tmp_path_factory.mktemp("searched")
    (folder / "recipe.toml").write_text(as_toml(load_recipe("unet-small", TINY)))
    (folder / "space.toml").write_text(SPACE)
    given = settings(folder / "space.toml", labelled)
    result = run(given)
    assert sum(result.states.values()) == 6 and set(result.states) <= {"complete", "pruned"}
    assert result.value == max(one.value or 0 for one in read_trials(out_of(given)) if one.state == "complete")
    return given


def test_a_trial_is_an_ordinary_run_with_its_recipe(searched: SearchSettings) -> None:
    out = out_of(searched)
    records = read_trials(out)
    assert [record.number for record in records] == list(range(6))
    assert trial_recipe(out, 0) == plan_of(searched).base, "the recipe itself comes first"
    for record in records:
        folder = trial_folder(out, record.number)
        assert {"recipe.json", "run.json", "metrics.csv", "last.pt", "weights.safetensors"} <= {
            one.name for one in folder.iterdir()
        }
        rows = read_rows(folder)
        assert record.value == max(row[METRIC] for row in rows)
        assert len(rows) == record.epochs or record.state == "pruned"
    assert load_recipe(out / "best.toml").stop.metric == METRIC


def test_the_state_of_a_pruned_trial_is_saved(searched: SearchSettings) -> None:
    pruned = [record for record in read_trials(out_of(searched)) if record.state == "pruned"]
    assert pruned, "of six trials at least one lags behind the best third"
    for record in pruned:
        progress = load_state(trial_folder(out_of(searched), record.number))["progress"]  # type: ignore[index]
        assert (progress["epoch"], progress["step"]) == (
            len(read_rows(trial_folder(out_of(searched), record.number))),
            1,
        )
        assert progress["epoch"] < record.epochs


def test_the_index_made_of_the_folders_is_equal(searched: SearchSettings) -> None:
    before = kept(searched)
    (out_of(searched) / "study.db").write_bytes(b"no database")
    assert kept(searched) == before
    (out_of(searched) / "study.db").unlink()
    assert kept(searched) == before


def test_the_same_seed_draws_the_same_recipes_and_more_trials_go_on(
    searched: SearchSettings, space: Path, labelled: Path
) -> None:
    given = settings(space, labelled, trials=3, limit=FEW)
    run(given)
    assert [one.point for one in read_trials(out_of(given))] == [one.point for one in read_trials(out_of(searched))][:3]
    run(given.model_copy(update={"trials": 4}))
    assert [one.number for one in read_trials(out_of(given))] == [0, 1, 2, 3]
    with pytest.raises(UsageError, match=r"holds a search whose budget is 1\.0, here it is 2\.0"):
        run(given.model_copy(update={"budget": 2.0}))


def test_a_search_that_is_stopped_goes_on_where_it_stood(ray_cluster: str, space: Path, labelled: Path) -> None:
    given, seen = settings(space, labelled, trials=3, pruning=False, limit=FEW), []

    def changed(record: TrialRecord) -> None:
        seen.append(record)

    with pytest.raises(Stopped, match="the same command goes on"):
        run(given, SearchHooks(changed, stop=lambda: any(one.value is not None for one in seen)))
    stood = {one.number: len(read_rows(trial_folder(out_of(given), one.number))) for one in read_trials(out_of(given))}
    assert len(stood) == 2 and max(stood.values()) >= 1
    assert {one.state for one in read_trials(out_of(given))} == {"running"}
    assert run(given).states == {"complete": 3}


def test_what_cannot_be_searched_leaves_nothing(ray_cluster: str, space: Path, labelled: Path, tmp_path: Path) -> None:
    for wrong, words in (
        ({"data": str(tmp_path / "nowhere")}, "nowhere"),
        ({"settings": ("optimiser.lr=1",)}, "the space searches"),
        ({"recipe": "nothing"}, "no recipe"),
        ({"out": "s3://bucket/search"}, "wanted a folder"),
    ):
        with pytest.raises(UsageError, match=words):
            run(settings(space, labelled, **wrong))
    with pytest.raises(EnvironmentFailed, match="3 trials do not fit"):
        run(settings(space, labelled, parallel=3))
    with pytest.raises(EnvironmentFailed, match="1 trials with 1 GPUs each do not fit"):
        run(settings(space, labelled, parallel=1, gpus=1))
    assert not (tmp_path / "out").exists()


def test_trials_that_fail_have_a_reason_and_five_in_a_row_end_the_search(
    ray_cluster: str, space: Path, labelled: Path
) -> None:
    given = settings(space, labelled, settings=("loss.pos_weight=1e39",), trials=9, limit=FEW)
    with pytest.raises(TrainingFailed, match="5 trials in a row failed, the last with: loss is"):
        run(given)
    failed = read_trials(out_of(given))
    assert {one.state for one in failed} == {"failed"} and all("loss is" in one.reason for one in failed)


def start(given: SearchSettings) -> subprocess.Popen[bytes]:
    code = "import sys; from covseg.settings.search import SearchSettings as S; from workers.search.run import run; "
    code += "run(S.model_validate_json(sys.argv[1]))"
    return subprocess.Popen([sys.executable, "-c", code, given.model_dump_json()])


def until(true: Any, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)


def test_a_driver_that_is_killed_goes_on_and_a_second_one_is_refused(
    ray_cluster: str, searched: SearchSettings, space: Path, labelled: Path
) -> None:
    given = settings(space, labelled, trials=4, pruning=False, parallel=1, limit=FEW)
    out = out_of(given)
    driver = start(given)
    until(lambda: (trial_folder(out, 1) / "metrics.csv").exists(), driver)
    with pytest.raises(UsageError, match=f"is driven by process {driver.pid} on .*one driver a search"):
        run(given)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    ended = {one.number: one for one in read_trials(out) if one.state == "complete"}
    assert set(ended) == {0}
    assert run(given).states == {"complete": 4}
    after = read_trials(out)
    assert after[0] == ended[0], "a finished trial stays as it was"
    assert [one.number for one in after] == [0, 1, 2, 3]
    assert [one.point for one in after[:3]] == [one.point for one in read_trials(out_of(searched))][:3]
    assert [row[0] for row in kept(given)] == [0, 1, 2, 3]


def test_a_trial_whose_process_is_killed_is_tried_once_more(ray_cluster: str, space: Path, labelled: Path) -> None:
    from tests.test_scoring_ray import pids

    given = settings(space, labelled, trials=1, parallel=1, pruning=False, limit=FEW)
    killed: list[int] = []

    def kill(record: TrialRecord) -> None:
        if record.value is not None and not killed:
            killed.extend(pids("run_trial"))
            os.kill(killed[0], signal.SIGKILL)

    assert run(given, SearchHooks(kill)).states == {"complete": 1}
    assert killed and read_trials(out_of(given))[0].crashes == 1
    assert json.loads((out_of(given) / "search.json").read_text())["budget"] == 1.0
