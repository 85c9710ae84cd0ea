"""The mean of several runs' weights: what it is made of, and that its batch statistics are its own."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("albumentations", reason="the train extra is not installed")

from safetensors.torch import load_file

from covseg.errors import UsageError
from covseg.training import run_folder
from covseg.training.average import average
from covseg.training.job import TrainingJob
from covseg.training.learner import Learner
from covseg.training.ranks import Rank
from covseg.training.recipe import Recipe, load_recipe
from covseg.training.train import train

TINY = (
    "network.kind=unet", "network.encoder=resnet18", "network.widths=[]", "input.size=64", "batch=8", "stop.epochs=1",
)  # fmt: skip


def tiny(*settings: str) -> Recipe:
    return load_recipe("unet-small", [*TINY, *settings])


def run(folder: Path, root: Path, *settings: str) -> Path:
    train(tiny(*settings), TrainingJob(root, folder))
    return folder


def test_the_mean_of_two_runs_is_halfway_between_them_and_has_statistics_of_its_own(made_set, tmp_path):
    runs = [run(tmp_path / str(seed), made_set, f"seed={seed}") for seed in (1, 2)]
    average(runs, made_set, tmp_path / "mean.safetensors")
    one, other = (load_file(folder / run_folder.WEIGHTS) for folder in runs)
    mean = load_file(tmp_path / "mean.safetensors")
    learnt = [name for name in one if "running_" not in name and "num_batches" not in name]
    taken = [name for name in one if "running_" in name]
    assert learnt
    assert taken
    for name in learnt:
        assert torch.allclose(mean[name].float(), (one[name].float() + other[name].float()) / 2, atol=2e-3), name
    assert any(
        not torch.allclose(mean[name].float(), (one[name].float() + other[name].float()) / 2, atol=1e-2)
        for name in taken
    )
    further = Learner(tiny(f"network.weights={tmp_path / 'mean.safetensors'}"), Rank(), 1)
    assert further.start.startswith("mean.safetensors, sha256 ")
    assert torch.equal(further.plain.network.state_dict()[learnt[-1]], mean[learnt[-1]].float())


def test_runs_that_cannot_be_averaged_are_refused_with_the_difference(made_set, tmp_path):
    one = run(tmp_path / "one", made_set)
    wider = run(tmp_path / "wider", made_set, "network.encoder=resnet34")
    target = tmp_path / "mean.safetensors"
    with pytest.raises(UsageError, match="1 run given: the mean needs two or more"):
        average([one], made_set, target)
    with pytest.raises(UsageError, match=r"one trained .*resnet18.*wider .*resnet34.*: average runs of one network"):
        average([one, wider], made_set, target)
    with pytest.raises(UsageError, match=r"empty has no weights\.safetensors: wanted the folder of a run"):
        average([one, tmp_path / "empty"], made_set, target)
    assert not target.exists()
