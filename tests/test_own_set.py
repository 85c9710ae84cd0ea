"""A site's own set, images and masks alone: from no table and no lung masks to an evaluated model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from covseg.data import open_set
from covseg.synthetic.phantom.writer import write_dataset
from flows.cli import app as cli

pytest.importorskip("torch")
pytest.importorskip("albumentations", reason="the train extra is not installed")

TINY = ("--set", "stop.epochs=1", "--set", "input.size=64", "--set", "input.view=32", "--set", "batch=8")


@pytest.fixture(scope="module")
def own_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of phantoms with infection masks; no lung masks, no labels.csv."""
    made, root = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("site") / "own"
    write_dataset(made, {"Train": 48}, size=128)
    for folder, of in (("images", "images"), ("masks", "infection masks")):
        (root / folder).mkdir(parents=True)
        for path in sorted(made.rglob(f"{of}/*.png")):
            path.rename(root / folder / f"{path.parents[1].name}-{path.name}")
    return root


@pytest.fixture
def labelled(own_set: Path) -> Path:
    (own_set / "labels.csv").unlink(missing_ok=True)
    assert cli.run(["data", "labels", str(own_set)]) == 0
    return own_set


def test_a_missing_table_is_offered_and_the_offered_one_opens(
    own_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["data", "check", str(own_set), "-o", str(tmp_path / "check")]) == 2
    said = capsys.readouterr().err
    assert "no labels.csv: wanted the line film,stratum,split" in said and f"covseg data labels {own_set}" in said
    assert cli.run(["data", "labels", str(own_set), "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("film,stratum,split\n") and not (own_set / "labels.csv").exists()
    assert cli.run(["data", "labels", str(own_set), "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)["counts"]
    assert counts == {"Train clear": 18, "Val clear": 6, "Train infected": 18, "Val infected": 6}
    assert open_set(own_set, "Val").counts == {"clear": 6, "infected": 6}
    assert cli.run(["data", "labels", str(own_set)]) == 2  # never over a table that somebody filled in
    assert "is there already" in capsys.readouterr().err
    assert cli.run(["data", "check", str(own_set), "-o", str(tmp_path / "check")]) == 0


def test_a_recipe_that_learns_lungs_says_what_it_lacks_and_leaves_no_folder(
    labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", str(labelled), "-o", str(tmp_path / "run")]
    assert cli.run(["train", "lungs", *words]) == 2
    said = capsys.readouterr().err
    assert "has no lung mask" in said and "add the folder lung masks/" in said
    assert cli.run(["train", "unet-small", *words, "--set", "stop.metric=val_nothing"]) == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.timeout(1200)  # four commands that learn or score, on a machine that may be busy
def test_the_default_recipe_goes_from_images_and_masks_to_an_evaluated_model(
    labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, model, data = str(tmp_path / "run"), tmp_path / "model", ("--data", str(labelled))
    assert cli.run(["train", "fast", *data, "-o", run, *TINY]) == 0
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["lung_channel"].startswith("predicted by fast-3")
    assert cli.run(["models", "release", run, "-o", str(model), *data, "--lung-model", "benchmark"]) == 2
    assert "name that --lung-model" in capsys.readouterr().err and not model.exists()
    assert cli.run(["models", "release", run, "-o", str(model), *data]) == 0
    assert cli.run(["models", "fit-filter", str(model), *data, "--images", "20", "--members", "4"]) == 0
    assert cli.run(["calibrate", str(model), *data, "-o", str(tmp_path / "calibration")]) == 0
    capsys.readouterr()
    assert cli.run(["evaluate", str(model), *data, "-o", str(tmp_path / "evaluation"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["data"]["films"] == 12
    assert cli.run(["models", "card", str(model), "--evaluation", str(tmp_path / "evaluation")]) == 0
    card = (model / "card.md").read_text()
    assert "lungs predicted by fast-3" in card
