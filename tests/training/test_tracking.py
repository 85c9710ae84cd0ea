"""Epochs told to MLflow and to Weights & Biases, both on this machine's disk alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from covseg.errors import UsageError
from covseg.training.recipe import load_recipe
from covseg.training.tracking import epochs_to

ROWS = [
    {"epoch": 1.0, "train_loss": 0.5, "val_dice": 0.25},
    {"epoch": 2.0, "train_loss": 0.4, "val_dice": float("nan")},
]


def test_mlflow_has_each_epoch_and_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri(tmp_path.as_uri())
    told = epochs_to("mlflow", load_recipe("unet-small"))
    for row in ROWS:
        told(row, tmp_path)
    run = mlflow.active_run().info.run_id
    mlflow.end_run()
    client = mlflow.MlflowClient()
    assert [point.value for point in client.get_metric_history(run, "train_loss")] == [0.5, 0.4]
    assert [point.step for point in client.get_metric_history(run, "val_dice")] == [1]
    assert client.get_run(run).info.run_name == "unet-small"
    assert [one.path for one in client.list_artifacts(run)] == ["recipe.json"]


def test_weights_and_biases_keeps_each_epoch_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb", reason="Weights & Biases is not installed")
    for name, value in {"WANDB_MODE": "offline", "WANDB_DIR": str(tmp_path), "WANDB_SILENT": "true"}.items():
        monkeypatch.setenv(name, value)
    told = epochs_to("wandb", load_recipe("unet-small"))
    for row in ROWS:
        told(row, tmp_path)
    assert wandb.run.summary["train_loss"] == 0.4 and wandb.run.name == "unet-small"
    wandb.finish()
    assert list(tmp_path.rglob("run-*.wandb"))


def test_a_tracker_that_is_not_there_says_how_to_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(UsageError, match="mlflow is not installed, wanted beside covseg: pip install mlflow"):
        epochs_to("mlflow", load_recipe("unet-small"))
    epochs_to("none", load_recipe("unet-small"))(ROWS[0], Path())
