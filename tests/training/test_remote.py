"""A run that belongs to a bucket can be cut here and resumed anywhere."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("albumentations", reason="the train extra is not installed")

from covseg.errors import UsageError
from covseg.settings.environment import cache_folder
from covseg.settings.train import TrainSettings
from covseg.storage import entries, open_store
from covseg.training import run_folder
from covseg.training.job import Hooks
from covseg.training.remote import folder_of, pull, pushing
from workers.training_job import run

pytestmark = pytest.mark.service

TINY = ("network.kind=plain-unet", "network.widths=[4, 8, 16]", "batch=4", "stop.epochs=2", "input.size=64")


def settings(made_set: Path, out: str, **changes: object) -> TrainSettings:
    return TrainSettings(recipe="unet-small", data=str(made_set), out=out, settings=TINY, **changes)


def test_a_run_in_a_bucket_is_resumed_on_a_machine_that_never_saw_it(made_set, s3_bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("COVSEG_CACHE", str(tmp_path / "cache"))
    out = f"s3://{s3_bucket}/run"
    run(settings(made_set, str(tmp_path / "whole")))
    with pytest.raises(Exception, match="--resume goes on"):
        run(settings(made_set, out, minutes=1e-9))
    assert {entry.key for entry in entries(open_store(out))} >= {"recipe.json", "last.pt", "run.json"}
    with pytest.raises(UsageError, match="add --resume"):
        run(settings(made_set, out))
    shutil.rmtree(cache_folder() / "runs")
    found = run(settings(made_set, out, resume=True))
    assert found.epochs == 2
    shutil.rmtree(cache_folder() / "runs")
    assert (pull(out) / run_folder.WEIGHTS).read_bytes() == (tmp_path / "whole" / run_folder.WEIGHTS).read_bytes()


def test_what_left_the_bucket_leaves_its_copy(s3_bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("COVSEG_CACHE", str(tmp_path))
    out = f"s3://{s3_bucket}/run"
    open_store(out).write("samples/epoch-01.png", b"film")
    open_store(out).write(".ray/one/last.pt", b"a cluster's")
    folder = pull(out)
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["epoch-01.png"]
    open_store(out).delete("samples/epoch-01.png")
    (folder / "recipe.json").write_text("of a run that somebody deleted")
    assert not [path for path in pull(out).rglob("*") if path.is_file()]


def test_a_folder_is_worked_in_and_sent_nowhere(tmp_path):
    hooks = Hooks()
    assert folder_of(str(tmp_path)) == tmp_path
    assert pushing(hooks, str(tmp_path)) is hooks
