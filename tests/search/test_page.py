"""What a person sees of a search: the page, the table and the index, made of records alone; no training."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
optuna = pytest.importorskip("optuna", reason="the search extra is not installed")

from covseg.settings.search import SearchSettings
from flows.cli import app as cli
from workers.search.index import Halving, Index
from workers.search.plan import METRIC
from workers.search.records import TrialRecord, open_search, read_trials, trial_folder, write_trial
from workers.search.run import _finish, plan_of, search_of

VALUES = [0.5, 0.6, 0.4, 0.7, 0.55, 0.65, 0.3, 0.62]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search whose trials were made up: the higher the number of epochs, the nearer to its value."""
    out = tmp_path_factory.mktemp("search")
    given = SearchSettings(space="unet-small-sweeps", data="nowhere", out=str(out))
    plan = plan_of(given)
    open_search(out, search_of(given, plan))
    for number, (point, value) in enumerate(zip(plan.first, VALUES, strict=False)):
        state = "pruned" if value < 0.5 else "complete"
        record = TrialRecord(number=number, state=state, point=point, value=value, epochs=30, gflop=1.0 + number)
        write_trial(out, record, plan.at(point))
        with (trial_folder(out, number) / "metrics.csv").open("w") as file:
            rows = csv.writer(file)
            rows.writerow(["epoch", METRIC])
            rows.writerows([epoch, value * epoch / 30] for epoch in range(1, 11 if state == "pruned" else 31))
    _finish(out, plan, Index(out, plan, 1, METRIC, pruning=True))
    return out


def test_the_page_is_one_file_with_every_trial_and_says_that_test_was_not_used(ended: Path) -> None:
    page = (ended / "search.html").read_text()
    assert "Test was not used" in page and "Research use only" in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert page.count("<tr") == 1 + len(read_trials(ended))
    for words in ("What decided (PED-ANOVA)", "Learning curves", "Value against cost", "Value against time",
                  "Along optimiser.lr", "trial 3"):  # fmt: skip
        assert words in page
    assert "GFLOP" in page and "#   batch: 8 -&gt; 16" in page, "the best one's difference"


def test_show_lists_the_trials_and_the_best(ended: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["search", "show", str(ended)]) == 0
    shown = capsys.readouterr().out
    assert "best: trial 3, val_operating_dice 0.7000 on Val" in shown and "Test was not used" in shown
    assert cli.run(["search", "show", str(ended), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["best"], found["states"], len(found["trials"])) == (3, {"complete": 5, "pruned": 2}, 7)
    assert cli.run(["search", "show", str(ended.parent)]) == 2


def test_the_best_recipe_trains_and_names_what_it_changes(ended: Path) -> None:
    from covseg.training.recipe import load_recipe

    assert "#   batch: 8 -> 16" in (ended / "best.toml").read_text()
    assert load_recipe(ended / "best.toml").batch == 16


def test_explain_says_what_it_costs_and_runs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["search", "unet-small-sweeps", "--explain"]) == 0
    shown = capsys.readouterr().out
    assert "7 trials" in shown and "GFLOP an image, 30 epochs" in shown
    assert cli.run(["search", "unet-small-sweeps", "--out", str(tmp_path / "out")]) == 2
    assert not (tmp_path / "out").exists()


def test_halving_keeps_the_best_half_at_a_ninth_the_best_third_later_and_always_the_first() -> None:
    study = optuna.create_study(direction="maximize", pruner=Halving())
    pruned = []
    for early, late in ((0.5, 0.5), (0.6, 0.6), (0.4, 0.9), (0.55, 0.55), (0.7, 0.7), (0.65, 0.58)):
        trial = study.ask()
        trial.report(early / 2, 50)
        assert not trial.should_prune(), "no rung was passed"
        trial.report(early, 200)
        first = trial.should_prune()
        trial.report(early, 300)
        assert not trial.should_prune(), "judged once at a rung"
        trial.report(late, 350)
        pruned.append((first, trial.should_prune()))
    assert [first for first, _ in pruned] == [False, False, True, False, False, False]
    assert [second for _, second in pruned] == [False, False, False, True, True, True], "whatever came so far counts"
