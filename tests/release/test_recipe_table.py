"""The table of recipes says what was trained, what was changed, and nothing that was not measured."""

from __future__ import annotations

import json
import shutil

import pytest

pytest.importorskip("albumentations", reason="the train extra is not installed")

from covseg.errors import UsageError
from covseg.evaluation.evaluate import evaluate
from covseg.release.recipe_table import row, table
from covseg.release.release import release
from covseg.settings.evaluate import EvaluateSettings
from covseg.training import run_folder
from covseg.training.job import TrainingJob
from covseg.training.recipe import load_recipe
from covseg.training.train import train

TINY = ("network.kind=plain-unet", "network.widths=[4, 8, 16]", "batch=4", "stop.epochs=1", "input.size=64")


@pytest.fixture(scope="module")
def run(made_set, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "lung"
    settings = (*TINY, "data.targets=['lung']", "stop.metric=val_lung_dice")
    train(load_recipe("unet-small", settings), TrainingJob(made_set, out))
    release(out, out / "model", "tiny-lung")
    evaluate(EvaluateSettings(model=str(out / "model"), data=made_set, output=out / "evaluation", backend="torch"))
    return out


def test_the_budget_names_what_was_changed(run):
    told = row(run)["budget"]
    assert told.startswith("1 of 30 epochs, 20 images, seed 1, cpu; ")
    assert "input.size 64 (recipe: 256)" in told
    assert "batch 4 (recipe: 8)" in told


def test_the_budget_names_what_the_encoder_started_from(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    facts = json.loads((run / run_folder.FACTS).read_text())
    (tmp_path / "run" / run_folder.FACTS).write_text(json.dumps(facts | {"weights": "lung.safetensors, sha256 12ab"}))
    assert "; encoder from lung.safetensors; " in row(tmp_path / "run")["budget"]
    assert "encoder" not in row(run)["budget"]


def test_a_run_that_draws_lungs_only_has_no_infection_numbers(run):
    cells = row(run)
    assert cells["COVID-19 Dice, per image"] == "-"
    assert "n 8" in cells["lung Dice, per image"]


def test_a_run_that_was_not_evaluated_is_named(run, tmp_path):
    with pytest.raises(UsageError, match="wanted a run folder"):
        table([run, tmp_path])
